"""Utterances longer than a network was trained on, in chunks: the end of each prompts the next (slide-and-prompt)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from modules.soundstorm.decoding import PassTrace
from modules.soundstorm.network import SoundStormNetwork
from modules.soundstorm.readings import ReadingChoice, decode_best
from modules.soundstorm.schedule import DecodingSchedule


@dataclass(frozen=True)
class Chunking:
    """How long utterances are divided. SoundStorm's paper does not: it decodes up to 30 s at once.

    Attributes:
        chunk_frames: Longest stretch decoded at once, what prompts it included.
        overlap_frames: Most frames that prompt a chunk: those before it, given or decoded.

    Raises:
        ValueError: An overlap that leaves a chunk no room.
    """

    chunk_frames: int
    overlap_frames: int = 150

    def __post_init__(self) -> None:
        if not 0 < self.overlap_frames < self.chunk_frames / 2:
            raise ValueError(
                f"overlap_frames={self.overlap_frames} must be positive and less than half of "
                f"chunk_frames={self.chunk_frames}"
            )


class Chunk(NamedTuple):
    """Stretches of codes that were decoded at once, one of each row that is not done yet."""

    number: int  # from 1
    total: int  # of the row that has most
    rows: list[int]
    codes: Tensor  # [R, Q, T'] of the levels decoded, what each was prompted by included, 0 beyond a stretch
    passes: list[PassTrace]  # how it came about


def chunk_sizes(num_frames: int, first: int, later: int) -> list[int]:
    """Divide frames into a chunk of at most ``first`` and others of at most ``later <= first``, about as long."""
    count = ceil(max(0, num_frames - first) / later)
    lead = max(ceil(num_frames / (count + 1)), num_frames - count * later)
    rest = num_frames - lead
    return [lead, *(rest * (i + 1) // count - rest * i // count for i in range(count))]


def decode_in_chunks(
    network: SoundStormNetwork,
    semantic: Tensor,
    prompt: Tensor,
    lengths: Tensor,
    schedule: DecodingSchedule,
    seeds: Tensor,
    prompt_lengths: Tensor,
    chunking: Chunking,
    choice: ReadingChoice | None = None,
    on_chunk: Callable[[Chunk], None] | None = None,
    on_pass: Callable[[int], None] | None = None,
) -> Tensor:
    """Generate acoustic tokens chunk after chunk; the rows that have a chunk of a number are decoded side by side.

    Args:
        network: The network.
        semantic: Semantic tokens of prompt and target on one time axis, int64 ``[B, T]``, or probabilities, as in
            :func:`decode`.
        prompt: Acoustic tokens of the leading frames at every level, int64 ``[B, Q, P]``.
        lengths: Real frames per row, prompt included, ``[B]``.
        schedule: Passes and choices, the same for each chunk.
        seeds: Seed per row, ``[B]``; the following integers are those of the following chunks.
        prompt_lengths: Prompt frames per row, ``[B]``.
        chunking: How rows are divided.
        choice: Among how many readings of each chunk, and by whose ear; one reading if None.
        on_chunk: Called after each chunk, to show how the tokens came about.
        on_pass: Called after each pass with the number of all, to show progress.

    Returns:
        Codes, int64 ``[B, Q, T]``, 0 beyond a row's length; fewer levels where the schedule leaves out the finest.
    """
    levels = schedule.num_levels
    given = torch.arange(prompt.shape[2], device=prompt.device) < prompt_lengths.to(prompt.device)[:, None, None]
    codes = torch.zeros(
        len(semantic), network.num_quantizers, semantic.shape[1], dtype=torch.int64, device=prompt.device
    )
    codes[:, levels:] = network.mask_id  # what is left out stays unknown to the chunks that follow
    codes[:, :, : prompt.shape[2]] = torch.where(given, prompt, codes[:, :, : prompt.shape[2]])
    width, overlap = chunking.chunk_frames, chunking.overlap_frames
    sizes, done = {}, prompt_lengths.cpu().clone()
    for b, (length, prompted) in enumerate(zip(lengths.tolist(), prompt_lengths.tolist(), strict=True)):
        if length > prompted:
            sizes[b] = chunk_sizes(length - prompted, width - min(prompted, overlap), width - overlap)
    total = max(map(len, sizes.values()), default=0)
    num_passes = sum(
        max(schedule.count_passes(size[number]) for size in sizes.values() if len(size) > number)
        for number in range(total)
    )
    for number in range(total):
        rows = [b for b in sizes if len(sizes[b]) > number]
        size = torch.tensor([sizes[b][number] for b in rows])
        start = (done[rows] - overlap).clamp(min=0)
        known, length = done[rows] - start, done[rows] - start + size
        frame = (start[:, None] + torch.arange(int(length.max()))).clamp(max=semantic.shape[1] - 1).to(codes.device)
        before = frame[:, None, : int(known.max())].expand(-1, network.num_quantizers, -1)
        new, passes = decode_best(
            network, semantic[torch.tensor(rows)[:, None], frame], codes[rows].gather(2, before), length, schedule,
            seeds[rows] + number, known, choice, keep_trace=on_chunk is not None,
            on_pass=partial(on_pass, num_passes) if on_pass else None,
        )  # fmt: skip
        for piece, b, first, frames in zip(new, rows, start.tolist(), length.tolist(), strict=True):
            codes[b, :levels, first : first + frames] = piece[:, :frames]
        done[rows] += size
        if on_chunk:
            on_chunk(Chunk(number + 1, total, rows, new, passes))
    return codes[:, :levels]
