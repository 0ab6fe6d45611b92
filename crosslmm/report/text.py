"""The report as text, at most `WIDTH` characters wide."""

from __future__ import annotations

import textwrap

from crosslmm.report.body import Table, body
from crosslmm.report.content import ReportContent
from crosslmm.report.numbers import align_points

WIDTH = 100
LABEL = 10
"""Width of the labels of the facts."""

LONG_NAME = 36
"""Names longer than this stand on a line of their own, so that the numbers keep their places."""


def render_text(content: ReportContent) -> str:
    """The report of a fit as plain text."""
    parts = body(content)
    facts = [_wrap(text, f"{label:<{LABEL}}", " " * LABEL) for label, text in parts.facts]
    blocks = ["\n".join([parts.title, *facts])]
    blocks += [_wrap(note, "", "  ") for note in parts.notes]
    blocks += [_table(table) for table in parts.tables]
    return "\n\n".join(blocks)


def _wrap(text: str, first: str, further: str) -> str:
    # Names are not broken: one that is too long for a line runs over.
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(table: Table) -> str:
    lines = [table.title] if table.title else []
    if table.rows:
        lines += _grid(table)
    if table.note:
        lines.append(f"  {table.note}")
    return "\n".join(lines)


def _grid(table: Table) -> list[str]:
    columns = []
    for j, head in enumerate(table.header):
        cells = [row[j] for row in table.rows]
        if j < table.n_labels:
            width = max(len(text) for text in [head, *cells] if len(text) <= LONG_NAME or text == head)
            columns.append([text.ljust(width) for text in [head, *cells]])
        else:
            cells = align_points(cells)
            width = max(len(text) for text in [head, *cells])
            columns.append([text.rjust(width) for text in [head, *cells]])
    return [line for i in range(len(table.rows) + 1) for line in _line([c[i] for c in columns], columns, table)]


def _line(cells: list[str], columns: list[list[str]], table: Table) -> list[str]:
    """A row of the grid, preceded by lines of their own for names that are too long."""
    above = []
    for j in range(table.n_labels):
        width = len(columns[j][0])
        if len(cells[j]) > width:
            above.append("  " + cells[j])
            cells[j] = " " * width
    return [*above, ("  " + "  ".join(cells)).rstrip()]
