"""What the codec asks of an encoder and of a decoder."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Turns audio into a latent.

    Attributes:
        hop_length: Samples per frame.
        latent_dim: Channels D of the latent.
    """

    hop_length: int
    latent_dim: int

    @abstractmethod
    def forward(self, audio: Tensor) -> Tensor:
        """Encode.

        Args:
            audio: ``[B, N]`` in [-1, 1], N a multiple of ``hop_length``.

        Returns:
            Latent, ``[B, N / hop_length, D]``.
        """


class Decoder(nn.Module, ABC):
    """Turns a latent into audio.

    Attributes:
        hop_length: Samples per frame.
        latent_dim: Channels D of the latent.
    """

    hop_length: int
    latent_dim: int

    @abstractmethod
    def forward(self, latent: Tensor) -> Tensor:
        """Decode.

        Args:
            latent: ``[B, T, D]``.

        Returns:
            Audio, ``[B, T * hop_length]``, float32.
        """
