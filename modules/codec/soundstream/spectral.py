"""The light networks: spectrum in, ConvNeXt at the frame rate, spectrum out.

All heavy work happens at 50 frames per second, so that one CPU core decodes many times faster than real time. The idea
of predicting a spectrum and inverting it is Vocos' (2306.00814); here the encoder is of the same kind.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.codec.soundstream.convnext import ConvNeXtBlock
from modules.codec.soundstream.networks import Decoder, Encoder
from modules.layers import Linear


def stft_frames(audio: Tensor, window: Tensor, hop_length: int) -> Tensor:
    """Short-time spectrum with exactly one column per hop.

    Args:
        audio: ``[B, N]``, N a multiple of ``hop_length``.
        window: ``[n_fft]``.
        hop_length: Samples between columns.

    Returns:
        Complex, ``[B, N / hop_length, n_fft // 2 + 1]``; column t is centred on the middle of hop t.
    """
    n_fft = window.numel()
    padding = (n_fft - hop_length) // 2
    frames = F.pad(audio, (padding, n_fft - hop_length - padding)).unfold(-1, n_fft, hop_length)
    return torch.fft.rfft(frames * window, dim=-1)


def overlap_add(spectrum: Tensor, window: Tensor, hop_length: int) -> Tensor:
    """Invert :func:`stft_frames` (least squares, Griffin and Lim 1984, equation 6).

    Args:
        spectrum: Complex, ``[B, K, n_fft // 2 + 1]``.
        window: ``[n_fft]``.
        hop_length: Samples between columns.

    Returns:
        Audio, ``[B, K * hop_length]``.
    """
    n_fft = window.numel()
    columns = spectrum.shape[1]
    padding = (n_fft - hop_length) // 2
    length = (columns - 1) * hop_length + n_fft
    frames = torch.fft.irfft(spectrum, n=n_fft, dim=-1) * window

    def add(values: Tensor) -> Tensor:
        fold = F.fold(values.transpose(1, 2), (1, length), (1, n_fft), stride=(1, hop_length))
        return fold[:, 0, 0, padding : padding + columns * hop_length]

    energy = add(window.square().expand(1, columns, n_fft))
    return add(frames) / energy.clamp_min(1e-8)


class SpectralEncoder(Encoder):
    """Encode audio from its short-time spectrum: log magnitude and power-compressed complex values.

    Not causal. ``hop_length / stft_hop`` columns of the spectrum make one frame.

    Args:
        latent_dim: Channels of the latent.
        dim: Width of the ConvNeXt blocks.
        num_blocks: ConvNeXt blocks.
        hop_length: Samples per frame.
        n_fft: Samples per column of the spectrum.
        stft_hop: Samples between columns; divides ``hop_length``.
        compression: Exponent of the magnitude of the complex features.
    """

    window: Tensor

    def __init__(
        self,
        latent_dim: int = 64,
        dim: int = 256,
        num_blocks: int = 6,
        hop_length: int = 320,
        n_fft: int = 640,
        stft_hop: int = 160,
        compression: float = 0.3,
    ) -> None:
        super().__init__()
        if hop_length % stft_hop:
            raise ValueError(f"stft_hop {stft_hop} does not divide hop_length {hop_length}")
        self.latent_dim, self.dim, self.num_blocks = latent_dim, dim, num_blocks
        self.hop_length, self.n_fft, self.stft_hop, self.compression = hop_length, n_fft, stft_hop, compression
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.embed = Linear(hop_length // stft_hop * 3 * (n_fft // 2 + 1), dim)
        self.norm = nn.LayerNorm(dim)
        self.blocks = nn.Sequential(*[ConvNeXtBlock(dim) for _ in range(num_blocks)])
        self.final_norm = nn.LayerNorm(dim)
        self.project = Linear(dim, latent_dim)

    def forward(self, audio: Tensor) -> Tensor:
        """Encode.

        Args:
            audio: ``[B, N]`` in [-1, 1], N a multiple of ``hop_length``.

        Returns:
            Latent, ``[B, N / hop_length, latent_dim]``.
        """
        with torch.autocast(audio.device.type, enabled=False):
            spectrum = stft_frames(audio.float(), self.window, self.stft_hop)
            log_magnitude = spectrum.abs().clamp_min(1e-5).log()
            gain = (log_magnitude * (self.compression - 1)).exp()
            compressed = torch.view_as_real(spectrum * gain).flatten(-2)
            # Log magnitudes of speech lie around -2 with a spread of about 3 in natural units.
            features = torch.cat([(log_magnitude + 2) / 3, compressed], dim=-1)
        frames = features.reshape(audio.shape[0], audio.shape[1] // self.hop_length, -1)
        x = self.norm(self.embed(frames))
        return self.project(self.final_norm(self.blocks(x)))


class SpectralDecoder(Decoder):
    """Decode a latent to the magnitudes and phases of a short-time spectrum, and invert it.

    Phase is predicted as the direction of a vector, which has no jump at plus or minus pi.

    Args:
        latent_dim: Channels of the latent.
        dim: Width of the ConvNeXt blocks.
        num_blocks: ConvNeXt blocks.
        hop_length: Samples per frame.
        n_fft: Samples per column of the spectrum.
        stft_hop: Samples between columns; divides ``hop_length``.
    """

    window: Tensor

    def __init__(
        self,
        latent_dim: int = 64,
        dim: int = 384,
        num_blocks: int = 8,
        hop_length: int = 320,
        n_fft: int = 640,
        stft_hop: int = 160,
    ) -> None:
        super().__init__()
        if hop_length % stft_hop:
            raise ValueError(f"stft_hop {stft_hop} does not divide hop_length {hop_length}")
        self.latent_dim, self.dim, self.num_blocks = latent_dim, dim, num_blocks
        self.hop_length, self.n_fft, self.stft_hop = hop_length, n_fft, stft_hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.embed = nn.Conv1d(latent_dim, dim, 7, padding=3)
        self.norm = nn.LayerNorm(dim)
        self.blocks = nn.Sequential(*[ConvNeXtBlock(dim) for _ in range(num_blocks)])
        self.final_norm = nn.LayerNorm(dim)
        self.head = Linear(dim, hop_length // stft_hop * 3 * (n_fft // 2 + 1))

    def forward(self, latent: Tensor) -> Tensor:
        """Decode.

        Args:
            latent: ``[B, T, latent_dim]``.

        Returns:
            Audio, ``[B, T * hop_length]``, float32.
        """
        x = self.norm(self.embed(latent.transpose(1, 2)).transpose(1, 2))
        x = self.head(self.final_norm(self.blocks(x)))
        with torch.autocast(x.device.type, enabled=False):
            columns = x.float().reshape(x.shape[0], -1, 3, self.n_fft // 2 + 1)
            log_magnitude, real, imaginary = columns.unbind(2)
            # Full scale is a magnitude of n_fft / 4; the limit keeps an early step from overflowing.
            magnitude = log_magnitude.clamp(max=7.0).exp()
            scale = magnitude * torch.rsqrt(real.square() + imaginary.square() + 1e-6)
            spectrum = torch.complex(scale * real, scale * imaginary)
            return overlap_add(spectrum, self.window, self.stft_hop)
