"""Speech features that imitate those of a large encoder, small enough to ship."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from modules.layers import Conformer
from modules.model_folder import weights_digest
from modules.semantic.features import SpeechFeatures
from modules.semantic.log_mel import LogMelFeatures


class DistilledFeatures(SpeechFeatures):
    """Log-mel spectrum, then a small Conformer that was taught the standardised features of a teacher.

    A new one knows nothing: :class:`modules.semantic.distillation.SemanticDistillation` trains it. Its weights lie in
    the folder of the tokenizer that uses it. Frame t covers samples ``t * hop_length`` to ``(t + 1) * hop_length``.

    Args:
        dim: Width of the teacher's features.
        model_dim: Width of the Conformer.
        num_layers: Its blocks.
        num_heads: Its attention heads.
        ffn_dim: Hidden width of its feed-forward layers.
        conv_kernel_size: Odd kernel of its convolutions, in frames.
        dropout: Dropout while it is trained.
        sample_rate: Samples per second, in Hz.
        hop_length: Samples per frame; spectra are taken at twice the rate of frames.
        num_mels: Mel bands.
        teacher: Identity of the tokenizer whose tokens these features stand in for.
        positions: Frames that are told their place in the recording, as those of a teacher with absolute positions
            are; later ones count as the last of these. With 0 no frame knows its place.

    Raises:
        ValueError: ``hop_length`` is odd, or ``positions`` negative.
    """

    def __init__(
        self,
        dim: int,
        model_dim: int = 256,
        num_layers: int = 4,
        num_heads: int = 4,
        ffn_dim: int = 1024,
        conv_kernel_size: int = 15,
        dropout: float = 0.0,
        sample_rate: int = 16_000,
        hop_length: int = 320,
        num_mels: int = 64,
        teacher: dict[str, Any] | None = None,
        positions: int = 0,
    ) -> None:
        super().__init__()
        if hop_length % 2:
            raise ValueError(f"hop_length={hop_length} must be even: a frame is made of two spectra")
        if positions < 0:
            raise ValueError(f"positions={positions} is negative; 0 tells no frame its place")
        self.dim, self.sample_rate, self.hop_length = dim, sample_rate, hop_length
        self.arguments = {
            "dim": dim,
            "model_dim": model_dim,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "ffn_dim": ffn_dim,
            "conv_kernel_size": conv_kernel_size,
            "dropout": dropout,
            "sample_rate": sample_rate,
            "hop_length": hop_length,
            "num_mels": num_mels,
            "positions": positions,
        }
        self.teacher = teacher
        self.log_mel = LogMelFeatures(
            sample_rate, hop_length // 2, window_length=2 * hop_length, num_mels=num_mels, context=0
        )
        self.embed = nn.Linear(2 * num_mels, model_dim)
        self.positions = positions
        if positions:
            self.place = nn.Linear(model_dim, model_dim, bias=False)
            nn.init.zeros_(self.place.weight)  # what was learnt without positions still holds with them
        self.trunk = Conformer(
            model_dim, num_layers, num_heads, ffn_dim, conv_kernel_size, conv_expansion=1, dropout=dropout
        )
        self.head = nn.Linear(model_dim, dim)
        self.teaching = False
        self.train(False)  # PyTorch makes modules for training: dropout would decide over tokens

    def num_frames(self, num_samples: int) -> int:
        """``ceil(num_samples / hop_length)``."""
        return math.ceil(num_samples / self.hop_length)

    def read(self, spectra: Tensor) -> Tensor:
        """Compute the features of the :meth:`spectra` of audio, with gradients.

        Args:
            spectra: Shape ``[B, T, 2 * num_mels]``.

        Returns:
            The teacher's standardised features as far as they were learnt, shape ``[B, T, dim]``.
        """
        x = self.embed(spectra)
        if self.positions:
            place = torch.arange(x.shape[1], device=x.device).clamp_max(self.positions - 1)
            x = x + self.place(sinusoids(place, x.shape[-1]))
        return self.head(self.trunk(x))

    def extract(self, audio: Tensor) -> Tensor:
        """Compute the features: ``[B, N]`` to ``[B, T, dim]``."""
        return self.read(self.spectra(audio))

    def spectra(self, audio: Tensor) -> Tensor:
        """Log-mel spectra at twice the rate of frames, two to a frame, each band free of its mean over the audio.

        Args:
            audio: Mono audio, shape ``[B, N]``.

        Returns:
            Shape ``[B, num_frames(N), 2 * num_mels]``, the bands of the earlier spectrum first.
        """
        whole = nn.functional.pad(audio, (0, -audio.shape[1] % self.hop_length))
        return (self.log_mel(whole) / 3).unflatten(1, (-1, 2)).flatten(2)

    def train(self, mode: bool = True) -> "DistilledFeatures":
        """Switch dropout on and off while it is taught; stay in evaluation mode otherwise."""
        nn.Module.train(self, mode and self.teaching)
        return self

    def weights(self) -> dict[str, Tensor]:
        """What was learnt, in half precision."""
        return {name: tensor.half() for name, tensor in self.state_dict().items()}

    def identity(self) -> dict[str, Any]:
        """Name the features; ``revision`` is a digest of the weights as they are kept on disk."""
        return {
            "name": "distilled",
            "revision": weights_digest(self.weights()),
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "dim": self.dim,
            **({"positions": self.positions} if self.positions else {}),  # of one width, whatever their number
        }

    def init_args(self) -> dict[str, Any]:
        """Arguments that construct these features again, without what was learnt."""
        return {**self.arguments, "teacher": self.teacher}


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Sines and cosines of positions (Vaswani et al. 2017, section 3.5), in halves as Whisper's encoder has them.

    Args:
        positions: Positions, shape ``[T]``.
        dim: Even width D.

    Returns:
        Shape ``[T, D]``, float32: D / 2 sines, then D / 2 cosines, of periods from 2 pi to 10000 * 2 pi.
    """
    rates = torch.logspace(0, -4, dim // 2, device=positions.device)
    angles = positions[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
