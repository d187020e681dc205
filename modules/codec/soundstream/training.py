"""Training of the codec: reconstruction losses, then an adversarial game."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from modules.codec.soundstream.codec import SoundStream
from modules.codec.soundstream.discriminators import Discriminator
from modules.codec.soundstream.losses import (
    MultiScaleMelLoss,
    discriminator_hinge_loss,
    feature_matching_loss,
    generator_hinge_loss,
)
from modules.codec.soundstream.metrics import CodebookUsage


class SoundStreamTraining(L.LightningModule):
    """Trains a :class:`SoundStream`.

    Optimisation is manual, as two optimisers take turns. Lightning counts the steps of both: with a discriminator one
    batch is two of its global steps from ``adversarial_start`` on.

    Args:
        codec: The codec.
        losses: Reconstruction losses by name, called with (estimate, target) ``[B, N]``.
        weights: Weight of each loss by name, and of ``commitment``, ``adversarial`` and ``features``.
        optimizer: For the codec.
        scheduler: For the codec, stepped once per batch.
        discriminator: Judges audio; without one there is no adversarial part.
        discriminator_optimizer: For the discriminator.
        discriminator_scheduler: For the discriminator, stepped once per batch of the adversarial part.
        adversarial_start: Batches before the adversarial part begins.
        freeze_codes_after: Batches after which encoder and codebooks stay as they are and only the decoder learns:
            token sets that are made from then on stay valid. Never if None.
        gradient_clip_norm: Largest norm of the gradient, for codec and discriminator each.
        validation_levels: Numbers of leading levels whose reconstructions are measured.

    Raises:
        ValueError: If a loss has no weight, or a discriminator no optimiser.
    """

    batches_seen: Tensor

    def __init__(
        self,
        codec: SoundStream,
        losses: dict[str, nn.Module],
        weights: dict[str, float],
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable,
        discriminator: Discriminator | None = None,
        discriminator_optimizer: OptimizerCallable | None = None,
        discriminator_scheduler: LRSchedulerCallable | None = None,
        adversarial_start: int = 0,
        freeze_codes_after: int | None = None,
        gradient_clip_norm: float = 1.0,
        validation_levels: tuple[int, ...] = (1, 4, 8, 12),
    ) -> None:
        super().__init__()
        adversarial = {"adversarial", "features"} if discriminator else set()
        missing = ({"commitment"} | set(losses) | adversarial) - set(weights)
        if missing:
            raise ValueError(f"weights lacks {', '.join(sorted(missing))}")
        if discriminator and not (discriminator_optimizer and discriminator_scheduler):
            raise ValueError("a discriminator needs discriminator_optimizer and discriminator_scheduler")
        self.automatic_optimization = False
        # A codec that was loaded comes in evaluation mode, which fit would leave it in: no level would ever be dropped.
        self.codec, self.losses, self.weights = codec.train(), nn.ModuleDict(losses), weights
        self.discriminator = discriminator
        self.optimizer, self.scheduler = optimizer, scheduler
        self.discriminator_optimizer, self.discriminator_scheduler = discriminator_optimizer, discriminator_scheduler
        self.freeze_codes_after = freeze_codes_after
        self.adversarial_start, self.gradient_clip_norm = adversarial_start, gradient_clip_norm
        self.validation_levels = tuple(level for level in validation_levels if level <= codec.num_quantizers)
        self.validation_distance = MultiScaleMelLoss(codec.sample_rate, window_weighting=False)
        self.usage = CodebookUsage(codec.quantizer.num_quantizers, codec.codebook_size)
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))

    def configure_optimizers(self) -> Any:
        """Build one optimiser and scheduler for the codec and, if there is a discriminator, one for it."""
        optimizers = [self.optimizer(self.codec.parameters())]
        schedulers = [self.scheduler(optimizers[0])]
        if self.discriminator and self.discriminator_optimizer and self.discriminator_scheduler:
            optimizers.append(self.discriminator_optimizer(self.discriminator.parameters()))
            schedulers.append(self.discriminator_scheduler(optimizers[1]))
        return optimizers, schedulers

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Take a step of the codec and, in the adversarial part, one of the discriminator.

        Args:
            batch: Audio, ``[B, N]``.
            batch_idx: Not used.
        """
        optimizers, schedulers = _listed(self.optimizers()), _listed(self.lr_schedulers())
        discriminator = self.discriminator if int(self.batches_seen) >= self.adversarial_start else None
        frozen_codes = self.freeze_codes_after is not None and int(self.batches_seen) >= self.freeze_codes_after
        audio, commitment = self.codec(batch, frozen_codes)
        if discriminator:
            self._step_discriminator(discriminator, batch, audio.detach(), optimizers[1])
            schedulers[1].step()
        terms = {name: loss(audio, batch) for name, loss in self.losses.items()} | {"commitment": commitment}
        if discriminator:
            terms |= self._adversarial_terms(discriminator, batch, audio)
        total = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        norm = self._step(optimizers[0], total, self.codec)
        schedulers[0].step()
        self.batches_seen += 1
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in terms.items()} | {"train/gradient_norm": norm}
        )
        self.log("train/loss", total.detach(), prog_bar=True)
        self.log("train/learning_rate", schedulers[0].get_last_lr()[0])

    def _step_discriminator(
        self, discriminator: Discriminator, real: Tensor, generated: Tensor, optimizer: Any
    ) -> None:
        verdicts_real, verdicts_generated = discriminator(real), discriminator(generated)
        loss = discriminator_hinge_loss([v.logits for v in verdicts_real], [v.logits for v in verdicts_generated])
        norm = self._step(optimizer, loss, discriminator)
        self.log_dict({"train/discriminator": loss.detach(), "train/discriminator_gradient_norm": norm})

    def _adversarial_terms(self, discriminator: Discriminator, real: Tensor, generated: Tensor) -> dict[str, Tensor]:
        discriminator.requires_grad_(False)
        verdicts = discriminator(generated)
        with torch.no_grad():
            verdicts_real = discriminator(real)
        discriminator.requires_grad_(True)
        return {
            "adversarial": generator_hinge_loss([v.logits for v in verdicts]),
            "features": feature_matching_loss([v.features for v in verdicts_real], [v.features for v in verdicts]),
        }

    def _step(self, optimizer: Any, loss: Tensor, module: nn.Module) -> Tensor:
        """Take one step and return the norm of the gradient before clipping."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.gradient_clip_norm)
        optimizer.step()
        return norm

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Measure the mel distance per number of levels, and how evenly each level's codes are used.

        Args:
            batch: Audio, ``[B, N]``.
            batch_idx: Not used.
        """
        codes = self.codec.encode(batch)
        self.usage.update(codes)
        for levels in self.validation_levels:
            audio = self.codec.decode(codes[:, :levels])[:, : batch.shape[1]]
            distance = self.validation_distance(audio, batch)
            best = levels == max(self.validation_levels)
            self.log(f"val/mel_distance_{levels}", distance, batch_size=len(batch), prog_bar=best, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the perplexity of every level's codes."""
        for level, perplexity in enumerate(self.usage.compute()):
            self.log(f"val/perplexity_{level}", perplexity)
        self.usage.reset()


def _listed(found: Any) -> list[Any]:
    """Lightning returns a single optimiser or scheduler bare."""
    return found if isinstance(found, list) else [found]
