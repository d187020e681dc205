"""Discriminators: of the waveform at several rates and of complex spectra.

Every discriminator returns its verdicts as a list with one entry per part: the features of its inner layers and the
logits, both of any shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.codec.soundstream.losses import magnitude
from modules.codec.soundstream.spectral import stft_frames


class Verdict(NamedTuple):
    """What one discriminator makes of a batch."""

    features: list[Tensor]  # inner layers, for feature matching
    logits: Tensor  # positive: real


class Discriminator(nn.Module, ABC):
    """Judges audio ``[B, N]`` by one or several networks."""

    @abstractmethod
    def forward(self, audio: Tensor) -> list[Verdict]:
        """Judge.

        Args:
            audio: ``[B, N]``.

        Returns:
            One verdict per network.
        """


class DiscriminatorSet(Discriminator):
    """Several discriminators as one.

    Args:
        members: The discriminators.
    """

    def __init__(self, members: list[Discriminator]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, audio: Tensor) -> list[Verdict]:
        """Collect the verdicts of all members."""
        return [verdict for member in self.members for verdict in member(audio)]


class WaveformDiscriminator(Discriminator):
    """MelGAN's multi-scale discriminator: one network each on the audio at 1, 1/2, 1/4 ... of its rate.

    Source: SoundStream (2107.03312), section III-E; layers of MelGAN (1910.06711), appendix.

    Args:
        num_scales: Networks.
        base_channels: Width of the first layer.
        max_channels: Width the layers grow to.
    """

    def __init__(self, num_scales: int = 3, base_channels: int = 16, max_channels: int = 1024) -> None:
        super().__init__()
        self.scales = nn.ModuleList(self._network(base_channels, max_channels) for _ in range(num_scales))

    @staticmethod
    def _network(base: int, most: int) -> nn.ModuleList:
        layers = [nn.Conv1d(1, base, 15, padding=7)]
        width = base
        for _ in range(4):
            wider = min(4 * width, most)
            layers.append(nn.Conv1d(width, wider, 41, stride=4, padding=20, groups=max(width // 4, 1)))
            width = wider
        layers += [nn.Conv1d(width, width, 5, padding=2), nn.Conv1d(width, 1, 3, padding=1)]
        return nn.ModuleList(layers)

    def forward(self, audio: Tensor) -> list[Verdict]:
        """Judge the audio at every rate."""
        x = audio[:, None]
        verdicts = []
        for scale, network in enumerate(self.scales):
            if scale:
                x = F.avg_pool1d(x, 4, stride=2, padding=1)
            verdicts.append(run(network, x))
        return verdicts


class STFTDiscriminator(Discriminator):
    """SoundStream's discriminator of the complex spectrum (2107.03312, section III-E, figure 4).

    Args:
        n_fft: Window in samples.
        hop_length: Samples between columns.
        channels: Width of the first layer.
    """

    window: Tensor

    def __init__(self, n_fft: int = 1024, hop_length: int = 256, channels: int = 32) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        layers: list[nn.Module] = [nn.Conv2d(2, channels, 7, padding=3)]
        width, bins = channels, n_fft // 2
        for multiplier, stride in [(2, 1), (2, 2), (1, 1), (2, 2), (1, 1), (2, 2)]:
            layers.append(_SpectralResidualUnit(width, width * multiplier, (stride, 2)))
            width, bins = width * multiplier, bins // 2
        layers.append(nn.Conv2d(width, 1, (1, bins)))
        self.layers = nn.ModuleList(layers)

    def forward(self, audio: Tensor) -> list[Verdict]:
        """Judge the spectrum, all bins but the Nyquist one."""
        audio = F.pad(audio, (0, -audio.shape[-1] % self.hop_length))
        spectrum = stft_frames(audio, self.window, self.hop_length)[..., :-1]
        return [run(self.layers, torch.view_as_real(spectrum).permute(0, 3, 1, 2))]


class _SpectralResidualUnit(nn.Module):
    """Two convolutions, the second strided, beside a strided pointwise one."""

    def __init__(self, channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        kernel = (stride[0] + 2, stride[1] + 2)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, out_channels, kernel, stride=stride)
        self.skip = nn.Conv2d(channels, out_channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        # One column more where the stride does not divide their number; the bins always divide.
        padding = (1, 1, 1, 1 + -x.shape[2] % self.second.stride[0])
        return self.second(F.pad(F.elu(self.first(x)), padding)) + self.skip(x)


class SpectralPatchDiscriminator(Discriminator):
    """Light discriminators of power-compressed complex spectra at several resolutions.

    The first layer takes patches of 8 bins by 4 columns, so that a step costs little on a CPU.

    Args:
        windows: Windows in samples, one network each; columns are a quarter window apart.
        channels: Width of the first layer; later ones have twice as many.
        compression: Exponent of the magnitudes.
    """

    def __init__(self, windows: Sequence[int] = (256, 512, 1024), channels: int = 32, compression: float = 0.3) -> None:
        super().__init__()
        self.windows, self.compression = tuple(windows), compression
        for window in windows:
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)
        self.networks = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Conv2d(3, channels, (4, 8), stride=(2, 4), padding=(1, 2)),
                    nn.Conv2d(channels, 2 * channels, 3, stride=(1, 2), padding=1),
                    nn.Conv2d(2 * channels, 2 * channels, 3, stride=(1, 2), padding=1),
                    nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
                    nn.Conv2d(2 * channels, 1, 3, padding=1),
                ]
            )
            for _ in windows
        )

    def forward(self, audio: Tensor) -> list[Verdict]:
        """Judge the spectra at all resolutions."""
        verdicts = []
        for window, network in zip(self.windows, self.networks, strict=True):
            hop = window // 4
            padded = F.pad(audio, (0, -audio.shape[-1] % hop))
            spectrum = stft_frames(padded, self.get_buffer(f"window_{window}"), hop)
            log_size = magnitude(spectrum).log()
            compressed = torch.view_as_real(spectrum * (log_size * (self.compression - 1)).exp()).permute(0, 3, 1, 2)
            size = (log_size * self.compression).exp()[:, None]
            verdicts.append(run(network, torch.cat([compressed, size], dim=1)))
        return verdicts


def run(network: nn.Module, x: Tensor) -> Verdict:
    """Apply layers with leaky rectifiers between them and keep what lies between.

    Args:
        network: Holds the layers, in order; the last gives the logits.
        x: Their input.

    Returns:
        The verdict.
    """
    *layers, last = network.children()
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), 0.2)
        features.append(x)
    return Verdict(features, last(x).float())
