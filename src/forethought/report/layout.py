"""Cells in rows and columns: aligned for the terminal, or as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.visible import one_line


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width: the first to the left, the others to the right, marks hanging out at the end."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table and a blank one; numbers stand to the right."""
    rule = ["---", *["---:" if len(head) > 2 else "---"] * (len(head) - 1)]
    return [f"| {' | '.join(_escaped(cell) for cell in cells)} |" for cells in (head, rule, *rows)] + [""]


def _escaped(cell: str) -> str:
    return one_line(cell).replace("|", "\\|")
