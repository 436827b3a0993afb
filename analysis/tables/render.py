"""Renders a table as Markdown, CSV and LaTeX (booktabs)."""

import re
import textwrap
from collections.abc import Callable

from analysis.tables.table import Column, Table, markdown

_HEAD = 12  # letters in a line of a stacked head
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "−": r"$-$", "±": r"$\pm$", "×": r"$\times$", "–": "--", "α": r"$\alpha$", "τ": r"$\tau$", "²": r"$^2$",
    "†": r"$\dagger$", "…": r"\ldots{}", "≥": r"$\geq$", "≤": r"$\leq$",
}  # fmt: skip


def csv(table: Table) -> str:
    """Return the numbers in full, without the caption."""
    return str(table.frame.to_csv(index=False, lineterminator="\n"))


def latex(table: Table) -> str:
    r"""Return a `table` environment; the document needs `\usepackage{booktabs,graphicx}`.

    Letters are small and heads stacked, so that most tables fit a page; what does not is scaled down to it.
    """
    align = "".join(column.align for column in table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(' '.join(table.caption.split()))}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9._-]+', '-', table.name)}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        " & ".join(_stacked(column) for column in table.columns) + r" \\",
        r"\midrule",
        # An opening bracket right after \\ would be taken for its optional argument.
        *(" & ".join("{}" + t if t.startswith("[") else t for t in map(escape, row)) + r" \\" for row in table.shown()),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {".md": markdown, ".csv": csv, ".tex": latex}


def escape(text: str) -> str:
    """Return text with what LaTeX would interpret written out."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.splitlines()))


def _stacked(column: Column) -> str:
    lines = [escape(line) for line in textwrap.wrap(column.title, _HEAD, break_long_words=False)]
    if len(lines) == 1:
        return lines[0]
    text = r" \\ ".join(lines)
    return rf"\shortstack[{column.align}]{{{text}}}"
