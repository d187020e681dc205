"""Generation with both networks of VALL-E."""

from typing import Any

import torch
from torch import Tensor

from modules.batches import GeneratedBatch, TokenBatch
from modules.layers import Caching
from modules.sampling import CategoricalSampling, TokenSampling, row_noise
from modules.token_generator import StagedGenerator
from modules.token_network import evaluating
from modules.valle.decoding import fill_levels, generate_first_level
from modules.valle.stages import VallEAutoregressive, VallENonAutoregressive


class VallE(StagedGenerator):
    """VALL-E (Wang et al. 2023), with semantic tokens in the place of phonemes so that it can be compared.

    The first level is sampled code by code; the others are filled in greedily, a level at a time. VALL-E 2 (Chen et
    al. 2024) is the same with ``modules.valle.RepetitionAwareSampling`` and, as an option, an autoregressive network
    with groups of frames.

    What the published systems do otherwise: text as the condition, hence a length that is sampled too; the transcript
    of the prompt before that of the target, where ours has the semantic tokens of both; EnCodec at 75 frames per second
    with 8 levels; several samples of which the best is taken, in some of VALL-E 2's numbers.

    Args:
        autoregressive: The stage of the first level.
        nonautoregressive: The stage of the others.
        autoregressive_checkpoint: Checkpoint of the first stage's training, loaded when prediction begins; None leaves
            the stage as it is.
        nonautoregressive_checkpoint: The same for the second stage.
        sampling: How codes of the first level are chosen; from the whole distribution, as in VALL-E, if None.

    Raises:
        ValueError: The networks do not have the same levels and codes.
    """

    def __init__(
        self,
        autoregressive: VallEAutoregressive,
        nonautoregressive: VallENonAutoregressive,
        autoregressive_checkpoint: str | None = None,
        nonautoregressive_checkpoint: str | None = None,
        sampling: TokenSampling | None = None,
    ) -> None:
        super().__init__((autoregressive, autoregressive_checkpoint), (nonautoregressive, nonautoregressive_checkpoint))
        for name in ("num_quantizers", "codebook_size", "semantic_vocab_size"):
            values = [getattr(stage.network, name) for stage in (autoregressive, nonautoregressive)]
            if values[0] != values[1]:
                raise ValueError(f"the networks have {name}={values[0]} and {values[1]}: give both the same")
        self.autoregressive = autoregressive
        self.nonautoregressive = nonautoregressive
        self.sampling = sampling or CategoricalSampling()

    @property
    def sampling_settings(self) -> dict[str, Any]:
        """How codes of the first level are sampled; the others are taken greedily."""
        return self.sampling.settings()

    @torch.no_grad()
    def generate(self, batch: TokenBatch, cached: Caching = True) -> GeneratedBatch:
        """Generate codes for the semantic tokens of a batch, after the prompts it gives.

        Args:
            batch: Tokens; of ``codes`` only the first ``prompt_frames`` frames of each row are read.
            cached: Whether keys and values are kept from code to code; slower without, and the same.

        Returns:
            The codes, prompts included.
        """
        networks = self.autoregressive.network, self.nonautoregressive.network
        noise = row_noise(batch.seeds, batch.semantic.shape[1], self.sampling.draws, batch.semantic.device)
        with evaluating(*networks):
            first = self.generate_first_level(batch, noise, cached)
            codes = self.fill_levels(batch, first)
        return GeneratedBatch.of(batch, codes)

    def generate_first_level(self, batch: TokenBatch, noise: Tensor, cached: Caching = True) -> Tensor:
        """Generate the first level ``[B, T]`` from noise ``[B, T, draws]``; a stage of :meth:`generate`."""
        prompt = batch.codes[:, 0, : int(batch.prompt_frames.max())]
        return generate_first_level(
            self.autoregressive.network, batch.semantic, prompt, batch.lengths, batch.prompt_frames, noise,
            self.sampling, cached,
        )  # fmt: skip

    def fill_levels(self, batch: TokenBatch, first: Tensor) -> Tensor:
        """Add the other levels to the first: all of them, ``[B, Q, T]``; a stage of :meth:`generate`."""
        prompt = batch.codes[:, :, : int(batch.prompt_frames.max())]
        return fill_levels(
            self.nonautoregressive.network, batch.semantic, first, prompt, batch.lengths, batch.prompt_frames
        )
