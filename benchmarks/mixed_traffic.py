"""Two kinds of questions in one stream, one predictor, one total: what does a plan gain over one cap for all?

    OMP_NUM_THREADS=1 python benchmarks/mixed_traffic.py FIRST SECOND --out docs/results/mixed/mixed.json

FIRST and SECOND are profiles of one model and template that hold the states of the same layer. At the caps that both
have they become one profile, of all their questions or of as many of FIRST as of SECOND (`--even`, the first ones in
the order of a hash). Every question is predicted by a predictor that did not see it (`cross_fit`), which knows nothing
of kinds. The gain is over uniform and over blind at equal realised tokens; intervals are of a bootstrap of questions.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from forethought.control import sources
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.profile import Profile, Traces
from forethought.core.versions import versions
from forethought.evaluation.policies import FORETHOUGHT, ORACLE, Policies
from forethought.evaluation.resampled import Resampled
from forethought.evaluation.results import Estimate
from forethought.predictors.parts.folds import hash_order
from forethought.predictors.training import cross_fit
from machine import processor

NUM_RESAMPLES, BY_KIND = 2000, "by kind"
LEVELS = (60.0, 80.0, 100.0, 120.0, 140.0)  # mean spent tokens, answers included


def at_caps(profile: Profile, menu: Menu) -> Profile:
    """The profile at some of its caps."""
    return profile.on_columns(menu, np.array(profile.menu.columns(menu.caps)))


def mixed(first: Profile, second: Profile) -> Profile:
    """One profile of both, its rows in that order."""
    traces = first.traces and second.traces and Traces.joined([first.traces, second.traces])
    if first.layers != second.layers or first.hidden_Q_L_D is None or second.hidden_Q_L_D is None:
        raise SystemExit("the profiles need the hidden states of the same layer")
    return replace(
        first,
        query_ids=first.query_ids + second.query_ids,
        num_right_Q_B=np.concatenate([first.num_right_Q_B, second.num_right_Q_B]),
        num_tried_Q=np.concatenate([first.num_tried_Q, second.num_tried_Q]),
        tokens_Q_B=np.concatenate([first.tokens_Q_B, second.tokens_Q_B]),
        reasoning_Q_B=np.concatenate([first.reasoning_Q_B, second.reasoning_Q_B]),
        hidden_Q_L_D=np.concatenate([first.hidden_Q_L_D, second.hidden_Q_L_D]),
        texts=first.texts + second.texts,
        difficulties=(),
        traces=traces,
    )


def by_kind(both: Profile, num_first: int) -> Curves:
    """What one would predict who knew the kinds alone: the mean curve of a question's kind, of these very questions.

    Without the question itself, each would be ranked by how much its own traces take from the mean of the others.
    """
    p_Q_B, tokens_Q_B = np.array(both.curves.p_Q_B), np.array(both.tokens_Q_B, dtype=np.float64)
    for part in (slice(num_first), slice(num_first, None)):
        p_Q_B[part], tokens_Q_B[part] = p_Q_B[part].mean(axis=0), tokens_Q_B[part].mean(axis=0)
    return Curves(both.query_ids, both.menu, p_Q_B, tokens_Q_B)


def measure(first: Profile, second: Profile, predictor: str) -> dict[str, Any]:
    """Rows at each level, with what each kind got."""
    both = replace(mixed(first, second), traces=None)
    predicted, mean = cross_fit(both, predictor=predictor)
    policies, kinds = Policies(both, predicted, mean, "envelope"), {"first": slice(first.num_queries)}
    kinds["second"] = slice(first.num_queries, None)
    kind_means, rows = by_kind(both, first.num_queries), []
    for level in LEVELS:
        kinds_alone = policies.planned(BY_KIND, kind_means, "envelope", Cost.SPENT, level)
        ours = policies.planned(FORETHOUGHT, predicted, "envelope", Cost.SPENT, level)
        played = [policies.uniform(Cost.SPENT, level), ours, kinds_alone, policies.oracle(Cost.SPENT, level)]
        found = Resampled.make(policies, played, Cost.SPENT, num_resamples=NUM_RESAMPLES, seed=0).rows()
        row, kind_row = (next(each for each in found if each.policy == name) for name in (FORETHOUGHT, BY_KIND))
        assert row.gain is not None
        assert row.gain_over_blind is not None
        assert row.uniform_at_same_tokens is not None
        assert kind_row.gain is not None
        rows.append(
            {
                "level": level,
                "spent": round(float(ours.spent_Q.mean()), 1),
                "right": percent(row.accuracy),
                "uniform_right": percent(row.uniform_at_same_tokens),
                "points_over_uniform": percent(row.gain),
                "points_over_blind": percent(row.gain_over_blind),
                "points_by_kind_alone": percent(kind_row.gain),
                "oracle_right": percent(next(each for each in found if each.policy == ORACLE).accuracy),
                "spent_on": {kind: round(float(ours.spent_Q[part].mean()), 1) for kind, part in kinds.items()},
                "right_of": {kind: round(100 * float(ours.accuracy_Q[part].mean()), 1) for kind, part in kinds.items()},
                "uniform_right_of": {
                    kind: round(100 * float(played[0].accuracy_Q[part].mean()), 1) for kind, part in kinds.items()
                },
            }
        )
    return {"questions": [first.num_queries, second.num_queries], "rows": rows}


def percent(found: Estimate) -> list[float]:
    """Value, low and high end of its interval, in percent."""
    return [round(100 * each, 1) for each in (found.value, found.low, found.high)]


def main() -> None:
    """Measures both mixtures, and each kind alone, and writes the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--caps", default="32:256:32")
    parser.add_argument("--predictor", default="ridge")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--save", type=Path, help="a Parquet file: also keeps the profile of both")
    options = parser.parse_args()
    menu = Menu.parse(options.caps)
    first, second = (at_caps(sources.open_profile(each), menu) for each in (options.first, options.second))
    if options.save:
        mixed(first, second).save(options.save)
    order = np.sort(hash_order(first.query_ids, seed=0)[: second.num_queries])
    found = {"all": measure(first, second, options.predictor)}
    found["even"] = measure(first.select(order), second, options.predictor)
    result = {
        "command": f"python benchmarks/mixed_traffic.py {' '.join(sys.argv[1:])}",
        "intervals": f"95%, {NUM_RESAMPLES:,} resamples of the questions",
        "hardware": f"{processor()}, shared with other work",
        "versions": versions(),
        **found,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
