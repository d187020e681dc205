"""The table as text: Markdown for reports, a summary for the terminal, CSV for other programs."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Sequence

from pipeline.rows import row_order
from pipeline.table import SPLITS, Cell, Section, holds_published

NOTHING = Cell(math.nan)
CSV_COLUMNS = ["source", "condition", "system", "scorer", "measure", "split"]
CSV_COLUMNS += ["value", "low", "high", "clips", "missing", "scored_by"]


def format_cell(cell: Cell, digits: int, intervals: bool) -> str:
    """Write a cell: the value, and if wanted its interval and the number of clips."""
    if math.isnan(cell.value):
        return f"– ({cell.missing} missing)" if cell.missing and intervals else "–"
    text = f"{cell.value:.{digits}f}"
    if intervals and cell.clips:
        if not math.isnan(cell.low):
            text += f" [{cell.low:.{digits}f}, {cell.high:.{digits}f}]"
        text += f" n={cell.clips}" + (f" ({cell.missing} missing)" if cell.missing else "")
    return text


def heading(section: Section) -> str:
    """Name a measure, with an arrow to where it is better."""
    return section.label + {True: " ↑", False: " ↓", None: ""}[section.higher_is_better]


def table_markdown(sections: Sequence[Section], intervals: bool = True) -> str:
    """Write the table in Markdown, aligned so that it reads well as plain text, too.

    Args:
        sections: The table.
        intervals: Whether to give confidence intervals and numbers of clips.

    Returns:
        One Markdown table per measure; who measured, and what was not measured and why, in a list behind them.
    """
    return "\n".join([*_tables(sections, intervals), notes_markdown(sections)])


def _tables(sections: Sequence[Section], intervals: bool) -> list[str]:
    tables = []
    for section in sections:
        body = [
            [
                f"*published:* {line.label}" if line.published else line.label,
                *(format_cell(line.cells.get(split, NOTHING), section.digits, intervals) for split in SPLITS),
            ]
            for line in section.lines
        ]
        if body:
            tables.append(aligned([[heading(section), *SPLITS], *body]) + "\n")
    return tables


def table_summary(sections: Sequence[Section]) -> str:
    """Write the table for the terminal: the paper's measures by split, all others in one table over all clips.

    What was configured and could not be measured stands in the latter and is named; the paper's numbers for it stand
    together in a table of their own.
    """
    measured = [section for section in sections if any(not line.published for line in section.lines)]
    paper = _tables([section for section in measured if section.paper], intervals=False)
    only_published = [section for section in sections if section.lines and section not in measured]
    return "\n".join(
        [*paper, *_published_table(only_published), *_further_table(sections, measured), notes_markdown(sections)]
    )


def _published_table(sections: Sequence[Section]) -> list[str]:
    rows = {line.row: line.label for section in sections for line in section.lines}
    if not rows:
        return []
    body = []
    for row in sorted(rows, key=row_order):
        cells = [next((line.cells for line in section.lines if line.row == row), {}) for section in sections]
        values = [
            " / ".join(format_cell(of_row[split], section.digits, False) for split in SPLITS[:-1]) if of_row else "–"
            for section, of_row in zip(sections, cells, strict=True)
        ]
        body.append([f"*published:* {rows[row]}", *values])
    return [aligned([[" / ".join(SPLITS[:-1]), *map(heading, sections)], *body]) + "\n"]


def _further_table(sections: Sequence[Section], measured: Sequence[Section]) -> list[str]:
    rows = list(dict.fromkeys(line.row for section in measured for line in section.lines if not line.published))
    body = []
    for section in sections:
        if (section in measured and section.paper) or not section.scorer:
            continue
        cells = {line.row: line.cells["all"] for line in section.lines if not line.published}
        values = [format_cell(cells.get(row, NOTHING), section.digits, intervals=False) for row in rows]
        body.append([heading(section), *(values if cells else ["not measured"] * len(rows))])
    return [aligned([["All clips", *(row.label for row in rows)], *body]) + "\n"] if body and rows else []


def notes_markdown(sections: Sequence[Section]) -> str:
    """List who measured what, and what was not measured and why."""
    measures = defaultdict(list)
    for section in sections:
        measures[section.note].append(section.label)
    lines = [f"{'; '.join(labels)}: {note}" for note, labels in measures.items()]
    if holds_published(sections):
        lines.append("Published: Borsos et al. 2023, Table 1; LibriSpeech test-clean, scorers that are not public.")
    return "".join(f"- {line}\n" for line in lines)


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table with columns of even width, the first to the left and the others to the right."""
    table = [[cell.replace("|", "\\|") for cell in row] for row in table]
    first, *others = ([len(cell) for cell in column] for column in zip(*table, strict=True))
    widths = [max(lengths) for lengths in others]
    lines = [f"| {row[0].ljust(max(first))} | {' | '.join(map(str.rjust, row[1:], widths))} |" for row in table]
    rule = "|".join(["-" * (max(first) + 2), *("-" * (width + 1) + ":" for width in widths)])
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def table_csv(sections: Sequence[Section]) -> str:
    """Write the table as CSV, one cell per line, measured and published told apart in the first column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for section in sections:
        for line in section.lines:
            for split, cell in line.cells.items():
                if math.isnan(cell.value) and not cell.missing:
                    continue
                numbers = ["" if math.isnan(x) else f"{x:.6g}" for x in (cell.value, cell.low, cell.high)]
                if line.published:
                    source, scorer, rest = "published", "", ["", "", ""]
                else:
                    source, scorer, rest = "measured", section.scorer, [cell.clips, cell.missing, section.scored_by]
                writer.writerow([source, *line.row, scorer, section.key, split, *numbers, *rest])
    return text.getvalue()
