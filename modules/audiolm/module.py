"""Generation with both acoustic stages of AudioLM."""

from typing import Any

import torch
from torch import Tensor

from modules.audiolm.decoding import generate_coarse, generate_fine
from modules.audiolm.stages import AudioLMCoarse, AudioLMFine
from modules.batches import GeneratedBatch, TokenBatch
from modules.layers import Caching
from modules.sampling import CategoricalSampling, TokenSampling, row_noise
from modules.token_generator import StagedGenerator
from modules.token_network import evaluating


class AudioLM(StagedGenerator):
    """AudioLM's acoustic stages (Borsos et al. 2022) as SoundStorm's paper compares itself with them.

    Coarse levels token by token from semantic tokens that are not de-duplicated, in chunks of 10 s of which each is
    prompted by the last 3 s of the one before; then fine levels from coarse ones in independent chunks of 3 s.

    What the published system does otherwise: T5's relative positions, where ours are rotary and aligned with the
    frames; semantic tokens at 25 per second, where ours come at the codec's frame rate; 1 M steps per stage at batch
    256. What is the same: flattened tokens, one decoder-only Transformer per stage, temperatures, chunks.

    Args:
        coarse: The coarse stage.
        fine: The fine stage.
        coarse_checkpoint: Checkpoint of the coarse stage's training, loaded when prediction begins; None leaves the
            stage as it is.
        fine_checkpoint: The same for the fine stage.
        coarse_sampling: How coarse tokens are chosen; at temperature 0.8 if None.
        fine_sampling: How fine tokens are chosen; at temperature 0.6 if None.
        overlap_frames: Frames that prompt each coarse chunk after the first: 3 s.
        chunks_at_once: Most fine chunks that are generated at the same time; bounds memory, changes nothing else.

    Raises:
        ValueError: The stages do not fit each other.
    """

    def __init__(
        self,
        coarse: AudioLMCoarse,
        fine: AudioLMFine,
        coarse_checkpoint: str | None = None,
        fine_checkpoint: str | None = None,
        coarse_sampling: TokenSampling | None = None,
        fine_sampling: TokenSampling | None = None,
        overlap_frames: int = 150,
        chunks_at_once: int = 64,
    ) -> None:
        super().__init__((coarse, coarse_checkpoint), (fine, fine_checkpoint))
        if coarse.network.levels != fine.network.condition_levels:
            raise ValueError(
                f"the coarse stage makes {coarse.network.levels} levels, the fine stage wants "
                f"{fine.network.condition_levels}: give both the same coarse_levels"
            )
        if not 0 < overlap_frames < coarse.chunk_frames:
            raise ValueError(
                f"overlap_frames ({overlap_frames}) must lie between 1 and chunk_frames - 1 ({coarse.chunk_frames - 1})"
            )
        self.coarse = coarse
        self.fine = fine
        self.coarse_sampling = coarse_sampling or CategoricalSampling(0.8)
        self.fine_sampling = fine_sampling or CategoricalSampling(0.6)
        self.overlap_frames = overlap_frames
        self.chunks_at_once = chunks_at_once

    @property
    def sampling_settings(self) -> dict[str, Any]:
        """How each stage samples, and how far its chunks overlap."""
        return {
            "coarse": self.coarse_sampling.settings(),
            "fine": self.fine_sampling.settings(),
            "overlap_frames": self.overlap_frames,
        }

    @torch.no_grad()
    def generate(self, batch: TokenBatch, cached: Caching = True) -> GeneratedBatch:
        """Generate codes for the semantic tokens of a batch, after the prompts it gives.

        Args:
            batch: Tokens; of ``codes`` only the first ``prompt_frames`` frames of each row are read.
            cached: Whether keys and values are kept from token to token; slower without, and the same.

        Returns:
            The codes, prompts included.
        """
        networks = self.coarse.network, self.fine.network
        levels = [network.levels for network in networks]
        noise = row_noise(batch.seeds, batch.semantic.shape[1], sum(levels), batch.semantic.device)
        coarse_noise, fine_noise = noise.split(levels, dim=2)
        with evaluating(*networks):
            coarse = self.generate_coarse(batch, coarse_noise, cached)
            fine = self.generate_fine(batch, coarse, fine_noise, cached)
        return GeneratedBatch.of(batch, torch.cat((coarse, fine), dim=1))

    def generate_coarse(self, batch: TokenBatch, noise: Tensor, cached: Caching = True) -> Tensor:
        """Generate the coarse levels ``[B, L, T]`` from noise ``[B, T, L]``; a stage of :meth:`generate`."""
        prompt = batch.codes[:, : self.coarse.network.levels, : int(batch.prompt_frames.max())]
        return generate_coarse(
            self.coarse.network, batch.semantic, prompt, batch.lengths, batch.prompt_frames, noise,
            self.coarse_sampling, self.coarse.chunk_frames, self.overlap_frames, cached,
        )  # fmt: skip

    def generate_fine(self, batch: TokenBatch, coarse: Tensor, noise: Tensor, cached: Caching = True) -> Tensor:
        """Generate the other levels ``[B, Q - L, T]`` from the coarse ones; a stage of :meth:`generate`."""
        prompt = batch.codes[:, self.coarse.network.levels :, : int(batch.prompt_frames.max())]
        return generate_fine(
            self.fine.network, coarse, prompt, batch.lengths, batch.prompt_frames, noise, self.fine_sampling,
            self.fine.chunk_frames, self.chunks_at_once, cached,
        )  # fmt: skip
