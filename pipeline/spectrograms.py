"""Pictures of sound: mel spectrograms, and consistency over time."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from modules.evaluation.mel_distance import MelDistance
from pipeline.results import Results, Row

COLORS = ("#4d4d4d", "#e08e0b", "#1f6fb4", "#c2334d", "#3a8f5c", "#7a4fa3")
DYNAMIC_RANGE = 80.0  # dB shown


def draw_spectrogram(
    audio: np.ndarray, sample_rate: int, file: Path, seconds: float, prompt_seconds: float = 0.0
) -> None:
    """Draw a log-mel spectrogram.

    Args:
        audio: Mono audio, ``[N]``.
        sample_rate: Hz.
        file: PNG to write.
        seconds: Length of the time axis, so that pictures of the same utterance line up.
        prompt_seconds: Where the prompt ends; a dashed line marks it.
    """
    mel = MelDistance(sample_rate).spectrogram(torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))).numpy()
    figure, axes = _figure(3.3, 1.7)
    top = mel.max()
    axes.imshow(
        mel,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=top - DYNAMIC_RANGE,
        vmax=top,
        extent=(0, len(audio) / sample_rate, 0, mel.shape[0]),
        interpolation="nearest",
    )
    if prompt_seconds:
        axes.axvline(prompt_seconds, color="white", linestyle="--", linewidth=1.2)
    axes.set_xlim(0, seconds)
    axes.set_yticks(*_kilohertz_ticks(mel.shape[0], sample_rate))
    axes.set_ylabel("kHz")
    axes.set_xlabel("seconds")
    figure.savefig(file, dpi=190)


def _kilohertz_ticks(num_mels: int, sample_rate: int) -> tuple[list[float], list[str]]:
    # Slaney's mel scale, that of the filters: linear to 1 kHz, logarithmic above.
    def mel(hertz: float) -> float:
        return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)

    shown = [khz for khz in (0.5, 1, 2, 4, 8) if khz * 1000 < sample_rate / 2]
    return [num_mels * mel(khz * 1000) / mel(sample_rate / 2) for khz in shown], [f"{khz:g}" for khz in shown]


def draw_consistency(results: Results, file: Path) -> str | None:
    """Draw how the voice holds over time: median and inter-quartile range of the cosine with the first crop.

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
    curves: dict[Row, list[Sequence[float]]] = {}
    # The paper's Figure 2 shows the long split; what has no such clips shows all of its clips.
    split = "long" if any(u["split"] == "long" and _curve(u, scorer.scorer) for u in results.utterances) else None
    for row in results.rows:
        found = [curve for utterance in results.of(row, split) if (curve := _curve(utterance, scorer.scorer))]
        if found:
            curves[row] = found
    if not curves:
        return None
    figure, axes = _figure(7.2, 3.6)
    for number, (row, found) in enumerate(curves.items()):
        at_time = defaultdict(list)
        for curve in found:
            for crop, cosine in enumerate(curve, start=1):
                at_time[(crop + 0.5) * seconds].append(cosine)
        times = sorted(at_time)
        low, median, high = (np.array([np.percentile(at_time[time], q) for time in times]) for q in (25, 50, 75))
        color = COLORS[number % len(COLORS)]
        axes.plot(times, median, color=color, marker="o", markersize=4, label=row.label)
        axes.fill_between(times, low, high, color=color, alpha=0.13, linewidth=0)
    axes.set_xlabel("seconds into the clip (middle of the crop)")
    axes.set_ylabel("cosine with the first crop")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=130)
    clips = max(len(found) for found in curves.values())
    which = "clips of 20 to 30 s" if split else "clips of all lengths"
    return (
        f"Cosine of the first {seconds:g} s with every later crop of {seconds:g} s; median and inter-quartile range "
        f"over {clips} {which}. Embedding: {scorer.identity['name']}."
    )


def _curve(utterance: dict[str, Any], scorer: str) -> Sequence[float]:
    return utterance["scores"].get(scorer, {}).get("curve") or []


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    # Figures of one's own, not pyplot's: nothing global is changed and no display is looked for.
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots()
