"""What training and evaluation see of an utterance: random windows, or the whole of it with a prompt."""

from typing import NamedTuple, Self

import numpy as np

from datamodules.collate import Utterance, collate, join
from datamodules.samplers import BatchRequest
from datamodules.seeding import as_seeds, hash_texts, mix, uniform
from datamodules.token_store import TokenSource
from modules.batches import TokenBatch

_LENGTH_STREAM, _START_STREAM, _TRAINING_STREAM, _EVALUATION_STREAM = 0x1E46, 0x57A7, 0x7A11, 0xE7A1
_CHUNK = 1 << 16  # rows drawn at a time: the arrays in between stay in the processor's cache


class TrainingWindows:
    """One random window of every utterance per epoch, section 3 of the paper: of a random length up to 30 s.

    A window's length is drawn from U(0, ``max_frames``), raised to ``min_frames`` and cut to the utterance; its start
    is uniform. Everything follows from (seed, epoch, row), never from what was drawn before.

    Args:
        source: The utterances.
        rows: Which of them, int64 ``[N]``; all of at least ``min_frames``.
        min_frames: Shortest window.
        max_frames: Longest window.
        seed: Of all draws.
    """

    def __init__(self, source: TokenSource, rows: np.ndarray, *, min_frames: int, max_frames: int, seed: int) -> None:
        self.source = source
        self.rows = rows
        self.min_frames = min_frames
        self.max_frames = max_frames
        self.seed = seed

    def __len__(self) -> int:
        """Count the windows of an epoch."""
        return len(self.rows)

    def frames(self, epoch: int) -> np.ndarray:
        """Draw the lengths of all windows of an epoch, int32 ``[N]``."""
        drawn = np.empty(len(self), dtype=np.int32)
        for first in range(0, len(self), _CHUNK):
            drawn[first : first + _CHUNK] = self._lengths(epoch, self.rows[first : first + _CHUNK])
        return drawn

    def windows(self, epoch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw windows of utterances.

        Args:
            epoch: The epoch.
            rows: Numbers of utterances in the source, ``[B]``.

        Returns:
            Start, length (frames) and seed per window, ``[B]`` each.
        """
        lengths = self._lengths(epoch, rows).astype(np.int64)
        room = self.source.frames[rows] - lengths + 1
        starts = (uniform(mix(self.seed, _START_STREAM, epoch, rows)) * room).astype(np.int64)
        return starts, lengths, as_seeds(mix(self.seed, _TRAINING_STREAM, epoch, rows))

    def __getitems__(self, request: BatchRequest) -> TokenBatch:
        """Read a batch; no window has a prompt of its own, training draws one."""
        rows = self.rows[request.rows]
        batch = [
            Utterance(row.cut(start, start + length), prompt_frames=0, seed=seed)
            for row, start, length, seed in zip(
                self.source.read(rows), *(values.tolist() for values in self.windows(request.epoch, rows)), strict=True
            )
        ]
        return collate(batch, request.width, self.source.card)

    def _lengths(self, epoch: int, rows: np.ndarray) -> np.ndarray:
        fractions = uniform(mix(self.seed, _LENGTH_STREAM, epoch, rows))
        drawn = np.maximum((fractions * (self.max_frames + 1)).astype(np.int32), self.min_frames)
        return np.minimum(drawn, self.source.frames[rows])


class Prompts(NamedTuple):
    """The acoustic prompts of utterances: their own beginning, or that of another utterance put before them."""

    frames: np.ndarray  # [N] int64, frames given; 0 where there is no prompt
    rows: np.ndarray | None = None  # [N] int64, whose beginning; None: the utterance's own


class WholeUtterances:
    """Utterances from their beginning, with fixed seeds: the same in every epoch.

    A row's seed follows from (seed, id) alone, so that what is generated for it does not depend on what else is.

    Args:
        source: The utterances.
        rows: Which of them, int64 ``[N]``.
        prompts: Their prompts.
        max_frames: Leave out what comes after; ``None``: nothing.
        seed: Of the row seeds.
    """

    def __init__(
        self, source: TokenSource, rows: np.ndarray, prompts: Prompts, *, max_frames: int | None = None, seed: int = 0
    ) -> None:
        self.source = source
        self.rows = rows
        self.prompts = prompts
        self.max_frames = max_frames
        self.seed = seed
        own = source.frames[rows]
        self._lengths = own if max_frames is None else np.minimum(own, max_frames)
        self._added = prompts.frames if prompts.rows is not None else np.zeros(len(rows), dtype=np.int64)

    def __len__(self) -> int:
        """Count the utterances."""
        return len(self.rows)

    def select(self, kept: np.ndarray) -> Self:
        """Keep some of the utterances, bool ``[N]``; what is made of them stays the same."""
        rows = self.prompts.rows
        prompts = Prompts(self.prompts.frames[kept], None if rows is None else rows[kept])
        return type(self)(self.source, self.rows[kept], prompts, max_frames=self.max_frames, seed=self.seed)

    def frames(self, epoch: int) -> np.ndarray:
        """Give the lengths of all utterances, prompts of others included, ``[N]``; every epoch is the same."""
        return self._lengths + self._added

    def __getitems__(self, request: BatchRequest) -> TokenBatch:
        """Read a batch. Semantic tokens of prompt and utterance lie on one time axis."""
        chosen = request.rows
        own = self.source.read(self.rows[chosen])
        utterances = [row.cut(0, length) for row, length in zip(own, self._lengths[chosen], strict=True)]
        given = self.prompts.frames[chosen]
        givers = [""] * len(utterances)
        if self.prompts.rows is not None:
            for place, (prompt, length) in enumerate(
                zip(self.source.read(self.prompts.rows[chosen]), given, strict=True)
            ):
                givers[place] = prompt.id
                utterances[place] = join(prompt.cut(0, length), utterances[place])
        seeds = as_seeds(mix(self.seed, _EVALUATION_STREAM, hash_texts([row.id for row in utterances])))
        batch = [
            Utterance(row, prompt_frames=int(frames), seed=int(seed), prompt_id=giver)
            for row, frames, seed, giver in zip(utterances, given, seeds, givers, strict=True)
        ]
        return collate(batch, request.width, self.source.card)
