"""Pictures of sound: mel spectrograms."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from modules.evaluation.mel_distance import MelDistance

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


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    # Figures of one's own, not pyplot's: nothing global is changed and no display is looked for.
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots()
