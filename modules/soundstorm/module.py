"""Training and generation of SoundStorm as a LightningModule."""

from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from modules.batches import GeneratedBatch, TokenBatch
from modules.soundstorm.chunks import Chunking, decode_in_chunks
from modules.soundstorm.masking import MaskingOptions, apply_masks, draw_masks
from modules.soundstorm.network import SoundStormNetwork
from modules.soundstorm.readings import ReadingChoice, decode_best
from modules.soundstorm.schedule import DecodingSchedule
from modules.token_generator import TokenGenerator
from modules.token_prediction import TokenPrediction
from modules.token_stage import Predicted, TokenStage


class SoundStorm(TokenStage, TokenGenerator):
    """SoundStorm (Borsos et al. 2023): fit on a token set, validate prompted and unprompted, predict codes.

    Args:
        network: The network.
        optimizer: Makes the optimizer from the groups of :func:`modules.optimizers.parameter_groups`.
        lr_scheduler: Makes the learning-rate schedule, stepped once per optimizer step.
        schedule: How :meth:`generate` decodes; the paper's schedule if None.
        masking: Departures from the paper's training mask; none if None.
        validation_prompt_frames: Prompt length of prompted validation, at most half of an utterance.
        chunking: How :meth:`generate` divides utterances longer than the network was trained on; whole ones, as in the
            paper, if None.
        choice: Among how many readings :meth:`generate` chooses, and by whose ear; it takes the first, as in the paper,
            if None.
        soft_semantic: Speak and learn from what each semantic token may be (:class:`modules.batches.SoftTokens`), where
            a token set says so, in place of the most probable one; the paper's tokens if False.
    """

    network: SoundStormNetwork

    def __init__(
        self,
        network: SoundStormNetwork,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        schedule: DecodingSchedule | None = None,
        masking: MaskingOptions | None = None,
        validation_prompt_frames: int = 150,
        chunking: Chunking | None = None,
        choice: ReadingChoice | None = None,
        soft_semantic: bool = False,
    ) -> None:
        super().__init__(network, optimizer, lr_scheduler)
        self.schedule = schedule or DecodingSchedule(iterations=(16,) + (1,) * (network.num_quantizers - 1))
        self.masking = masking or MaskingOptions()
        self.validation_prompt_frames = validation_prompt_frames
        self.chunking = chunking
        self.choice = choice
        self.soft_semantic = soft_semantic
        self._posterior: dict[str, Any] | None = None  # how the soft tokens of the token set were found
        self.unprompted_prediction = TokenPrediction(network.num_quantizers)
        self.prompted_prediction = TokenPrediction(network.num_quantizers)

    def setup(self, stage: str) -> None:
        """Refuse a token set that does not fit the network, or that those who choose among readings do not know.

        Raises:
            ValueError: The card of the token set differs, or it has no soft tokens where they are asked for.
        """
        super().setup(stage)
        card = getattr(getattr(self.trainer, "datamodule", None), "card", None)
        if self.soft_semantic and card is not None and not card.soft_semantic:
            raise ValueError(
                "soft_semantic: true needs a token set with soft tokens, and there is none: tokenize with "
                "--model.init_args.soft '{num_tokens: 16}', or set soft_semantic: false"
            )
        self._posterior = getattr(card, "soft_semantic", None)
        if self.choice is not None and self.token_card is not None:
            self.choice.check(self.token_card)

    @property
    def sampling_settings(self) -> dict[str, Any]:
        """The decoding schedule; how utterances are divided, readings chosen and tokens softened where they are."""
        chunking = asdict(self.chunking) if self.chunking else {}
        readings = {"readings": self.choice.readings} if self.choice else {}
        soft = {"soft_semantic": self._posterior or True} if self.soft_semantic else {}
        return asdict(self.schedule) | chunking | readings | soft

    def read_semantic(self, batch: TokenBatch) -> Tensor:
        """Give what the network is told of a batch's words: tokens ``[B, T]``, or probabilities ``[B, T, V]``."""
        if not self.soft_semantic or batch.soft_semantic is None:
            return batch.semantic
        return batch.soft_semantic.spread(self.network.semantic_vocab_size)

    def predict_tokens(self, batch: TokenBatch) -> Predicted:
        """Mask a batch as in training and predict what was masked, each example at its level."""
        return self.predict_masked(batch, None)

    def predict_masked(self, batch: TokenBatch, prompt_frames: Tensor | None) -> Predicted:
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
        semantic = self.network.hide_semantic(self.read_semantic(batch), draw.drop_semantic)
        valid = torch.arange(width, device=batch.lengths.device) < batch.lengths[:, None]
        logits = self.network(semantic, masked, draw.level, draw.masked, valid)
        index = draw.level[:, None, None].expand(-1, 1, width)
        target = batch.codes.gather(1, index).squeeze(1)[draw.masked]
        return Predicted(logits, target, draw.level[:, None].expand(-1, width)[draw.masked])

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
        arguments = (
            self.network, self.read_semantic(batch), prompt, batch.lengths, schedule or self.schedule, batch.seeds,
            batch.prompt_frames,
        )  # fmt: skip
        if self.chunking is None:
            codes, _ = decode_best(*arguments, choice=self.choice)
        else:
            codes = decode_in_chunks(*arguments, self.chunking, self.choice)
        return GeneratedBatch.of(batch, codes)
