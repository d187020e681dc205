"""The figures of the report: consistency over time, runtime against duration, scores against iterations."""

import math
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from pipeline.rows import SYSTEMS, Column, Results, Row
from pipeline.sweeps import sweep_curves
from pipeline.table import measure_cell
from pipeline.timings import Speed

# Told apart in print and by the colour-blind; systems beyond them repeat the colours with other markers.
COLORS = (
    *("#4d4d4d", "#e08e0b", "#1f6fb4", "#c2334d", "#3a8f5c"),
    *("#7a4fa3", "#8a5a2b", "#2bb5c4", "#e07bb5", "#98a832"),
)
MARKERS = "os^DvpP*Xh"
ACCENT = "#1f6fb4"  # one row among others
PANELS = 3  # beside one another
PAPER_RTF = 0.017  # of 30 s on a TPU v4, decoding to audio included
QUALITY = ("dnsmos_ovrl", "nisqa_mos", "distillmos")  # measures that can stand for the paper's estimate of quality
SWEEP_TITLES = {"level1": "iterations at level 1", "finer": "iterations at each finer level"}


class Picture(NamedTuple):
    """A figure of the report."""

    title: str
    file: str  # relative to the report
    caption: str


def draw_figures(results: Results, speeds: Sequence[Speed], output: Path, resamples: int) -> list[Picture]:
    """Draw every figure there are numbers for.

    Args:
        results: What was found.
        speeds: What was timed.
        output: Folder of the report.
        resamples: Draws of the bootstrap for intervals.

    Returns:
        What was drawn.
    """
    pictures = []
    if caption := draw_consistency(results, output / "consistency.png"):
        pictures.append(Picture("Consistency over time", "consistency.png", caption))
    if caption := draw_runtime(speeds, output / "runtime.png"):
        pictures.append(Picture("Runtime", "runtime.png", caption))
    if caption := draw_iterations(results, output / "iterations.png", resamples):
        pictures.append(Picture("Iterations", "iterations.png", caption))
    return pictures


def draw_consistency(results: Results, file: Path) -> str | None:
    """Draw how the voice holds over time: median and inter-quartile range of the cosine with the first crop.

    Every row has a panel of its own, with the medians of the others in grey: bands over one another cannot be read.

    Args:
        results: What was found.
        file: PNG to write.

    Returns:
        What the figure shows, for its caption; ``None``, and no file, where no curve was measured.
    """
    scorer = next((column for column in results.columns if column.measure.name == "consistency"), None)
    if scorer is None or scorer.identity is None:
        return None
    seconds = float(scorer.identity.get("crop_seconds", 3.0))
    # The paper's Figure 2 shows the long split; what has no such clips shows all of its clips.
    split = "long" if any(u["split"] == "long" and _curve(u, scorer.scorer) for u in results.utterances) else None
    shown = [row for row in results.rows if row.sweep is None]
    curves = {row: [_curve(utterance, scorer.scorer) for utterance in results.of(row, split)] for row in shown}
    lost = sum(not math.isfinite(cosine) for found in curves.values() for curve in found for cosine in curve)
    quartiles = {row: found for row in shown if np.isfinite(found := _quartiles(curves[row])).any()}
    if not quartiles:
        return None
    columns = min(len(quartiles), PANELS)
    lines = -(-len(quartiles) // columns)
    figure, panels = _figure(2.6 * max(columns, 2), 0.6 + 1.9 * lines, columns, lines, sharey="all")
    times = (np.arange(max(map(len, quartiles.values()))) + 1.5) * seconds
    for axes, (row, own) in zip(panels, quartiles.items(), strict=False):
        for found in quartiles.values():
            axes.plot(times[: len(found)], found[:, 1], color="#c4c8d0", linewidth=0.8)
        axes.fill_between(times[: len(own)], own[:, 0], own[:, 2], color=ACCENT, alpha=0.2, linewidth=0)
        axes.plot(times[: len(own)], own[:, 1], color=ACCENT, marker="o", markersize=3.5, linewidth=1.6)
        axes.set_title(textwrap.fill(row.label, 36), fontsize=8.5)
        axes.tick_params(labelsize=8)
    for axes in panels[len(quartiles) :]:
        axes.set_visible(False)
    figure.supxlabel("seconds into the clip (middle of the crop)", fontsize=9)
    figure.supylabel("cosine with the first crop", fontsize=9)
    figure.savefig(file, dpi=130)
    clips = max(sum(np.isfinite(curve).any() for curve in found) for found in curves.values())
    which = "clips of 20 to 30 s" if split else "clips of all lengths"
    left_out = f"; {lost} cosines without a finite value are left out" if lost else ""
    return (
        f"Cosine of the first {seconds:g} s with every later crop of {seconds:g} s; median and inter-quartile range "
        f"(grey: medians of the other rows) over {clips} {which}{left_out}. Embedding: {scorer.identity['name']}."
    )


def _curve(utterance: dict[str, Any], scorer: str) -> list[float]:
    """The cosines of an utterance in order of time, NaN where there is none."""
    curve = utterance["scores"].get(scorer, {}).get("curve") or []
    return [math.nan if cosine is None else cosine for cosine in curve]


def _quartiles(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """The quartiles of several curves, crop by crop, ``[T, 3]``; NaN where no curve has a finite value."""
    crops = [[value for value in crop if math.isfinite(value)] for crop in zip_longest(*curves, fillvalue=math.nan)]
    return np.array([np.percentile(crop, (25, 50, 75)) if crop else [math.nan] * 3 for crop in crops])


def draw_runtime(speeds: Sequence[Speed], file: Path) -> str | None:
    """Draw wall-clock time against the duration of the audio, one line per system, one panel per device.

    Args:
        speeds: What was timed.
        file: PNG to write.

    Returns:
        What the figure shows, for its caption; ``None``, and no file, where nothing was timed.
    """
    devices = list(dict.fromkeys(speed.device for speed in speeds))
    if not devices:
        return None
    figure, panels = _figure(7.6 if len(devices) == 1 else 5.4 * len(devices), 4.0, len(devices))
    systems = sorted(dict.fromkeys(speed.system for speed in speeds), key=_system_order)
    times = [time for speed in speeds for time in (speed.without_codec, speed.with_codec) if time]
    longest = max(speed.generated_seconds for speed in speeds)
    bottom, top = min(times) / 2, max(*times, longest) * 2
    for axes, device in zip(panels, devices, strict=True):
        for number, system in enumerate(systems):
            of_system = [speed for speed in speeds if (speed.device, speed.system) == (device, system)]
            style = _style(number)
            durations = [speed.generated_seconds for speed in of_system]
            axes.plot(durations, [speed.without_codec for speed in of_system], **style, label=_system_name(system))
            decoded = [(s.generated_seconds, s.with_codec) for s in of_system if s.with_codec is not None]
            if decoded:
                axes.plot(*zip(*decoded, strict=True), color=style["color"], linestyle=":", linewidth=1.2)
        span = np.linspace(min(speed.generated_seconds for speed in speeds), longest, 50)
        axes.plot(span, span, color="#999999", linestyle="--", linewidth=1)
        axes.annotate(
            "real time",
            (longest, longest),
            (-2, 4),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="#777777",
        )
        axes.set_yscale("log")
        axes.set_ylim(bottom, top)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        axes.set_xlabel("seconds generated")
        axes.set_title(device, fontsize=9)
    panels[0].set_ylabel("seconds to generate it")
    _legend(figure, panels[0])
    figure.savefig(file, dpi=130)
    repeats = min(speed.repeats for speed in speeds)
    return (
        "Seconds to generate one utterance against the seconds of it that are generated, the prompt not counted, both "
        f"measured here; solid: codes, dotted: decoding to audio included; medians of at least {repeats} repeats after "
        f"a warm-up. The paper gives one number, a real-time factor of {PAPER_RTF} for 30 s on a TPU v4, decoding "
        "included."
    )


def draw_iterations(results: Results, file: Path, resamples: int) -> str | None:
    """Draw estimated quality and WER against the iterations of level 1 and of the finer levels (Figure 4).

    Args:
        results: What was found; which rows are points of the curves is told by :func:`pipeline.sweeps.sweep_curves`.
        file: PNG to write.
        resamples: Draws of the bootstrap for the intervals.

    Returns:
        What the figure shows, for its caption; ``None``, and no file, where no iterations were varied.
    """
    sweeps = sweep_curves(results)
    columns = _quality_and_errors(results.columns)
    if not sweeps or not columns:
        return None
    levels = [name for name in SWEEP_TITLES if name in sweeps]
    figure, panels = _figure(4.2 * len(levels), 2.9 * len(columns), len(levels), len(columns))
    for at, axes in enumerate(panels):
        column, name = columns[at // len(levels)], levels[at % len(levels)]
        shown: list[int] = []
        for number, ((system, condition), curve) in enumerate(sweeps[name].items()):
            points = []
            for sweep, row in curve.items():
                cell = measure_cell(results.of(row), column.scorer, column.measure, resamples)
                points.append((sweep, cell.value, cell.value - cell.low, cell.high - cell.value))
            iterations, values, below, above = np.array(points, dtype=float).T
            errors = np.nan_to_num(np.clip(np.stack([below, above]), 0, None))
            label = f"{_system_name(system)}, {Row(condition, system).condition_name}"
            axes.errorbar(iterations, values, yerr=errors, **_style(number), capsize=3, label=label)
            shown += [int(value) for value in iterations if int(value) not in shown]
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sorted(shown)))
        axes.xaxis.set_major_formatter(FixedFormatter([str(value) for value in sorted(shown)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(SWEEP_TITLES[name])
        if at % len(levels) == 0:
            axes.set_ylabel(column.label)
    _legend(figure, panels[0])
    figure.savefig(file, dpi=130)
    clips = max(
        len(results.of(row)) for curves in sweeps.values() for curve in curves.values() for row in curve.values()
    )
    return (
        f"{' and '.join(column.label for column in columns)} against the number of iterations, over {clips} clips; "
        "bars: 95 % bootstrap intervals by utterance. The paper reports 0.1 to 0.2 more estimated quality for 16 "
        "iterations at level 1 than for level-wise greedy decoding, and no significant gain from more at other levels."
    )


def _quality_and_errors(columns: Sequence[Column]) -> list[Column]:
    measured = {column.measure.name: column for column in reversed(columns) if column.identity is not None}
    quality = next((measured[name] for name in QUALITY if name in measured), None)
    return [column for column in (quality, measured.get("wer")) if column is not None]


def _system_name(system: str) -> str:
    return SYSTEMS.get(system, system)


def _system_order(system: str) -> tuple[int, str]:
    return list(SYSTEMS).index(system) if system in SYSTEMS else len(SYSTEMS), system


def _style(number: int) -> dict[str, Any]:
    marker = MARKERS[(number + number // len(COLORS)) % len(MARKERS)]
    return {"color": COLORS[number % len(COLORS)], "marker": marker, "markersize": 4.5, "linewidth": 1.6}


def _legend(figure: Figure, axes: Any) -> None:
    # Below the panels, where it hides no curve.
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) > 28 else min(len(labels), 3)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5)


def _figure(
    width: float, height: float, columns: int = 1, rows: int = 1, sharey: Literal["row", "all"] = "row"
) -> tuple[Figure, list[Any]]:
    # Figures of one's own, not pyplot's: nothing global is changed and no display is looked for.
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    return figure, panels
