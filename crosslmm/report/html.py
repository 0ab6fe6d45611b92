"""The report as html."""

from __future__ import annotations

from crosslmm.report.content import ReportContent


def render_html(content: ReportContent) -> str:
    """The report of a fit as html."""
    return content.formula + "\n\n" + content.varcorr.to_string() + "\n\n" + content.coefficients.to_string()
