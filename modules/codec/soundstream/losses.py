"""Losses of the codec: spectral distances, hinge losses and feature matching."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.codec.soundstream.spectral import stft_frames


def mel_filters(num_mels: int, n_fft: int, sample_rate: int) -> Tensor:
    """Triangular filters, equally spaced on the mel scale 2595 log10(1 + f / 700), of height 1.

    Args:
        num_mels: M.
        n_fft: Samples per column.
        sample_rate: In Hz.

    Returns:
        ``[n_fft // 2 + 1, M]``.
    """
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, num_mels + 2) / 2595) - 1)
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0)


class MultiScaleMelLoss(nn.Module):
    """Distance of mel spectra at several window lengths.

    Source: SoundStream (2107.03312), equation 5: per column the L1 distance of the mel spectra plus sqrt(window / 2)
    times the L2 distance of their logarithms. Here both are means over columns and bands, and the window's factor is
    scaled to 1 for the longest window, so that the weights do not depend on the number of scales or bands.

    Args:
        sample_rate: In Hz.
        windows: Window lengths in samples; columns are a quarter window apart.
        num_mels: Bands, one number for all windows or one per window.
        linear_weight: Weight of the L1 distance of the mel spectra.
        log_weight: Weight of the L2 distance of their logarithms.
        window_weighting: Whether the factor sqrt(window / 2) applies; otherwise all windows weigh the same.
        floor: Smallest magnitude that counts.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        windows: Sequence[int] = (64, 128, 256, 512, 1024, 2048),
        num_mels: int | Sequence[int] = 64,
        linear_weight: float = 1.0,
        log_weight: float = 1.0,
        window_weighting: bool = True,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        bands = [num_mels] * len(windows) if isinstance(num_mels, int) else list(num_mels)
        if len(bands) != len(windows):
            raise ValueError(f"num_mels names {len(bands)} scales, windows {len(windows)}")
        self.windows, self.linear_weight, self.log_weight, self.floor = tuple(windows), linear_weight, log_weight, floor
        self.scale_weights = [math.sqrt(w / max(windows)) if window_weighting else 1.0 for w in windows]
        for window, count in zip(windows, bands, strict=True):
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)
            # The magnitude of a full-scale tone is window / 4; after division it is 1 at every scale.
            filters = mel_filters(count, window, sample_rate) * (4 / window)
            self.register_buffer(f"filters_{window}", filters, persistent=False)

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Measure the distance.

        Args:
            estimate: ``[B, N]``.
            target: ``[B, N]``.

        Returns:
            The loss, ``[]``.
        """
        # Half precision would round the logarithms of quiet bands.
        with torch.autocast(estimate.device.type, enabled=False):
            return self._distance(estimate.float(), target.float())

    def _distance(self, estimate: Tensor, target: Tensor) -> Tensor:
        total = estimate.new_zeros(())
        for window, weight in zip(self.windows, self.scale_weights, strict=True):
            mel, mel_target = self._mel(estimate, window), self._mel(target, window)
            distance = mel.add(self.floor).log() - mel_target.add(self.floor).log()
            # The root of the mean square over bands: the L2 norm of a column, free of the number of bands.
            log_distance = distance.square().mean(-1).add(1e-8).sqrt().mean()
            total = total + self.linear_weight * F.l1_loss(mel, mel_target) + weight * self.log_weight * log_distance
        return total / len(self.windows)

    def _mel(self, audio: Tensor, window: int) -> Tensor:
        hop = window // 4
        audio = F.pad(audio, (0, -audio.shape[-1] % hop))
        spectrum = stft_frames(audio, self.get_buffer(f"window_{window}"), hop)
        return magnitude(spectrum) @ self.get_buffer(f"filters_{window}")


class ComplexSpectralLoss(nn.Module):
    """L1 distance of power-compressed spectra, of the magnitudes and of the complex values.

    Compression weighs weak components as the ear does; the complex part teaches phase.

    Args:
        windows: Window lengths in samples; columns are a quarter window apart.
        compression: Exponent of the magnitudes.
        complex_weight: Share of the complex distance; the rest is that of the magnitudes.
    """

    def __init__(
        self, windows: Sequence[int] = (256, 1024), compression: float = 0.3, complex_weight: float = 0.5
    ) -> None:
        super().__init__()
        self.windows, self.compression, self.complex_weight = tuple(windows), compression, complex_weight
        for window in windows:
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Measure the distance.

        Args:
            estimate: ``[B, N]``.
            target: ``[B, N]``.

        Returns:
            The loss, ``[]``.
        """
        total = estimate.new_zeros(())
        for window in self.windows:
            first, first_magnitude = self._compress(estimate, window)
            second, second_magnitude = self._compress(target, window)
            complex_distance = F.l1_loss(torch.view_as_real(first), torch.view_as_real(second))
            magnitude_distance = F.l1_loss(first_magnitude, second_magnitude)
            total = total + self.complex_weight * complex_distance + (1 - self.complex_weight) * magnitude_distance
        return total / len(self.windows)

    def _compress(self, audio: Tensor, window: int) -> tuple[Tensor, Tensor]:
        hop = window // 4
        audio = F.pad(audio, (0, -audio.shape[-1] % hop))
        spectrum = stft_frames(audio, self.get_buffer(f"window_{window}"), hop)
        # A power by way of the logarithm: several times faster than pow on a CPU.
        log_size = magnitude(spectrum).log()
        return spectrum * (log_size * (self.compression - 1)).exp(), (log_size * self.compression).exp()


def magnitude(spectrum: Tensor) -> Tensor:
    """Magnitude with a finite gradient at zero."""
    return torch.view_as_real(spectrum).square().sum(-1).add(1e-6).sqrt()


def discriminator_hinge_loss(real: Sequence[Tensor], generated: Sequence[Tensor]) -> Tensor:
    """Hinge loss of the discriminators (SoundStream, equation 1), averaged over them and over time.

    Args:
        real: Logits of real audio, any shape, one tensor per discriminator.
        generated: Logits of decoded audio.

    Returns:
        The loss, ``[]``.
    """
    losses = [F.relu(1 - r).mean() + F.relu(1 + g).mean() for r, g in zip(real, generated, strict=True)]
    return torch.stack(losses).mean()


def generator_hinge_loss(generated: Sequence[Tensor]) -> Tensor:
    """Hinge loss of the codec (SoundStream, equation 2), averaged over discriminators and time.

    Args:
        generated: Logits of decoded audio, any shape, one tensor per discriminator.

    Returns:
        The loss, ``[]``.
    """
    return torch.stack([F.relu(1 - g).mean() for g in generated]).mean()


def feature_matching_loss(real: Sequence[Sequence[Tensor]], generated: Sequence[Sequence[Tensor]]) -> Tensor:
    """L1 distance of the discriminators' inner layers (SoundStream, equation 3), relative to their size.

    Division by the mean size of the real features lets one weight serve layers of any scale.

    Args:
        real: Per discriminator, per layer, the features of real audio.
        generated: The same of decoded audio.

    Returns:
        The loss, ``[]``.
    """
    losses = [
        F.l1_loss(g.float(), r.detach().float()) / r.detach().float().abs().mean().clamp_min(1e-5)
        for layers, layers_generated in zip(real, generated, strict=True)
        for r, g in zip(layers, layers_generated, strict=True)
    ]
    return torch.stack(losses).mean()
