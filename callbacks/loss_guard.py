"""Keeps what is not a number, and what is far too large, out of the weights."""

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

_NAMED = 20  # ids listed in a message


class TrainingDivergedError(ValueError):
    """Too many steps in a row were not fit to be taken."""


class _Seen(NamedTuple):
    """One batch since the last optimizer step."""

    name: str
    ids: list[str]
    losses: list[Tensor]


class LossGuard(Callback):
    """Skips optimizer steps whose loss or gradient is NaN, infinite or far larger than usual, and names the batch.

    A step is skipped by taking the gradients away: the optimizer then changes neither weights nor its own state, with
    accumulated gradients and under DDP too, where all ranks agree. A learning-rate schedule goes on. After ``limit``
    skipped steps in a row the run stops, as it also does before NaN would be written to a checkpoint.

    What is usual is the median of the last ``window`` steps taken; it is kept in the checkpoint. Looking waits for the
    device once per step. Not for 16-bit float (``16-mixed``), whose gradient scaler does this itself.

    Args:
        limit: Skipped steps in a row after which the run stops.
        loss_factor: A loss is too large beyond this multiple of the usual one.
        gradient_factor: A gradient's norm, before clipping, is too large beyond this multiple of the usual one.
        window: Steps that make what is usual.
        warmup_steps: Steps taken before anything but NaN and infinity is judged.
    """

    def __init__(
        self,
        limit: int = 10,
        loss_factor: float = 10.0,
        gradient_factor: float = 100.0,
        window: int = 101,
        warmup_steps: int = 50,
    ) -> None:
        if limit < 1 or window < 1:
            raise ValueError(f"limit ({limit}) and window ({window}) must be at least 1")
        if loss_factor <= 1 or gradient_factor <= 1:
            raise ValueError(f"loss_factor ({loss_factor:g}) and gradient_factor ({gradient_factor:g}) must exceed 1")
        self.limit = limit
        self.loss_factor = loss_factor
        self.gradient_factor = gradient_factor
        self.window = window
        self.warmup_steps = warmup_steps
        self.skipped = 0  # steps, all in all
        self._in_a_row = 0
        # Per optimizer, as a generator and its discriminators have losses of their own.
        self._usual: dict[int, tuple[deque[float], deque[float]]] = {}
        self._seen: list[_Seen] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note which batch comes."""
        name = f"batch {batch_idx} of epoch {trainer.current_epoch}, rank {trainer.global_rank}"
        self._seen.append(_Seen(name, list(getattr(batch, "ids", [])), []))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note its loss."""
        if self._seen:
            self._seen[-1].losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take the gradients away if the step must not be taken.

        Raises:
            TrainingDivergedError: It is the last of ``limit`` steps in a row.
        """
        which = next((i for i, known in enumerate(trainer.optimizers) if known is optimizer), 0)
        loss, gradient = self._measure(trainer, optimizer)
        self._usual.setdefault(which, (deque(maxlen=self.window), deque(maxlen=self.window)))
        reasons = [
            f"the {name} is {value:.4g}" + (f", usually {usual:.4g}" if usual is not None else "")
            for name, value, usual in (
                ("loss", loss, self._exceeded(loss, which, 0)),
                ("norm of the gradient", gradient, self._exceeded(gradient, which, 1)),
            )
            if usual is not None or not _is_finite(value)
        ]
        if not reasons:
            for known, value in zip(self._usual[which], (loss, gradient), strict=True):
                known.append(value)
            self._in_a_row = 0
        else:
            self._skip(trainer, optimizer, " and ".join(reasons))
        self._forget_losses()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Forget the batches whose gradients have been used, and log how many steps were skipped."""
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if not (batch_idx + 1) % trainer.accumulate_grad_batches or last:
            self._seen.clear()
        if self.skipped:
            pl_module.log("train/skipped_steps", float(self.skipped), batch_size=1)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to write weights or optimizer states that are not numbers.

        Raises:
            TrainingDivergedError: Some are; earlier checkpoints are left.
        """
        for part in ("state_dict", "current_model_state", "optimizer_states"):
            if bad := _first_not_finite(checkpoint.get(part)):
                raise TrainingDivergedError(
                    f"{part}{bad} is NaN or infinite after step {trainer.global_step}: no checkpoint is written; "
                    "continue from an earlier one with a lower learning rate"
                )

    def state_dict(self) -> dict[str, Any]:
        """Give what is usual, and what was skipped."""
        usual = {str(which): [list(values) for values in pair] for which, pair in self._usual.items()}
        return {"usual": usual, "skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        for which, (losses, gradients) in state_dict["usual"].items():
            self._usual[int(which)] = (deque(losses, maxlen=self.window), deque(gradients, maxlen=self.window))
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def _measure(self, trainer: Trainer, optimizer: Optimizer) -> tuple[float, float]:
        """Give the largest loss of the step over all ranks, and the norm of its gradient; any NaN stays NaN."""
        device = trainer.strategy.root_device
        losses = [loss.float() for seen in self._seen for loss in seen.losses]
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # With accumulation the parts of the loss come divided already; each stands for its share of the step.
        total = torch.stack(losses).sum().to(device) if losses else torch.zeros((), device=device)
        norm = nn.utils.get_total_norm(gradients).float().to(device) if gradients else torch.zeros((), device=device)
        values = torch.stack((total, norm))
        if trainer.world_size > 1:
            # Every rank sees the values of all, NaN included, which a maximum over ranks might lose.
            gathered: Any = trainer.strategy.all_gather(values)
            finite = gathered.isfinite().all(dim=0)
            values = torch.where(finite, gathered.amax(dim=0), torch.nan)
        loss, gradient = values.tolist()
        return loss, gradient

    def _exceeded(self, value: float, which: int, kind: int) -> float | None:
        """Give what is usual where a value is far beyond it."""
        known = self._usual[which][kind]
        if len(known) < min(self.warmup_steps, self.window) or not _is_finite(value):
            return None
        usual = statistics.median(known)
        factor = (self.loss_factor, self.gradient_factor)[kind]
        return usual if value > factor * usual > 0 else None

    def _skip(self, trainer: Trainer, optimizer: Optimizer, reason: str) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        self.skipped += 1
        self._in_a_row += 1
        where = "; ".join(self._gather(trainer))
        message = f"step {trainer.global_step + 1} is skipped, as {reason}: {where}"
        if self._in_a_row >= self.limit:
            raise TrainingDivergedError(
                f"{message}. That makes {self._in_a_row} in a row, so training stops: look at these utterances, or "
                "continue from an earlier checkpoint with a lower learning rate"
            )
        rank_zero_warn(message)

    def _gather(self, trainer: Trainer) -> list[str]:
        """Name the batches of the step on all ranks; those with a bad loss only, where there are such."""
        blamed = [seen for seen in self._seen if not all(loss.isfinite() for loss in seen.losses)]
        mine = [(bool(blamed), _describe(seen)) for seen in blamed or self._seen]
        everyone = [mine]
        if trainer.world_size > 1:
            everyone = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(everyone, mine)
        found = [entry for entries in everyone for entry in entries]
        certain = [text for sure, text in found if sure]
        return certain or [text for _, text in found]

    def _forget_losses(self) -> None:
        for seen in self._seen:
            seen.losses.clear()


def _describe(seen: _Seen) -> str:
    more = f" and {len(seen.ids) - _NAMED} more" if len(seen.ids) > _NAMED else ""
    return seen.name + (f" ({', '.join(seen.ids[:_NAMED])}{more})" if seen.ids else "")


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")  # false for NaN, too


def _first_not_finite(values: Any, name: str = "") -> str | None:
    """Name the first tensor that holds NaN or infinity."""
    if isinstance(values, Tensor):
        return name if values.is_floating_point() and not bool(values.isfinite().all()) else None
    parts = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    return next((bad for key, part in parts if (bad := _first_not_finite(part, f"{name}[{key!r}]")) is not None), None)
