"""Fitting a residual quantiser to the latents of Lyra, as a stage of ``fit``."""

from os import PathLike

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from modules.batches import AudioBatch
from modules.codec.lyra import LyraNetworks
from modules.codec.residual_vq import fit_residual_vq


class LyraQuantizerFitting(LightningModule):
    """Collects latents of Lyra for one epoch of audio, then fits codebooks to them by residual k-means.

    There is nothing to optimise by gradients and nothing in the checkpoint: the result is the file ``output``, for
    :class:`modules.codec.LyraCodec`. Runs in one process.

    Args:
        folder: Folder with Lyra's files, see :class:`modules.codec.lyra.LyraNetworks`.
        output: File to write the codebooks to (safetensors).
        num_quantizers: Levels Q.
        codebook_size: Entries C per level.
        iterations: Rounds of Lloyd's algorithm per level.
        max_frames: Frames after which no more audio is read; 50 make one second, 256 bytes each.
        seed: Seed of the starting points.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        output: str | PathLike[str],
        num_quantizers: int = 12,
        codebook_size: int = 1024,
        iterations: int = 10,
        max_frames: int = 300_000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.networks = LyraNetworks(folder)
        self.output = output
        self.num_quantizers = num_quantizers
        self.codebook_size = codebook_size
        self.iterations = iterations
        self.max_frames = max_frames
        self.seed = seed
        self._latents: list[Tensor] = []
        self._num_frames = 0

    def configure_optimizers(self) -> None:
        """Nothing is optimised."""

    def on_fit_start(self) -> None:
        """Refuse several processes: each would fit its own codebooks.

        Raises:
            ValueError: If there is more than one process.
        """
        if self.trainer.world_size > 1:
            raise ValueError("a Lyra quantiser is fitted in one process: set trainer.devices and num_nodes to 1")

    def training_step(self, batch: AudioBatch, batch_idx: int) -> None:
        """Keep the latents of a batch of audio.

        Args:
            batch: Audio at 16 kHz.
            batch_idx: Number of the batch.

        Raises:
            ValueError: If the audio has another sample rate.
        """
        if batch.audio and batch.sample_rate != self.networks.sample_rate:
            raise ValueError(f"Lyra works at {self.networks.sample_rate} Hz, the data at {batch.sample_rate} Hz")
        for audio in batch.audio:
            latents = self.networks.analyse(audio)[: self.max_frames - self._num_frames]
            self._latents.append(latents)
            self._num_frames += len(latents)
        self.log("frames", float(self._num_frames), prog_bar=True, batch_size=max(1, len(batch.ids)))
        if self._num_frames >= self.max_frames:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Fit the codebooks and write them.

        Raises:
            ValueError: If there were fewer frames than a codebook has entries.
        """
        quantizer = fit_residual_vq(
            torch.cat([torch.empty(0, self.networks.dim), *self._latents]).to(self.device),
            self.num_quantizers,
            self.codebook_size,
            self.iterations,
            self.seed,
            report=lambda level, snr: self.print(f"level {level + 1} of {self.num_quantizers}: {snr:.2f} dB"),
        )
        self._latents.clear()
        quantizer.save(self.output)
        self.print(f"wrote {self.output}")
