"""Grades cases whose verdict was decided before any of them was run, and counts what came out otherwise.

    python benchmarks/grading_cases.py docs/results/graders/cases.jsonl

A case is "right", or "not right" (wrong or unreadable; of math in both directions). Rounds were written one after the
other, each aimed where the one before had failed, which was mended in between: only the first was fresh for version 2.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import forethought.graders as graders

CLASSES = {name: f"{name.title()}Grader" for name in ("math", "number", "exact", "choice")}


def is_failed(case: dict[str, Any], grader: Any) -> str:
    """In which way the verdict is not the wanted one; "" where it is."""
    answer, reference = case["answer"], case["reference"]
    is_right = grader.grade(answer=answer, reference=reference) == "right"
    if case["want"] == "right":
        return "" if is_right else "not taken for right"
    if case["grader"] == "math":
        is_right |= grader.grade(answer=reference, reference=answer) == "right"
    return "taken for right" if is_right else ""


def main() -> None:
    """Prints a table: a row per grader and round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--show", action="store_true", help="print each case that came out otherwise")
    args = parser.parse_args()
    counts: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    made: dict[str, Any] = {}
    for line in args.cases.read_text("utf-8").splitlines():
        case = json.loads(line)
        key = case["grader"] + json.dumps(case.get("options", {}))
        made.setdefault(key, getattr(graders, CLASSES[case["grader"]])(**case.get("options", {})))
        failed = is_failed(case, made[key])
        counts[case["grader"], case["round"]].update(["n", failed] if failed else ["n"])
        if failed and args.show:
            print(f"{case['grader']}: {failed}: {case['answer']!r} for {case['reference']!r}")
    version = getattr(next(iter(made.values())), "version", "1")
    print(f"version {version}\n\n| grader | round | n | taken for right | not taken for right |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for (name, number), each in sorted(counts.items()):
        print(f"| {name} | {number} | {each['n']} | {each['taken for right']} | {each['not taken for right']} |")


if __name__ == "__main__":
    main()
