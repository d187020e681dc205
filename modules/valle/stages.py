"""Training of VALL-E's two networks."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from modules.batches import TokenBatch
from modules.sampling import row_noise
from modules.token_stage import Predicted, TokenStage
from modules.valle.autoregressive import AutoregressiveNetwork
from modules.valle.nonautoregressive import NonAutoregressiveNetwork


class VallEAutoregressive(TokenStage):
    """Fits the network of the first level. With groups, where they begin is drawn per example.

    Args:
        network: The network.
        optimizer: Makes the optimizer from the groups of :func:`modules.optimizers.parameter_groups`.
        lr_scheduler: Makes the learning-rate schedule, stepped once per optimizer step.
    """

    network: AutoregressiveNetwork

    def __init__(
        self,
        network: AutoregressiveNetwork,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(network, optimizer, lr_scheduler)

    def predict_tokens(self, batch: TokenBatch) -> Predicted:
        """Predict the first level of a batch."""
        draw = row_noise(batch.seeds, 1, 1, batch.codes.device).flatten()
        offset = (draw * self.network.group_size).long()
        first = batch.codes[:, 0]
        logits = self.network(batch.semantic, first, batch.lengths, offset)
        real = torch.arange(first.shape[1], device=first.device) < batch.lengths[:, None]
        target = first[real]
        return Predicted(logits, target, torch.zeros_like(target))


class VallENonAutoregressive(TokenStage):
    """Fits the network of all levels but the first: each example at one level, drawn uniformly, after a prompt.

    Published: one level per training step, and always a prompt, 3 s from elsewhere in the utterance (VALL-E), or the
    part of it before the target (VALL-E 2, as here). Ours leaves the prompt out of some examples, because the
    comparison also generates without one.

    Args:
        network: The network.
        optimizer: Makes the optimizer from the groups of :func:`modules.optimizers.parameter_groups`.
        lr_scheduler: Makes the learning-rate schedule, stepped once per optimizer step.
        prompt_frames: Length of the prompt, 3 s; at most half of the example.
        prompt_dropout: Share of examples without a prompt.
    """

    network: NonAutoregressiveNetwork

    def __init__(
        self,
        network: NonAutoregressiveNetwork,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        prompt_frames: int = 150,
        prompt_dropout: float = 0.5,
    ) -> None:
        super().__init__(network, optimizer, lr_scheduler)
        if not 0 <= prompt_dropout <= 1 or prompt_frames < 0:
            raise ValueError(
                f"prompt_dropout ({prompt_dropout}) must lie from 0 to 1, prompt_frames ({prompt_frames}) be at least 0"
            )
        self.prompt_frames = prompt_frames
        self.prompt_dropout = prompt_dropout

    def predict_tokens(self, batch: TokenBatch) -> Predicted:
        """Predict one level of each row of a batch."""
        u_level, u_prompt = row_noise(batch.seeds, 1, 2, batch.codes.device)[:, 0].unbind(1)
        level = 1 + (u_level * (self.network.num_quantizers - 1)).long()
        prompt = (batch.lengths // 2).clamp(max=self.prompt_frames).masked_fill(u_prompt < self.prompt_dropout, 0)
        return Predicted(*self.network(batch.semantic, batch.codes, batch.lengths, prompt, level))
