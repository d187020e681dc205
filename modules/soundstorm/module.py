"""Training and generation of SoundStorm as a LightningModule."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from modules.batches import GeneratedBatch, TokenBatch
from modules.optimizers import parameter_groups
from modules.soundstorm.decoding import decode
from modules.soundstorm.masking import MaskingOptions, apply_masks, draw_masks
from modules.soundstorm.metrics import TokenPrediction
from modules.soundstorm.network import SoundStormNetwork
from modules.soundstorm.schedule import DecodingSchedule


class SoundStorm(LightningModule):
    """SoundStorm (Borsos et al. 2023): fit on a token set, validate prompted and unprompted, predict codes.

    Args:
        network: The network.
        optimizer: Makes the optimizer from the groups of :func:`modules.optimizers.parameter_groups`.
        lr_scheduler: Makes the learning-rate schedule, stepped once per optimizer step.
        schedule: How :meth:`generate` decodes; the paper's schedule if None.
        masking: Departures from the paper's training mask; none if None.
        validation_prompt_frames: Prompt length of prompted validation, at most half of an utterance.
    """

    def __init__(
        self,
        network: SoundStormNetwork,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        schedule: DecodingSchedule | None = None,
        masking: MaskingOptions | None = None,
        validation_prompt_frames: int = 150,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.schedule = schedule or DecodingSchedule(iterations=(16,) + (1,) * (network.num_quantizers - 1))
        self.masking = masking or MaskingOptions()
        self.validation_prompt_frames = validation_prompt_frames
        self.train_prediction = TokenPrediction(network.num_quantizers)
        self.unprompted_prediction = TokenPrediction(network.num_quantizers)
        self.prompted_prediction = TokenPrediction(network.num_quantizers)
        self.token_card: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Refuse a token set that does not fit the network.

        Raises:
            ValueError: The card of the token set and the network differ.
        """
        card = getattr(getattr(self.trainer, "datamodule", None), "card", None)
        if card is None:
            return
        for name in ("num_quantizers", "codebook_size", "semantic_vocab_size"):
            of_set, of_network = getattr(card, name), getattr(self.network, name)
            if of_set != of_network:
                raise ValueError(
                    f"the token set has {name}={of_set}, the network {name}={of_network}: "
                    f"set model.init_args.network.init_args.{name}={of_set}, or take another token set"
                )
        self.token_card = {"codec": dict(card.codec), "semantic": dict(card.semantic)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record which codec and semantic tokenizer the tokens came from."""
        checkpoint["token_card"] = self.token_card

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse tokens of another codec or semantic tokenizer than those the checkpoint was trained on.

        Raises:
            ValueError: They differ.
        """
        trained = checkpoint.get("token_card")
        if trained is None or self.token_card is None:
            return
        for part in ("codec", "semantic"):
            if trained[part] != self.token_card[part]:
                raise ValueError(
                    f"the checkpoint was trained on tokens of the {part} {trained[part]}, this token set holds tokens "
                    f"of {self.token_card[part]}: tokenize the audio with the former, or take another checkpoint"
                )

    def predict_masked(self, batch: TokenBatch, prompt_frames: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mask a batch and predict what was masked at each example's level.

        Args:
            batch: Tokens.
            prompt_frames: Fixed prompt lengths ``[B]`` for validation; drawn as in training if None.

        Returns:
            Logits ``[N, C]``, true tokens ``[N]`` and their levels ``[N]``, over all masked tokens of the batch.
        """
        width = batch.semantic.shape[1]
        options = self.masking if self.training else MaskingOptions()
        draw = draw_masks(batch.lengths, width, self.network.num_quantizers, batch.seeds, options, prompt_frames)
        draw = type(draw)(*(x.to(batch.codes.device, non_blocking=True) for x in draw))
        masked = apply_masks(batch.codes, draw, batch.lengths, self.network.mask_id)
        semantic = torch.where(draw.drop_semantic[:, None], self.network.null_semantic_id, batch.semantic)
        valid = torch.arange(width, device=batch.lengths.device) < batch.lengths[:, None]
        logits = self.network(semantic, masked, draw.level, draw.masked, valid)
        index = draw.level[:, None, None].expand(-1, 1, width)
        target = batch.codes.gather(1, index).squeeze(1)[draw.masked]
        return logits, target, draw.level[:, None].expand(-1, width)[draw.masked]

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Cross-entropy of the masked tokens of each example's level, averaged over the global batch."""
        logits, target, level = self.predict_masked(batch, None)
        total = F.cross_entropy(logits.float(), target, reduction="sum")
        # DDP averages gradients over ranks; dividing by the mean count per rank makes that the mean over all tokens.
        count = torch.tensor(float(len(target)), device=total.device)
        loss = total / self.trainer.strategy.reduce(count, reduce_op="mean")
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch.ids))
        self.train_prediction.update(logits, target, level)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: TokenBatch, batch_idx: int) -> None:
        """Log the levels each on its own, over all tokens since the last time."""
        if (batch_idx + 1) % self.trainer.log_every_n_steps == 0:  # ty: ignore[missing-attribute]
            values = self.train_prediction.compute()
            self.train_prediction.reset()
            self.log_dict({f"train/{name}": value for name, value in values.items() if name != "loss"})

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Predict masked tokens without and with a prompt; the masks are the same in every epoch."""
        no_prompt = torch.zeros_like(batch.lengths)
        prompt = (batch.lengths // 2).clamp(max=self.validation_prompt_frames)
        self.unprompted_prediction.update(*self.predict_masked(batch, no_prompt))
        self.prompted_prediction.update(*self.predict_masked(batch, prompt))

    def on_validation_epoch_end(self) -> None:
        """Log what validation found, per condition and level.

        The metrics have added up all ranks already; ``sync_dist`` only tells Lightning so.
        """
        losses = []
        for name, metric in (("unprompted", self.unprompted_prediction), ("prompted", self.prompted_prediction)):
            values = metric.compute()
            metric.reset()
            self.log_dict({f"val/{name}/{key}": value for key, value in values.items()}, sync_dist=True)
            losses.append(values["loss"])
        self.log("val/loss", torch.stack(losses).mean(), prog_bar=True, sync_dist=True)

    def generate(self, batch: TokenBatch, schedule: DecodingSchedule | None = None) -> GeneratedBatch:
        """Generate codes for the semantic tokens of a batch, after the prompts it gives.

        Args:
            batch: Tokens; of ``codes`` only the first ``prompt_frames`` frames of each row are read.
            schedule: How to decode; the module's own schedule if None.

        Returns:
            The codes, prompts included.
        """
        prompt = batch.codes[:, :, : int(batch.prompt_frames.max())]
        codes = decode(
            self.network,
            batch.semantic,
            prompt,
            batch.lengths,
            schedule or self.schedule,
            batch.seeds,
            prompt_lengths=batch.prompt_frames,
        )
        return GeneratedBatch(
            batch.ids, codes, batch.lengths, batch.prompt_frames, batch.seeds, batch.speakers, batch.texts
        )

    def predict_step(self, batch: TokenBatch, batch_idx: int, dataloader_idx: int = 0) -> GeneratedBatch:
        """Generate; a callback writes the result."""
        return self.generate(batch)

    def configure_optimizers(self) -> Any:
        """Make the optimizer, with weight decay for matrices only, and the schedule, stepped per optimizer step."""
        optimizer = self.optimizer(parameter_groups(self.network, hidden=self.network.trunk))
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients and log it.

        Lightning's own clipping refuses fused optimizers under mixed precision, although bf16 scales no gradient.
        """
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val or torch.inf)
        self.log("train/grad_norm", norm)
