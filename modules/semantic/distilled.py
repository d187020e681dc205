"""Speech features that imitate those of a large encoder, small enough to ship."""

import math
from typing import Any

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

    Raises:
        ValueError: ``hop_length`` is odd.
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
    ) -> None:
        super().__init__()
        if hop_length % 2:
            raise ValueError(f"hop_length={hop_length} must be even: a frame is made of two spectra")
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
        }
        self.teacher = teacher
        self.log_mel = LogMelFeatures(
            sample_rate, hop_length // 2, window_length=2 * hop_length, num_mels=num_mels, context=0
        )
        self.embed = nn.Linear(2 * num_mels, model_dim)
        self.trunk = Conformer(
            model_dim, num_layers, num_heads, ffn_dim, conv_kernel_size, conv_expansion=1, dropout=dropout
        )
        self.head = nn.Linear(model_dim, dim)
        self.teaching = False

    def num_frames(self, num_samples: int) -> int:
        """``ceil(num_samples / hop_length)``."""
        return math.ceil(num_samples / self.hop_length)

    def predict(self, audio: Tensor) -> Tensor:
        """Compute the features with gradients.

        Args:
            audio: Mono audio, shape ``[B, N]``.

        Returns:
            The teacher's standardised features as far as they were learnt, shape ``[B, num_frames(N), dim]``.
        """
        return self.head(self.trunk(self.embed(self._spectra(audio))))

    def extract(self, audio: Tensor) -> Tensor:
        """Compute the features: ``[B, N]`` to ``[B, T, dim]``."""
        return self.predict(audio)

    def _spectra(self, audio: Tensor) -> Tensor:
        """Log-mel spectra at twice the rate of frames, two to a frame, each band free of its mean over the audio."""
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
        }

    def init_args(self) -> dict[str, Any]:
        """Arguments that construct these features again, without what was learnt."""
        return {**self.arguments, "teacher": self.teacher}
