"""The codec's own reconstruction as an acoustic generator: the ceiling of every table."""

import torch
from lightning.pytorch import LightningModule

from modules.batches import GeneratedBatch, TokenBatch


class CodecReconstruction(LightningModule):
    """Hands on the true codes, so that ``generate`` decodes the best that any generator could make.

    What the result has lost against the recordings, the codec has lost.
    """

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> GeneratedBatch:
        """Pass on the true codes.

        Args:
            batch: Tokens of recordings, codes ``[B, Q, T]``.
            batch_idx: Number of the batch.

        Returns:
            The same codes as if generated without a prompt, seeds included.
        """
        return GeneratedBatch.of(batch, batch.codes)._replace(prompt_frames=torch.zeros_like(batch.prompt_frames))
