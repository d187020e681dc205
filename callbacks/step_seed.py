"""Makes what is random inside a training step, such as dropout, the same after a resume."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.seeding import as_seeds, mix


class StepSeed(Callback):
    """Seeds torch's global generators (CPU and GPU) before every training batch, from (seed, epoch, batch, rank).

    A checkpoint holds no random state, and could hold that of one rank only. With this callback there is none to hold:
    a run that was stopped and resumed draws the dropout masks that the uninterrupted run draws.

    Args:
        seed: Changes all draws.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the generators."""
        torch.manual_seed(int(as_seeds(mix(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank))[0]))
