"""One page with everything: tables, figures, coverage and provenance in a file that can be mailed."""

from analysis.report.page import write

__all__ = ["write"]
