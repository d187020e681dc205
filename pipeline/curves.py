"""``soundstorm curves``: what was logged in training, as a picture for a model card."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

COLORS = ("#1f6fb4", "#e08e0b", "#3a8f5c", "#7a4fa3", "#c2334d", "#4d4d4d")
DASHES = ("-", ":", "--", "-.")


class Curve(NamedTuple):
    """One logged quantity."""

    tag: str
    steps: list[int]
    values: list[float]


def curves(runs: list[Path], output: Path, tags: Sequence[str] = ("val/*loss",), height: float = 4.0) -> None:
    """Draw what training runs logged for TensorBoard, a panel per run with one scale, to be put into a model card.

    Args:
        runs: Folders with event files, such as runs/small; of a run that was resumed, all of its files are read.
        output: Picture to write, .png, .svg or .pdf.
        tags: Which quantities, ``*`` standing for any text: ``val/*/level_00/loss``. Those of one pattern are told
            apart by their dashes, patterns by their colours.
        height: Of the picture, in inches.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: The format is unknown, or a run has logged nothing that the patterns match; what it has is listed.
    """
    if output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"{output}: the format is told by the suffix, .png, .svg or .pdf")
    panels = [read_curves(run, tags) for run in runs]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(max(5.0, 4.2 * len(runs)), height), layout="constrained")
        FigureCanvasAgg(figure)
        drawn = figure.subplots(1, len(runs), squeeze=False, sharey=True).flat
        for axes, run, found in zip(drawn, runs, panels, strict=True):
            for color, pattern in zip(COLORS * len(tags), tags, strict=False):
                for dash, curve in zip(DASHES * len(found), found.get(pattern, []), strict=False):
                    marker = "o" if len(curve.steps) < 40 else ""
                    axes.plot(
                        curve.steps, curve.values, color=color, linestyle=dash, marker=marker, markersize=3,
                        label=curve.tag,
                    )  # fmt: skip
            axes.set_title(run.name, fontsize=10)
            axes.set_xlabel("steps")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", alpha=0.25)
            # Below, where it hides no curve.
            axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=110)
    print(f"{output}: {sum(len(found) for panel in panels for found in panel.values())} curves")


def read_curves(run: Path, tags: Sequence[str]) -> dict[str, list[Curve]]:
    """Read what a run logged, by the pattern that it matches first.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: Nothing matches.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is no folder with event files of TensorBoard")
    # 0 keeps every point; by default it would draw lots among them.
    events = EventAccumulator(str(run), size_guidance={SCALARS: 0}).Reload()
    found: dict[str, list[Curve]] = {}
    logged = events.Tags()["scalars"]
    for tag in logged:
        pattern = next((pattern for pattern in tags if fnmatch(tag, pattern)), None)
        if pattern is not None:
            # Where a run was resumed from an earlier step, what it logged last counts; but `validate` logs as step 0.
            points: dict[int, float] = {}
            for event in events.Scalars(tag):
                if event.step or not points:
                    points[event.step] = event.value
            steps = sorted(points)
            found.setdefault(pattern, []).append(Curve(tag, steps, [points[step] for step in steps]))
    if not found:
        listed = ", ".join(logged[:20]) or "nothing"
        raise ValueError(f"{run} has logged nothing like {', '.join(tags)}, but {listed}: name others with --tags")
    return found
