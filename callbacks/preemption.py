"""Stops training on a signal, after saving where it stands."""

import os
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException


class Preemption(Checkpoint):
    """Saves ``last-preempted.ckpt`` and ends the run when a signal such as SIGTERM arrives.

    The checkpoint is written between two optimizer steps, when all ranks have agreed to stop, so that a resumed run
    (``--ckpt_path last`` takes the newest) goes on exactly. The process ends with status 143, like any that SIGTERM
    ended, so that what was to come after the run does not.

    Lightning alone ends a run on SIGTERM without saving; under SLURM it saves inside the signal handler, wherever in a
    step that falls, and under DDP its handler starts a collective operation in the middle of others.

    To Lightning this is a checkpoint callback, so that it comes after those that average weights; Lightning adds no
    ``ModelCheckpoint`` of its own beside it: name one.

    Args:
        signals: Names of the signals; SLURM sends what ``--signal`` says, such as ``SIGUSR1``, before time is up.
        requeue: Put a SLURM job (not an array of jobs in steps) back in the queue after saving.
        every_n_batches: How often several ranks agree; each time waits for the device. One rank looks every time.
    """

    def __init__(
        self, signals: tuple[str, ...] = ("SIGTERM",), requeue: bool = False, every_n_batches: int = 10
    ) -> None:
        if unknown := [name for name in signals if name not in signal.Signals.__members__]:
            raise ValueError(f"signals names {', '.join(unknown)}; known are SIGTERM, SIGUSR1, SIGUSR2, SIGINT, ...")
        if every_n_batches < 1:
            raise ValueError(f"every_n_batches is {every_n_batches}; it must be at least 1")
        self.signals = [signal.Signals[name] for name in signals]
        self.requeue = requeue
        self.every_n_batches = every_n_batches
        self._received: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over from Lightning."""
        self._received = None
        self._handlers = {number: signal.signal(number, self._note) for number in self.signals}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop, if a signal came and the gradients of this batch have been used.

        Raises:
            SIGTERMException: A signal came.
        """
        loop = trainer.fit_loop.epoch_loop
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not loop.batch_progress.is_last_batch:
            return
        steps = (batch_idx + 1) // trainer.accumulate_grad_batches
        if not self._agreed(trainer, look=steps % self.every_n_batches == 0):
            return
        path = self._path(trainer)
        trainer.save_checkpoint(path)
        rank_zero_info(f"Stopped by a signal after step {trainer.global_step}; continue with --ckpt_path {path}")
        if self.requeue and trainer.is_global_zero:
            _requeue()
        raise SIGTERMException(128 + signal.SIGTERM)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number

    def _agreed(self, trainer: Trainer, look: bool) -> bool:
        if trainer.world_size == 1:
            return self._received is not None
        if not look:
            return False
        received = torch.tensor(float(self._received is not None), device=trainer.strategy.root_device)
        return bool(trainer.strategy.reduce(received, reduce_op="sum") > 0)

    @staticmethod
    def _path(trainer: Trainer) -> Path:
        folders = (getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks)
        return Path(next(filter(None, folders), trainer.default_root_dir)) / "last-preempted.ckpt"


def _requeue() -> None:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        rank_zero_warn("requeue is set, but this is no SLURM job: start the command again")
        return
    if os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        rank_zero_warn(f"the job could not be put back in the queue ({error}): submit it again")
