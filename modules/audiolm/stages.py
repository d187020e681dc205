"""Training of AudioLM's two acoustic stages."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from modules.audiolm.chunks import cut
from modules.audiolm.network import CoarseNetwork, FineNetwork, FlatTokenNetwork
from modules.batches import TokenBatch
from modules.token_stage import Predicted, TokenStage


class AudioLMCoarse(TokenStage):
    """Fits the coarse stage: levels 1 to 4 from semantic tokens.

    Longer windows are cut into chunks side by side, all of which are trained on. Published: crops of exactly 10 s.

    Args:
        network: The network.
        optimizer: Makes the optimizer from the groups of :func:`modules.optimizers.parameter_groups`.
        lr_scheduler: Makes the learning-rate schedule, stepped once per optimizer step.
        chunk_frames: Longest chunk: 10 s.
    """

    network: CoarseNetwork

    def __init__(
        self,
        network: CoarseNetwork,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        chunk_frames: int = 500,
    ) -> None:
        super().__init__(network, optimizer, lr_scheduler)
        self.chunk_frames = chunk_frames

    def predict_tokens(self, batch: TokenBatch) -> Predicted:
        """Predict all coarse tokens of a batch."""
        coarse = batch.codes[:, : self.network.levels]
        chunks = cut([batch.semantic, coarse], batch.lengths, self.chunk_frames)
        semantic, codes = chunks.tokens
        return _predict(self.network, semantic[:, None], codes, chunks.lengths, 0)


class AudioLMFine(TokenStage):
    """Fits the fine stage: levels 5 to 12 from levels 1 to 4, in chunks of 3 s.

    Windows are cut into chunks side by side, all of which are trained on. Published: random crops of exactly 3 s.

    Args:
        network: The network.
        optimizer: Makes the optimizer from the groups of :func:`modules.optimizers.parameter_groups`.
        lr_scheduler: Makes the learning-rate schedule, stepped once per optimizer step.
        chunk_frames: Frames per chunk: 3 s.
    """

    network: FineNetwork

    def __init__(
        self,
        network: FineNetwork,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        chunk_frames: int = 150,
    ) -> None:
        super().__init__(network, optimizer, lr_scheduler)
        self.chunk_frames = chunk_frames

    def predict_tokens(self, batch: TokenBatch) -> Predicted:
        """Predict all fine tokens of a batch."""
        coarse, fine = batch.codes.split((self.network.condition_levels, self.network.levels), dim=1)
        chunks = cut([coarse, fine], batch.lengths, self.chunk_frames)
        condition, codes = chunks.tokens
        return _predict(self.network, condition, codes, chunks.lengths, self.network.condition_levels)


def _predict(
    network: FlatTokenNetwork, condition: Tensor, codes: Tensor, lengths: Tensor, first_level: int
) -> Predicted:
    logits = network(condition, codes, lengths)
    real = torch.arange(codes.shape[2], device=lengths.device) < lengths[:, None]
    target = codes.mT[real].mT
    level = torch.arange(first_level, first_level + network.levels, device=codes.device)[:, None].expand_as(target)
    return Predicted(logits.flatten(0, 1), target.flatten(), level.flatten())
