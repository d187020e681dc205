"""How fast training goes through speech."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from modules.batches import TokenBatch


def num_utterances(batch: TokenBatch) -> int:
    """Count the rows of a batch, for the ``batch_size_fn`` of Lightning's ``ThroughputMonitor``."""
    return batch.semantic.shape[0]


def num_frames(batch: TokenBatch) -> int:
    """Count the frames of a batch, padding included, for the ``length_fn`` of Lightning's ``ThroughputMonitor``.

    That monitor divides by it as the total of the batch, and reads it every step: it must not wait for the device.
    """
    return batch.semantic.numel()


class FrameThroughput(Callback):
    """Logs the real frames and utterances per second that training goes through, over all ranks, and the padding.

    ``throughput/frames_per_second`` (also in the progress bar), ``throughput/utterances_per_second`` and
    ``throughput/padding``, the share of frames that is padding, are means since they were last logged, data loading
    included, validation not. Ranks other than the first are taken to be as fast as it, as they have batches of the same
    budget. Nothing waits for the device but when it is logged. For the share of the device's arithmetic that is used,
    see Lightning's ``ThroughputMonitor`` with the functions of this module.

    Args:
        every_n_batches: How often to log; the trainer's ``log_every_n_steps`` if None.
    """

    def __init__(self, every_n_batches: int | None = None) -> None:
        if every_n_batches is not None and every_n_batches < 1:
            raise ValueError(f"every_n_batches is {every_n_batches}; it must be at least 1")
        self.every_n_batches = every_n_batches
        self._batches = 0
        self._start(0.0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to measure."""
        self._start(time.perf_counter())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        """Count the batch, and log when it is time."""
        self._batches += 1
        self._utterances += num_utterances(batch)
        self._padded_frames += num_frames(batch)
        self._frames = self._frames + batch.lengths.sum()
        interval = self.every_n_batches or trainer.log_every_n_steps  # ty: ignore[missing-attribute]
        if not interval or self._batches % interval:
            return
        frames = int(self._frames)  # waits for the device, so that the time is that of the work
        seconds = time.perf_counter() - self._since - self._paused
        values = {
            "throughput/utterances_per_second": self._utterances * trainer.world_size / seconds,
            "throughput/padding": 1 - frames / self._padded_frames,
        }
        rate = frames * trainer.world_size / seconds
        pl_module.log("throughput/frames_per_second", rate, prog_bar=True, rank_zero_only=True, batch_size=1)
        pl_module.log_dict(values, rank_zero_only=True, batch_size=1)
        self._start(time.perf_counter())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._pause_began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock go on."""
        self._paused += time.perf_counter() - self._pause_began

    def _start(self, now: float) -> None:
        self._since = now
        self._paused = 0.0
        self._pause_began = now
        self._utterances = 0
        self._padded_frames = 0
        self._frames: Tensor = torch.zeros((), dtype=torch.int64)
