"""The report in statsmodels' layout, character by character: two tables, as text, HTML and LaTeX."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape

import pandas as pd

BETWEEN = 1
"""Spaces between the columns of a table, at least."""


@dataclass(frozen=True, repr=False)
class GroupedSummary:
    """A report that prints as text and shows as HTML in notebooks.

    Attributes
    ----------
    tables : tuple of DataFrame
        Facts in two pairs of columns, and coefficients; texts.
    title : str
    extra_txt : tuple of str
        Notes below the tables.
    """

    tables: tuple[pd.DataFrame, pd.DataFrame]
    title: str
    extra_txt: tuple[str, ...] = ()

    def as_text(self) -> str:
        """The report as plain text."""
        parts = [_cells(table, named) for table, named in zip(self.tables, (False, True), strict=True)]
        lengths = [len(_lines(cells, named, 0, 0)[0]) for cells, named in zip(parts, (False, True), strict=True)]
        widest = max(lengths)
        bodies = []
        for cells, named, length in zip(parts, (False, True), lengths, strict=True):
            # statsmodels counts one gap too few beside the names, so that its second table can be wider than the first
            gaps = max(len(cells[0]) - 1 - named, 1)
            pad = (widest - length) // gaps
            bodies.append(_lines(cells, named, pad, widest - length - gaps * pad))
        rule, thin = "=" * widest, "-" * len(bodies[1][-1])
        head, *rows = bodies[1]
        title = " " * int(widest / 2 - len(self.title) / 2) + self.title if len(self.title) < widest else self.title
        notes = "\n".join("\n".join(textwrap.wrap(note, widest)) for note in self.extra_txt)
        return "\n".join([title, rule, *bodies[0], thin, head, thin, *rows, rule, notes])

    def as_html(self) -> str:
        """The report as an HTML fragment."""
        facts, coefficients = self.tables
        lines = [f"<table class='simpletable'><caption>{escape(self.title)}</caption>"]
        for row in facts.itertuples(index=False):
            lines.append("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>")
        lines += ["</table>", "<table class='simpletable'>"]
        lines.append("<tr><td></td>" + "".join(f"<th>{escape(name)}</th>" for name in coefficients.columns) + "</tr>")
        for row in coefficients.itertuples():
            cells = "".join(f"<td style='text-align:right'>{escape(text)}</td>" for text in row[1:])
            lines.append(f"<tr><th style='text-align:left'>{escape(str(row[0]))}</th>{cells}</tr>")
        lines.append("</table>")
        lines += [f"<p>{escape(note)}</p>" for note in self.extra_txt]
        return "\n".join(lines)

    def as_latex(self, label: str = "") -> str:
        """The report as a LaTeX table.

        Parameters
        ----------
        label : str
            To refer to the table by.
        """
        facts, coefficients = self.tables
        lines = ["\\begin{table}", f"\\caption{{{_latex(self.title)}}}", f"\\label{{{label}}}"]
        lines += ["\\begin{center}", "\\begin{tabular}{llll}", "\\hline"]
        lines += [" & ".join(map(_latex, row)) + " \\\\" for row in facts.itertuples(index=False)]
        lines += ["\\hline", "\\end{tabular}", "\\end{center}", "", "\\begin{center}"]
        lines += ["\\begin{tabular}{l" + "r" * len(coefficients.columns) + "}", "\\hline"]
        lines.append(" & ".join(["", *map(_latex, coefficients.columns)]) + " \\\\")
        lines.append("\\hline")
        for row in coefficients.itertuples():
            lines.append(" & ".join(_latex(str(text)) for text in row) + " \\\\")
        lines += ["\\hline", "\\end{tabular}", "\\end{center}", "\\end{table}"]
        return "\n".join([*lines, *map(_latex, self.extra_txt)])

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()

    def _repr_latex_(self) -> str:
        return self.as_latex()


def _cells(table: pd.DataFrame, named: bool) -> list[list[str]]:
    rows = [list(map(str, row)) for row in table.itertuples(index=False)]
    if not named:
        return rows
    return [["", *table.columns], *([str(name), *row] for name, row in zip(table.index, rows, strict=True))]


def _lines(cells: list[list[str]], named: bool, pad: int, first: int) -> list[str]:
    """Rows of a table: names and facts to the left, headers centred or (with numbers) to the right."""
    body = cells[1:] if named else cells
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max([len(cells[0][0]), *(len(row[0]) + first for row in body)])
    lines = []
    for i, row in enumerate(cells):
        centred = named and i == 0
        texts = [
            text.center(width) if centred else text.ljust(width) if not named or j == 0 else text.rjust(width)
            for j, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * (BETWEEN + pad)).join(texts))
    return lines


def _latex(text: str) -> str:
    for plain, escaped in (("\\", "\\textbackslash{}"), ("_", "\\_"), ("%", "\\%"), ("#", "\\#"), ("&", "\\&")):
        text = text.replace(plain, escaped)
    return text.replace("$", "\\$").replace(">", "$>$").replace("<", "$<$").replace("|", "$|$")
