"""Batches of about the same number of frames, from utterances of about the same length.

Notable decisions:

* The plan of an epoch is a pure function of (seed, epoch), made once for all ranks; a rank takes every
  ``world_size``-th batch of it. Where a run stands is therefore one number, the batches the ranks have had together.
* Lengths fall into buckets and a batch is padded to its bucket's edge: few distinct shapes, little padding.
* Every epoch has exactly as many batches as the next, although windows are drawn anew: Lightning reads ``len`` once,
  and its counters (validation interval, end of epoch, resume) are exact only if it stays true.
* Batches are handed out as :class:`BatchRequest`, which carries the epoch: worker processes need no state of their own.
"""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple, Protocol, Self

import numpy as np
from torch.utils.data import Sampler

from datamodules.seeding import mix
from modules.batches import TokenBatch

_ORDER_STREAM, _BATCH_STREAM = 0x0DE7, 0xBA7C
_CHUNK = 1 << 16  # rows hashed at a time: the arrays in between stay in the processor's cache
_CARRY_SHARE = 0.002  # of all frames: more padding than this is not worth saving one small batch


class BatchRequest(NamedTuple):
    """What a dataset needs to make one batch."""

    epoch: int
    rows: np.ndarray  # [B] integers, positions in the dataset
    width: int  # frames to pad to, at least the longest row's


class BucketDataset(Protocol):
    """A map-style dataset that knows how long its rows are in an epoch, and makes a whole batch at once."""

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def frames(self, epoch: int) -> np.ndarray:
        """Give the frames of every row, ``[N]`` positive integers, in that epoch."""
        ...

    def __getitems__(self, request: BatchRequest) -> TokenBatch:
        """Read and collate the rows asked for."""
        ...


class Packing(NamedTuple):
    """How rows, sorted by bucket, are cut into batches."""

    sizes: np.ndarray  # [K] int64, rows per batch; their sum is the number of rows
    widths: np.ndarray  # [K] int64, frames each row is padded to


def pack(counts: np.ndarray, batch_frames: int, bucket_frames: int) -> Packing:
    """Cut rows sorted by bucket into batches of at most ``batch_frames`` frames, padding included.

    What is left of a bucket joins the next, wider one, so that an epoch has one odd-sized batch instead of one per
    bucket; it becomes a small batch of its own where the padding would exceed both an eighth of a batch and 0.2 % of
    all frames (small sets). A row wider than ``batch_frames`` is a batch by itself.

    Args:
        counts: Rows per bucket, ``[buckets + 1]``; bucket b holds lengths in ``((b - 1), b] * bucket_frames``.
        batch_frames: Frames per batch.
        bucket_frames: Width of a bucket in frames.

    Returns:
        The batches, narrow to wide.
    """
    filled = np.flatnonzero(counts)
    most = max(batch_frames / 8, _CARRY_SHARE * bucket_frames * float((filled * counts[filled]).sum()))
    sizes: list[np.ndarray] = []
    widths: list[np.ndarray] = []
    carried, padding = 0, 0
    for position, bucket in enumerate(filled):
        width = int(bucket) * bucket_frames
        capacity = max(1, batch_frames // width)
        full, carried = divmod(int(counts[bucket]) + carried, capacity)
        batches = np.full(full, capacity, dtype=np.int64)
        last = position + 1 == len(filled)
        if full:
            padding = 0  # rows carried here are the first to go into its batches
        if not last:
            padding += carried * (int(filled[position + 1]) * bucket_frames - width)
        if carried and (last or padding > most):
            batches, carried, padding = np.append(batches, carried), 0, 0
        sizes.append(batches)
        widths.append(np.full(len(batches), width, dtype=np.int64))
    return Packing(np.concatenate(sizes), np.concatenate(widths))


def split_batches(packing: Packing, num_batches: int) -> Packing:
    """Halve the batches with the most rows until there are ``num_batches``; no row is added, dropped or moved.

    Raises:
        ValueError: If there are fewer rows than ``num_batches``.
    """
    sizes, widths = packing
    if sizes.sum() < num_batches:
        raise ValueError(f"{sizes.sum()} rows do not make {num_batches} batches")
    while (missing := num_batches - len(sizes)) > 0:
        largest = np.argsort(-sizes, kind="stable")[:missing]
        largest = largest[sizes[largest] > 1]
        repeats = np.ones(len(sizes), dtype=np.int64)
        repeats[largest] = 2
        firsts = np.cumsum(repeats) - repeats
        halves = np.repeat(sizes, repeats)
        halves[firsts[largest]] = sizes[largest] // 2
        halves[firsts[largest] + 1] = sizes[largest] - sizes[largest] // 2
        sizes, widths = halves, np.repeat(widths, repeats)
    return Packing(sizes, widths)


def merge_batches(packing: Packing, num_batches: int) -> Packing:
    """Join neighbouring pairs, the narrowest first, until there are ``num_batches``, at least half of what there were.

    A pair may exceed the frame budget; no row is added, dropped or moved.
    """
    sizes, widths = packing
    pairs = len(sizes) - num_batches
    joined = sizes[: 2 * pairs].reshape(pairs, 2).sum(1)
    return Packing(
        np.concatenate([joined, sizes[2 * pairs :]]), np.concatenate([widths[1 : 2 * pairs : 2], widths[2 * pairs :]])
    )


class TokenBucketBatchSampler(Sampler[BatchRequest]):
    """Deterministic, sharded batches under a frame budget.

    Shuffled (training), an epoch draws new windows, a new order and new batches; each row comes once, but for what is
    cut to make a multiple of ``world_size`` (less than a round, different batches each time). Not shuffled (validation,
    prediction), every epoch is the same, longest first, and batches are split (or, where every row is a batch of its
    own, joined) rather than dropped or repeated: every row comes exactly once over all ranks, and all ranks have
    equally many batches.

    Args:
        dataset: Knows the number of rows and their lengths per epoch.
        batch_frames: Frames per batch and rank, padding included.
        bucket_frames: Width of a length bucket in frames; batches are padded to a multiple of it.
        shuffle: Whether epochs differ.
        seed: Of the order.
        rank: Of this process.
        world_size: Number of processes.
        idle_ranks: Whether ranks may have nothing to do where there are fewer rows than ranks (not shuffled only; not
            where ranks wait for one another, as in validation during training).

    Raises:
        ValueError: If there are fewer rows than processes, or an argument is out of range.
    """

    def __init__(
        self,
        dataset: BucketDataset,
        batch_frames: int,
        *,
        bucket_frames: int = 48,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        idle_ranks: bool = False,
    ) -> None:
        if batch_frames < 1 or bucket_frames < 1:
            raise ValueError(f"batch_frames ({batch_frames}) and bucket_frames ({bucket_frames}) must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} processes")
        if len(dataset) < world_size and (shuffle or not idle_ranks):
            raise ValueError(
                f"{len(dataset)} utterances cannot be spread over {world_size} processes: "
                f"lower trainer.devices to {max(1, len(dataset))} or fewer"
            )
        self.dataset = dataset
        self.batch_frames = batch_frames
        self.bucket_frames = bucket_frames
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    @property
    def sampler(self) -> Self:
        """This sampler: Lightning calls ``set_epoch`` on ``batch_sampler.sampler``, not on ``batch_sampler``."""
        return self

    @property
    def num_batches(self) -> int:
        """Batches per epoch over all ranks: a multiple of ``world_size``, but where ranks are idle."""
        if len(self.dataset) < self.world_size:
            return len(self.dataset)
        planned, ranks = self._planned_batches, self.world_size
        fewer, more = planned - planned % ranks, planned + -planned % ranks
        cut = fewer if self.shuffle else 0
        return cut or (more if more <= len(self.dataset) else fewer)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through; without shuffling all are the same."""
        self.epoch = epoch if self.shuffle else 0

    def __len__(self) -> int:
        """Count the batches of this rank in every epoch."""
        return len(range(self.rank, self.num_batches, self.world_size))

    def __iter__(self) -> Iterator[BatchRequest]:
        """Go through this rank's batches of the epoch chosen."""
        return self.batches(0)

    def batches(self, start: int) -> Iterator[BatchRequest]:
        """Go through this rank's batches of the epoch chosen, leaving out the first ``start`` of all ranks together."""
        epoch = self.epoch
        frames = self.dataset.frames(epoch)
        packing = pack(self._histogram(frames), self.batch_frames, self.bucket_frames)
        planned = max(self._planned_batches, self.num_batches) if self.shuffle else self.num_batches
        if len(packing.sizes) < planned:
            packing = split_batches(packing, planned)
        elif not self.shuffle:
            packing = merge_batches(packing, planned)
        rows = self._order(frames, epoch)
        del frames
        firsts = np.cumsum(packing.sizes) - packing.sizes
        turn = np.arange(len(packing.sizes))
        if self.shuffle:
            turn = np.argsort(mix(self.seed, _BATCH_STREAM, epoch, turn), kind="stable")[: self.num_batches]
        else:
            turn = turn[::-1]
        # Where a run goes on with another number of ranks, what is left may not be a multiple of it.
        stop = self.num_batches - (self.num_batches - start) % self.world_size if self.shuffle else self.num_batches
        for batch in turn[start + self.rank : stop : self.world_size]:
            first = firsts[batch]
            yield BatchRequest(epoch, rows[first : first + packing.sizes[batch]], int(packing.widths[batch]))

    @cached_property
    def _planned_batches(self) -> int:
        """Batches per epoch before sharding, the same for any number of ranks.

        Shuffled, a few more than epoch 0 has, as later windows may need more: what an epoch lacks it gets by splitting,
        and what it has too many is cut. The margin is three standard deviations of what N rows of random windows need.
        """
        counts = self._histogram(self.dataset.frames(0))
        planned = len(pack(counts, self.batch_frames, self.bucket_frames).sizes)
        if not self.shuffle:
            return planned
        widths = np.arange(1, len(counts)) * self.bucket_frames
        needs = 1 / np.maximum(1, self.batch_frames // widths)  # batches per row
        mean, square = (np.average(needs**power, weights=counts[1:]) for power in (1, 2))
        margin = 3 * math.sqrt(counts.sum() * max(0.0, square - mean**2))
        return min(planned + math.ceil(margin), int(counts.sum()))

    def _histogram(self, frames: np.ndarray) -> np.ndarray:
        counts = np.zeros(int(-(-int(frames.max()) // self.bucket_frames)) + 1, dtype=np.int64)
        for first in range(0, len(frames), _CHUNK):
            counts += np.bincount(self._buckets(frames[first : first + _CHUNK]), minlength=len(counts))
        return counts

    def _buckets(self, frames: np.ndarray) -> np.ndarray:
        return -(-frames // self.bucket_frames)

    def _order(self, frames: np.ndarray, epoch: int) -> np.ndarray:
        """Sort rows by bucket, and inside a bucket at random (shuffled) or by position.

        One word per row, ``bucket | random | row``, and one plain sort: several times faster than an argsort.
        """
        row_bits = len(frames).bit_length()
        bucket_bits = int(-(-int(frames.max()) // self.bucket_frames)).bit_length()
        random_bits = 64 - row_bits - bucket_bits
        keys = np.empty(len(frames), dtype=np.uint64)
        for first in range(0, len(frames), _CHUNK):
            chunk = frames[first : first + _CHUNK]
            rows = np.arange(first, first + len(chunk), dtype=np.uint64)
            key = self._buckets(chunk).astype(np.uint64) << np.uint64(64 - bucket_bits)
            if self.shuffle:
                random = mix(self.seed, _ORDER_STREAM, epoch, rows) >> np.uint64(64 - random_bits)
                key |= random << np.uint64(row_bits)
            keys[first : first + _CHUNK] = key | rows
        keys.sort()
        keys &= np.uint64((1 << row_bits) - 1)
        return keys.astype(np.uint32 if row_bits <= 32 else np.int64)
