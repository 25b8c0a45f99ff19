"""Writes what the documents generate, or with --check says where they have drifted.

python tools/docs.py            writes docs/cli.md, and in other documents what stands between `<!-- results NAME -->`
                                or `<!-- file PATH -->` and `<!-- end -->`
python tools/docs.py --check    also checks links, the README's length and the figures in docs/results
"""

from __future__ import annotations

import functools
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import settings
from forethought import report
from forethought.commands import COMMANDS, reports, verbs
from forethought.commands.options import HELP_ALL
from forethought.core.data import Cost
from forethought.core.study_settings import EvaluateSettings
from forethought.evaluation import Evaluation
from forethought.predictors.bundle import shipped_predictors
from forethought.report import wording
from forethought.report.evaluation import levels_near, rows_at

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "cli.md"
README_LINES = 150
GENERATED = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "extending.md")
BLOCK = re.compile(r"(<!-- (results|file) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
CAPS = (32, 64, 96, 128, 192, 256)  # the rows of a table: what uniform spends there is the level under spent cost
# Matrix products round otherwise on another processor, and then a query at the margin may get another budget.
TOLERANCE = 1e-3
SHARE = 0.0051  # of 200 queries: one may move


def reference() -> str:
    """docs/cli.md: where settings come from, and `--help-all` of every command."""
    parts = [settings.head()]
    root = click.Context(verbs, info_name="forethought", max_content_width=100, terminal_width=100)
    parts += ["```", verbs.get_help(root), "```", ""]
    for name in COMMANDS:
        command = verbs.get_command(root, name)
        assert command is not None
        parts += _help(command, name, root)
    return "\n".join(parts)


def _help(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    """The section on a command, and on each command of a group."""
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
    context.meta[HELP_ALL] = True
    yield from (f"## {context.command_path}", "", "```", command.get_help(context), "```", "")
    if isinstance(command, click.Group):
        for own, each in command.commands.items():
            yield from _help(each, own, context)


@functools.cache
def evaluated(name: str) -> Evaluation:
    """What the shipped predictor gives on the shipped profile."""
    result = reports.evaluate(EvaluateSettings(run=name))
    assert isinstance(result, Evaluation)
    return result


def results_table(name: str) -> str:
    """Uniform, blind, forethought and the oracle at a few levels of both costs."""
    result = evaluated(name)
    lines = [
        "| tokens per question | uniform | blind | forethought | exact oracle | points over uniform | over blind |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for cost in (Cost.GRANTED, Cost.SPENT):
        for level in dict.fromkeys(levels_near(result, cap)[cost] for cap in CAPS):
            rows = rows_at(result, cost, level)
            ours = rows["forethought"]
            cells = [
                wording.percent(rows[name].accuracy.value) for name in ("uniform", "blind", "forethought", "oracle")
            ]
            cells += [wording.gain_words(ours.gain), wording.gain_words(ours.gain_over_blind)]
            lines.append(f"| {level:g} {cost.value} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def file_text(path: str) -> str:
    """A file of the repository as a code block."""
    file = ROOT / path
    language = {".py": "python"}.get(file.suffix, file.suffix[1:])
    return f"```{language}\n{file.read_text('utf-8').rstrip()}\n```\n"


def generated(text: str) -> str:
    """The document with its tables and files as they are today."""
    make = {"results": results_table, "file": file_text}
    return BLOCK.sub(lambda block: block[1] + make[block[2]](block[3]) + block[4], text)


def broken_links() -> Iterator[str]:
    """Relative links and pictures of the documents that lead nowhere."""
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", document.read_text("utf-8")):
            if "://" not in target and not (document.parent / target).exists():
                yield f"{document.relative_to(ROOT)}: link to {target}, which does not exist"


def drifted_figures() -> Iterator[str]:
    """Evaluations whose committed JSON is not what the shipped predictor gives on the shipped profile today."""
    for name in shipped_predictors():
        committed = ROOT / "docs" / "results" / name / "evaluation.json"
        if not committed.is_file():
            yield f"{committed.relative_to(ROOT)} is missing: forethought evaluate {name} --out docs/results/{name}"
            continue
        fresh = json.loads(json.dumps(report.page(evaluated(name)).to_json()))
        old = json.loads(committed.read_text("utf-8"))
        fresh["versions"] = old["versions"]  # what made it may be older, as long as the figures are the same
        differences = list(_differences(old, fresh, "evaluation"))
        yield from (f"{committed.relative_to(ROOT)}: {difference}" for difference in differences[:5])


def _differences(old: Any, new: Any, place: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(a, b, f"{place}[{index}]")
    elif isinstance(old, float | int) and isinstance(new, float | int):
        if not math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=SHARE if ".shares[" in place else TOLERANCE):
            yield f"{place} is {old} in the file, {new} now"
    elif old != new:
        yield f"{place} is {old!r} in the file, {new!r} now"


def problems() -> Iterator[str]:
    """Everything that has drifted."""
    if not REFERENCE.is_file() or REFERENCE.read_text("utf-8") != reference():
        yield "docs/cli.md is not what --help-all says; write it with: make docs"
    for document in GENERATED:
        if document.is_file() and generated(text := document.read_text("utf-8")) != text:
            yield f"{document.relative_to(ROOT)}: what it shows is not what there is today; write it with: make docs"
    yield from settings.unlisted()
    yield from broken_links()
    num_lines = len((ROOT / "README.md").read_text("utf-8").splitlines())
    if num_lines >= README_LINES:
        yield f"README.md has {num_lines} lines; keep it under {README_LINES}"
    yield from drifted_figures()


def main() -> int:
    """Writes or checks; exit code 1 when something has drifted."""
    if "--check" not in sys.argv[1:]:
        REFERENCE.parent.mkdir(exist_ok=True)
        REFERENCE.write_text(reference(), "utf-8")
        for document in GENERATED:
            if document.is_file():
                document.write_text(generated(document.read_text("utf-8")), "utf-8")
        return 0
    found = list(problems())
    for problem in found:
        print(problem, file=sys.stderr)
    print("documents: up to date" if not found else f"documents: {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
