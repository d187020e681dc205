"""SoundStream's convolutional encoder and decoder (2107.03312, sections III-A and III-B): causal, ELU, no norms."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from modules.codec.soundstream.networks import Decoder, Encoder


class CausalConv1d(nn.Conv1d):
    """Convolution that sees no sample after the ones it stands for; N samples give N / stride."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``[B, C, N]``."""
        span = (self.kernel_size[0] - 1) * self.dilation[0] + 1
        return super().forward(F.pad(input, (span - self.stride[0], 0)))


class CausalConvTranspose1d(nn.ConvTranspose1d):
    """Transposed convolution of kernel 2 x stride without the tail: N frames give N * stride samples."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample ``[B, C, N]``."""
        return super().forward(input, output_size)[..., : input.shape[-1] * self.stride[0]]


class ResidualUnit(nn.Module):
    """A dilated convolution of kernel 7 and a pointwise one, added to the input.

    Args:
        channels: Channels.
        dilation: Samples between the taps.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilated = CausalConv1d(channels, channels, 7, dilation=dilation)
        self.pointwise = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit to ``[B, C, N]``."""
        return x + self.pointwise(F.elu(self.dilated(F.elu(x))))


class ConvolutionalEncoder(Encoder):
    """SoundStream's encoder: blocks of three residual units and a strided convolution that doubles the channels.

    Args:
        latent_dim: Channels of the latent.
        channels: Width of the first layer.
        strides: Of the blocks; their product is the hop length.
        dilations: Of the residual units of a block.
    """

    def __init__(
        self,
        latent_dim: int = 512,
        channels: int = 32,
        strides: Sequence[int] = (2, 4, 5, 8),
        dilations: Sequence[int] = (1, 3, 9),
    ) -> None:
        super().__init__()
        self.latent_dim, self.channels = latent_dim, channels
        self.strides, self.dilations = list(strides), list(dilations)
        self.hop_length = math.prod(strides)
        layers: list[nn.Module] = [CausalConv1d(1, channels, 7)]
        for stride in strides:
            layers += [ResidualUnit(channels, dilation) for dilation in dilations]
            layers += [nn.ELU(), CausalConv1d(channels, 2 * channels, 2 * stride, stride=stride)]
            channels *= 2
        self.layers = nn.Sequential(*layers, nn.ELU(), CausalConv1d(channels, latent_dim, 3))

    def forward(self, audio: Tensor) -> Tensor:
        """Encode.

        Args:
            audio: ``[B, N]`` in [-1, 1], N a multiple of ``hop_length``.

        Returns:
            Latent, ``[B, N / hop_length, latent_dim]``.
        """
        return self.layers(audio[:, None]).transpose(1, 2)


class ConvolutionalDecoder(Decoder):
    """SoundStream's decoder, the encoder's mirror image.

    Args:
        latent_dim: Channels of the latent.
        channels: Width of the last layer.
        strides: Of the blocks; their product is the hop length.
        dilations: Of the residual units of a block.
    """

    def __init__(
        self,
        latent_dim: int = 512,
        channels: int = 32,
        strides: Sequence[int] = (8, 5, 4, 2),
        dilations: Sequence[int] = (1, 3, 9),
    ) -> None:
        super().__init__()
        self.latent_dim, self.channels = latent_dim, channels
        self.strides, self.dilations = list(strides), list(dilations)
        self.hop_length = math.prod(strides)
        width = channels * 2 ** len(strides)
        layers: list[nn.Module] = [CausalConv1d(latent_dim, width, 7)]
        for stride in strides:
            layers += [nn.ELU(), CausalConvTranspose1d(width, width // 2, 2 * stride, stride=stride)]
            width //= 2
            layers += [ResidualUnit(width, dilation) for dilation in dilations]
        self.layers = nn.Sequential(*layers, nn.ELU(), CausalConv1d(width, 1, 7))

    def forward(self, latent: Tensor) -> Tensor:
        """Decode.

        Args:
            latent: ``[B, T, latent_dim]``.

        Returns:
            Audio, ``[B, T * hop_length]``, float32.
        """
        return self.layers(latent.transpose(1, 2))[:, 0].float()
