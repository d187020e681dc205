"""The paper's Table 1, measured beside published."""

import csv
import io
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from datamodules.audio_sources import one_line
from modules.measure import Measure
from pipeline.rows import PAPER_SPLITS, Column, Results, Row, row_order

SPLITS = (*PAPER_SPLITS, "all")
# The paper's columns, in its order; higher is better except for the first two.
PAPER_LABELS = {"wer": "WER %", "cer": "CER %", "quality": "Estimated quality", "voice": "Voice"}
PAPER_LABELS |= {"consistency": "Consistency"}


class Cell(NamedTuple):
    """One number of the table.

    A published cell has a value only.
    """

    value: float  # NaN where there is none
    low: float = math.nan  # 95 % bootstrap confidence interval
    high: float = math.nan
    clips: int = 0  # utterances in it
    missing: int = 0  # utterances without a value


class Line(NamedTuple):
    """One line of a section: a row of the table, in all splits."""

    row: Row
    label: str
    published: bool
    cells: dict[str, Cell]  # by split


class Section(NamedTuple):
    """One measure, in all rows and splits."""

    key: str  # the measure, unique in the table
    label: str
    scorer: str  # "" where nothing of the kind was configured
    higher_is_better: bool | None
    digits: int
    paper: str | None  # metric of the paper's Table 1 that it stands beside
    note: str  # who scored; or why nothing did
    lines: list[Line]
    scored_by: str = ""  # name and revision of the model that scored, and how it normalised texts


def confidence_interval(numerators: np.ndarray, denominators: np.ndarray, resamples: int) -> tuple[float, float]:
    """Find the 95 % bootstrap interval of a ratio of sums, drawing utterances with replacement.

    The draws depend on the number of utterances alone: repeated reports agree, and systems that are scored on the same
    utterances are resampled alike.

    Args:
        numerators: Summands above, per utterance ``[N]``.
        denominators: Summands below, likewise.
        resamples: Number of draws.

    Returns:
        Lower and upper end; NaN where fewer than two utterances leave nothing to draw.
    """
    if len(numerators) < 2 or resamples < 1:
        return math.nan, math.nan
    random = np.random.default_rng(0)
    ratios = np.empty(resamples)
    step = max(1, 2_000_000 // len(numerators))  # draws at a time, to bound the memory
    for first in range(0, resamples, step):
        drawn = random.integers(len(numerators), size=(min(step, resamples - first), len(numerators)))
        sums = denominators[drawn].sum(axis=1)
        ratios[first : first + step] = np.divide(
            numerators[drawn].sum(axis=1), sums, out=np.full(len(sums), np.nan), where=sums != 0
        )
    low, high = np.nanpercentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def measure_cell(utterances: Sequence[dict[str, Any]], scorer: str, measure: Measure, resamples: int) -> Cell:
    """Compute one cell from the utterances in it."""
    terms = [measure.terms(utterance["scores"][scorer]) for utterance in utterances if scorer in utterance["scores"]]
    applicable = np.array([pair for pair in terms if pair is not None], dtype=float).reshape(-1, 2)
    scored = applicable[np.isfinite(applicable).all(axis=1)]
    missing = len(applicable) - len(scored)
    above, below = scored[:, 0], scored[:, 1]
    if not below.sum():
        return Cell(math.nan, missing=missing)
    low, high = confidence_interval(above, below, resamples)
    scale = measure.scale
    return Cell(scale * above.sum() / below.sum(), scale * low, scale * high, len(scored), missing)


def published_lines(metric: str) -> list[Line]:
    """The rows of the paper's Table 1 for one of its metrics: wer, cer, quality, voice or consistency."""
    lines: dict[Row, dict[str, Cell]] = {}
    for values in csv.DictReader(io.StringIO(published_csv())):
        if values["metric"] == metric:
            row = Row(values["condition"], values["system"])
            lines.setdefault(row, {})[values["split"]] = Cell(float(values["value"]))
    return [Line(row, row.label, True, {**cells, "all": Cell(math.nan)}) for row, cells in lines.items()]


def published_csv() -> str:
    """The numbers of the paper's Table 1."""
    return resources.files("pipeline").joinpath("published", "soundstorm_table1.csv").read_text(encoding="utf-8")


def make_sections(results: Results, resamples: int = 2000, published: bool = True) -> list[Section]:
    """Compute the whole table.

    Args:
        results: What was found.
        resamples: Draws of the bootstrap.
        published: Whether to put the paper's numbers beside the measured ones.

    Returns:
        One section per measure; those of the paper's table first, in its order.
    """
    sections = [_section(results, column, resamples, published) for column in results.columns]
    shown = {section.paper for section in sections}
    for metric, label in PAPER_LABELS.items() if published else ():
        if metric not in shown:
            reason = "the paper's estimator is not public" if metric == "quality" else "no such scorer was configured"
            better = metric not in ("wer", "cer")
            lines = published_lines(metric)
            sections.append(Section(metric, label, "", better, 2, metric, f"Not measured: {reason}.", lines))
    order = list(PAPER_LABELS)
    return sorted(sections, key=lambda section: order.index(section.paper) if section.paper in order else len(order))


def holds_published(sections: Sequence[Section]) -> bool:
    """Tell whether numbers of the paper stand in the table."""
    return any(line.published for section in sections for line in section.lines)


def without_sweeps(sections: Sequence[Section]) -> list[Section]:
    """Leave out the rows of ablations over iterations, which a figure shows."""
    return [section._replace(lines=[line for line in section.lines if line.row.sweep is None]) for section in sections]


def _section(results: Results, column: Column, resamples: int, published: bool) -> Section:
    scorer, measure = column.scorer, column.measure
    lines = []
    for row in results.rows:
        cells = {
            split: measure_cell(results.of(row, None if split == "all" else split), scorer, measure, resamples)
            for split in SPLITS
        }
        if any(cell.clips or cell.missing for cell in cells.values()):
            lines.append(Line(row, row.label, False, cells))
    if scorer in results.absent:
        note = f"Not measured: {results.absent[scorer]}."
    elif column.identity is not None and not lines:
        note = "Applies to no clip."
    elif column.identity is not None:
        note = one_line(f"Measured with {column.identity['name']} ({column.identity['revision']}).")
    else:
        note = "Not measured."
    if published and measure.published:
        lines = _interleave(lines, published_lines(measure.published))
    key = measure.name if scorer == measure.name else f"{scorer}/{measure.name}"
    better, digits = measure.higher_is_better, measure.digits
    return Section(key, column.label, scorer, better, digits, measure.published, note, lines, _scored_by(column))


def _scored_by(column: Column) -> str:
    if column.identity is None:
        return ""
    known = column.identity
    normalizer = f", normalised by {known['normalizer']}" if known.get("normalizer") else ""
    return one_line(f"{known['name']}@{known['revision']}{normalizer}")


def _interleave(measured: list[Line], published: list[Line]) -> list[Line]:
    """Put what was published below what was measured under the same condition."""
    lines = [*measured, *published]
    conditions = dict.fromkeys(row.condition for row in sorted((line.row for line in lines), key=row_order))
    return [line for condition in conditions for line in lines if line.row.condition == condition]
