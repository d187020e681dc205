"""SoundStream: a trainable neural codec with a residual vector quantiser (2107.03312)."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.codec.codec import AudioCodec
from modules.codec.soundstream.networks import Decoder, Encoder
from modules.codec.soundstream.pretrained import load_folder, save_folder
from modules.codec.soundstream.quantizer import ResidualVectorQuantizer


class Reconstruction(NamedTuple):
    """A batch that went through the codec during training."""

    audio: Tensor  # [B, N]
    commitment: Tensor  # []


class SoundStream(AudioCodec):
    """Encoder, residual vector quantiser and decoder.

    Args:
        encoder: Turns audio into a latent.
        decoder: Turns a latent into audio.
        quantizer: Quantises the latent.
        sample_rate: Of the audio, in Hz.
        num_quantizers: Leading levels that :meth:`encode` uses; all of the quantiser's by default.

    Raises:
        ValueError: If the parts do not fit together.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        quantizer: ResidualVectorQuantizer,
        sample_rate: int = 16000,
        num_quantizers: int | None = None,
    ) -> None:
        super().__init__()
        if encoder.hop_length != decoder.hop_length:
            raise ValueError(f"encoder has a hop of {encoder.hop_length} samples, decoder of {decoder.hop_length}")
        if not encoder.latent_dim == decoder.latent_dim == quantizer.dim:
            raise ValueError(
                f"latents differ: encoder {encoder.latent_dim}, quantizer {quantizer.dim}, decoder {decoder.latent_dim}"
            )
        levels = quantizer.num_quantizers if num_quantizers is None else num_quantizers
        if not 1 <= levels <= quantizer.num_quantizers:
            raise ValueError(f"num_quantizers must lie in 1..{quantizer.num_quantizers}, is {levels}")
        self.encoder, self.decoder, self.quantizer = encoder, decoder, quantizer
        self.sample_rate = sample_rate
        self.hop_length = encoder.hop_length
        self.num_quantizers = levels
        self.codebook_size = quantizer.codebook_size

    def forward(self, audio: Tensor, frozen_codes: bool = False) -> Reconstruction:
        """Encode, quantise with gradients, and decode; for training.

        Args:
            audio: ``[B, N]`` at ``sample_rate``.
            frozen_codes: Leave encoder and codebooks as they are; only the decoder gets gradients.

        Returns:
            Audio of the same shape, and the commitment loss.
        """
        if frozen_codes:
            with torch.no_grad():
                latent = self.quantizer.quantize(self.encoder(self._pad(audio)))
            return Reconstruction(self.decoder(latent)[:, : audio.shape[1]], latent.new_zeros(()))
        quantized = self.quantizer(self.encoder(self._pad(audio)))
        return Reconstruction(self.decoder(quantized.latent)[:, : audio.shape[1]], quantized.commitment)

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio ``[B, N]`` into codes ``[B, Q, ceil(N / hop_length)]``; see :class:`AudioCodec`."""
        # In half precision the same audio would have other codes.
        with torch.autocast(audio.device.type, enabled=False):
            return self.quantizer.encode(self.encoder(self._pad(audio)), self.num_quantizers)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes ``[B, Q', T]`` into audio ``[B, T * hop_length]``; see :class:`AudioCodec`.

        Raises:
            ValueError: If the codes have more levels than the quantiser.
        """
        if codes.shape[1] > self.quantizer.num_quantizers:
            raise ValueError(f"codes have {codes.shape[1]} levels, the codec has {self.quantizer.num_quantizers}")
        with torch.autocast(codes.device.type, enabled=False):
            return self.decoder(self.quantizer.decode(codes))

    def latents(self, codes: Tensor) -> Tensor:
        """Look up the sum of the code vectors, ``[B, Q', T] -> [B, T, d]``."""
        return self.quantizer.decode(codes)

    def identity(self) -> dict[str, Any]:
        """Name the codec.

        ``revision`` is a digest of encoder and codebooks: a decoder that was trained on for the same codes leaves token
        sets as valid as they were.
        """
        return {
            "name": "soundstream",
            "revision": self._digest(),
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "num_quantizers": self.num_quantizers,
            "codebook_size": self.codebook_size,
        }

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write ``config.yaml`` and ``model.safetensors``.

        Args:
            folder: Where to; made if missing.
            dtype: Type the weights are stored in; they are read back as float32.
        """
        save_folder(self, Path(folder), dtype)

    @classmethod
    def from_pretrained(cls, source: str | Path, num_quantizers: int | None = None) -> "SoundStream":
        """Load a published codec.

        Args:
            source: A folder as :meth:`save_pretrained` writes it, or the hub id of a repository with such files.
            num_quantizers: Leading levels to use; those of the folder by default.

        Returns:
            The codec, in evaluation mode.

        Raises:
            ValueError: If the folder is incomplete, names a class that is no part of a codec, or has weights that do
                not fit its configuration.
        """
        overrides = {} if num_quantizers is None else {"num_quantizers": num_quantizers}
        codec = load_folder(source, overrides)
        if not isinstance(codec, cls):
            raise ValueError(f"{source}: holds a {type(codec).__name__}, not a {cls.__name__}")
        return codec.eval()

    def _pad(self, audio: Tensor) -> Tensor:
        return F.pad(audio, (0, -audio.shape[1] % self.hop_length))

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            if name.startswith("decoder."):
                continue
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
