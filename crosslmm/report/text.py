"""The report as text."""

from __future__ import annotations

from crosslmm.report.content import ReportContent


def render_text(content: ReportContent) -> str:
    """The report of a fit as text."""
    return content.formula + "\n\n" + content.varcorr.to_string() + "\n\n" + content.coefficients.to_string()
