"""A data loader that continues exactly where a run stopped, in the middle of an epoch.

Notable decisions, each against a way to lose or repeat data:

* Delivered batches are counted here, in the training process: workers fetch ahead, and what they fetched is not done.
* The position is reset when an epoch is entered, not when it is exhausted: Lightning stops asking once it has ``len``
  batches and never exhausts the iterator.
* Nothing happens before the first batch is asked for: Lightning calls ``iter`` before it has set the epoch.
* It holds a ``DataLoader`` rather than being one: Lightning would put its own sampler into a ``DataLoader`` under DDP
  and in ``predict``; sharding is the batch sampler's here, with any ``use_distributed_sampler``.
* The state speaks of all ranks together, because Lightning stores that of rank 0 only.
"""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from datamodules.samplers import BatchRequest, TokenBucketBatchSampler
from modules.batches import TokenBatch


def _as_is(batch: Any) -> Any:
    return batch


class ResumableDataLoader:
    """Batches of a :class:`~datamodules.samplers.TokenBucketBatchSampler`, with a position that can be saved.

    Args:
        batch_sampler: The plan, and the dataset it plans for.
        num_workers: Processes that read ahead; 0 reads in this one. The batches are the same.
        pin_memory: Whether to copy batches to page-locked memory, for a faster transfer to a GPU.
    """

    def __init__(
        self, batch_sampler: TokenBucketBatchSampler, *, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self._epoch = 0
        self._delivered = 0  # batches of this epoch, all ranks together
        self._loaded: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Count this rank's batches in an epoch."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[TokenBatch]:
        """Go through the epoch chosen; after :meth:`load_state_dict`, once, through what was left of it."""
        sampler = self.batch_sampler
        resuming = self._loaded is not None and self._loaded[0] == sampler.epoch
        start = self._loaded[1] if self._loaded is not None and resuming else 0
        self._loaded = None
        self._epoch, self._delivered = sampler.epoch, start
        for batch in self._remaining(start):
            self._delivered += sampler.world_size
            yield batch

    def _remaining(self, start: int) -> Iterable[TokenBatch]:
        dataset: Any = self.batch_sampler.dataset
        requests: Any = _Remaining(self.batch_sampler, start)
        # The dataset makes whole batches, in the worker, which leaves nothing to collate.
        return DataLoader(
            dataset,
            batch_sampler=requests,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            collate_fn=_as_is,
        )

    def state_dict(self) -> dict[str, int]:
        """Say where training stands: ``epoch``, and ``batches`` delivered of ``num_batches`` over all ranks."""
        if self._loaded is not None:
            epoch, delivered = self._loaded
        else:
            epoch, delivered = self._epoch, self._delivered
        return {"epoch": epoch, "batches": delivered, "num_batches": self.batch_sampler.num_batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state: the next iteration over that epoch leaves out the batches already delivered."""
        planned = self.batch_sampler.num_batches
        if state["num_batches"] != planned:
            warnings.warn(
                f"the checkpoint was written with {state['num_batches']} batches per epoch, now there are {planned}: "
                "training continues, but not exactly (data, batch_frames or the number of devices changed)",
                stacklevel=2,
            )
        self.batch_sampler.set_epoch(state["epoch"])
        self._loaded = (state["epoch"], min(state["batches"], planned))


class _Remaining:
    """The batches of the sampler's epoch from a position on, as a batch sampler for one ``DataLoader``."""

    def __init__(self, sampler: TokenBucketBatchSampler, start: int) -> None:
        self.sampler = sampler
        self.start = start

    def __iter__(self) -> Iterator[BatchRequest]:
        return self.sampler.batches(self.start)
