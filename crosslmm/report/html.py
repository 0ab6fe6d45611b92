"""The report as an HTML fragment for notebooks: inherits fonts and colours, so it reads in light and dark themes."""

from __future__ import annotations

from html import escape

from crosslmm.report.body import Table, body
from crosslmm.report.content import ReportContent

TABLE = "border-collapse:collapse;margin:0.4em 0 0.8em 0;font-size:90%"
CAPTION = "caption-side:top;text-align:left;font-weight:bold;color:inherit;padding:0.2em 0"
LINE = "border-bottom:1px solid rgba(128,128,128,0.6)"
NAME = "text-align:left;padding:0.1em 0.6em;background:none"
NUMBER = "text-align:right;padding:0.1em 0.6em;background:none;font-variant-numeric:tabular-nums"
NOTE = "margin:0.4em 0;padding:0.2em 0.6em;border-left:3px solid rgb(200,120,0)"


def render_html(content: ReportContent) -> str:
    """The report of a fit as HTML."""
    parts = body(content)
    facts = "".join(
        f'<tr><th scope="row" style="{NAME}">{escape(label)}</th><td style="{NAME}">{escape(text)}</td></tr>'
        for label, text in parts.facts
    )
    notes = "".join(f'<p style="{NOTE}">{escape(note)}</p>' for note in parts.notes)
    tables = "".join(_table(table) for table in parts.tables)
    title = f'<caption style="{CAPTION}">{escape(parts.title)}</caption>'
    return f'<div><table style="{TABLE}">{title}<tbody>{facts}</tbody></table>{notes}{tables}</div>'


def _table(table: Table) -> str:
    if not table.rows:
        return f"<p><b>{escape(table.title)}</b></p>"
    caption = f'<caption style="{CAPTION}">{escape(table.title)}</caption>' if table.title else ""
    head = "".join(_cell("th", text, j < table.n_labels) for j, text in enumerate(table.header))
    rows = "".join(
        "<tr>" + "".join(_cell("td", text, j < table.n_labels) for j, text in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return (
        f'<table style="{TABLE}">{caption}<thead style="{LINE}"><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{note}"
    )


def _cell(tag: str, text: str, is_name: bool) -> str:
    return f'<{tag} style="{NAME if is_name else NUMBER}">{escape(text)}</{tag}>'
