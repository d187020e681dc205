"""The table as LaTeX, for a paper: booktabs, intervals as small print."""

import math
from collections.abc import Sequence

from pipeline.table import SPLITS, Cell, Section, holds_published
from pipeline.table_text import NOTHING

SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {character: f"\\{character}" for character in "&%$#_{}"}
SPECIAL |= {
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "“": "``",
    "”": "''",
    "×": r"$\times$",
    "…": r"\dots{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def latex_text(text: str) -> str:
    """Write text so that LaTeX prints it as it is."""
    return "".join(SPECIAL.get(character, character) for character in text)


def latex_cell(cell: Cell, digits: int) -> str:
    """Write a cell: the value, its interval and the number of clips."""
    if math.isnan(cell.value):
        return rf"-- {{\tiny {cell.missing} missing}}" if cell.missing else "--"
    text = f"{cell.value:.{digits}f}"
    small = [] if math.isnan(cell.low) else [f"[{cell.low:.{digits}f}, {cell.high:.{digits}f}]"]
    small += [f"$n={cell.clips}$"] if cell.clips else []
    small += [f"{cell.missing} missing"] if cell.missing else []
    return text + (rf" {{\tiny {' '.join(small)}}}" if small else "")


def table_latex(sections: Sequence[Section]) -> str:
    r"""Write the table as one ``table*`` per measure, each short enough for a page; it needs the package ``booktabs``.

    Args:
        sections: The table.

    Returns:
        LaTeX, the paper's own rows in italics; who measured, and what was not measured, in comments behind the tables.
    """
    tables = [line for section in sections if section.lines for line in _table(section)]
    notes = [f"% {section.label}: {section.note}" for section in sections]
    return "\n".join(["% \\usepackage{booktabs}", *tables, *notes]) + "\n"


def _table(section: Section) -> list[str]:
    arrow = {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}[section.higher_is_better]
    lines = [
        r"\begin{table*}",
        r"\centering\footnotesize",
        rf"\begin{{tabular}}{{l{'r' * len(SPLITS)}}}",
        r"\toprule",
        rf"\textbf{{{latex_text(section.label)}}}{arrow} & {' & '.join(SPLITS)} \\",
        r"\midrule",
    ]
    for line in section.lines:
        label = latex_text(line.label)
        name = rf"\textit{{{label} (published)}}" if line.published else label
        cells = [latex_cell(line.cells.get(split, NOTHING), section.digits) for split in SPLITS]
        lines.append(rf"{name} & {' & '.join(cells)} \\")
    caption = f"{latex_text(section.label)} with 95\\,\\% bootstrap intervals by utterance and the number of clips."
    if holds_published([section]):
        caption += " Published: Borsos et al.\\ 2023, Table 1; LibriSpeech test-clean, scorers that are not public."
    return [*lines, r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table*}"]
