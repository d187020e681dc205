"""A picture of parallel decoding: the tokens of all levels over time, filling up pass by pass."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from modules.soundstorm.decoding import PassTrace

MASKED, PROMPT = "#f1f1f1", "#9a9a9a"
PASS_MS, END_MS = 250, 2000  # how long a picture stays


def filling(num_levels: int, passes: Sequence[PassTrace]) -> np.ndarray:
    """Say which pass fixed each token.

    Args:
        num_levels: RVQ levels Q.
        passes: The passes over one row, in order.

    Returns:
        Number of the pass, from 1, int ``[Q, T]``; 0 where none did (the prompt). Of several, the last.
    """
    fixed_by = np.zeros((num_levels, passes[0].fixed.shape[1]), dtype=np.int64)
    for number, taken in enumerate(passes, start=1):
        fixed_by[taken.level, taken.fixed[0].cpu().numpy()] = number
    return fixed_by


def draw_raster(codes: Tensor, passes: Sequence[PassTrace], frame_rate: float, file: Path) -> None:
    """Draw one decoded row: an animation, a frame per pass, where the file is a .gif; its end otherwise.

    Colours are token ids, light cells are masked, and grey ones the prompt.

    Args:
        codes: The result, int64 ``[Q, T]``, prompt included.
        passes: What each pass did (``decode(..., return_trace=True)``); without re-masking.
        frame_rate: Codec frames per second.
        file: ``.gif``, or another format of Pillow.
    """
    fixed_by, ids = filling(len(codes), passes), codes.cpu().numpy().astype(float)
    figure = Figure(figsize=(9, 2.6), layout="constrained", dpi=110)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = mpl.colormaps["turbo"].with_extremes(bad=MASKED, under=PROMPT)
    image = axes.imshow(
        ids,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=colors,
        vmin=0,
        vmax=max(1.0, ids.max()),
        extent=(0, ids.shape[1] / frame_rate, 0.5, len(ids) + 0.5),
    )
    axes.set_xlabel("seconds (grey: the voice that was given)" if (fixed_by == 0).any() else "seconds")
    axes.set_ylabel("RVQ level")
    axes.set_yticks(range(1, len(ids) + 1) if len(ids) <= 6 else [1, *range(4, len(ids) + 1, 4)])

    def show(number: int) -> Image.Image:
        shown = np.where(fixed_by == 0, -1.0, ids)
        shown[fixed_by > number] = np.nan
        image.set_data(np.ma.masked_invalid(shown))
        share = (fixed_by <= number)[fixed_by > 0].mean()
        level = passes[max(number, 1) - 1].level + 1
        axes.set_title(f"pass {number} of {len(passes)}, level {level}: {share:.0%} of the tokens", fontsize=10)
        canvas.draw()
        figure.set_layout_engine("none")  # once is enough
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")

    if file.suffix.lower() == ".gif":
        first, *others = [show(number).quantize(128) for number in range(len(passes) + 1)]
        durations = [PASS_MS] * len(passes) + [END_MS]
        first.save(file, save_all=True, append_images=others, duration=durations, loop=0)
    else:
        show(len(passes)).save(file)
