"""What goes into a speech encoder, computed on the device and in batches.

Each class does what one feature extractor of transformers does to a single utterance, with the settings found in it,
but in torch: the extractors run one clip at a time in numpy, at about 300 times real time, and would be the slowest
part of tokenizing a large corpus on a GPU.
"""

from abc import ABC, abstractmethod
from math import prod
from typing import Any

import torch
from torch import Tensor, nn


class FrontEnd(nn.Module, ABC):
    """Audio ``[B, N]`` in, the encoder's input out; knows how many frames the encoder makes of it.

    Attributes:
        hop_length: Samples per frame of the encoder.
    """

    hop_length: int

    @abstractmethod
    def num_frames(self, num_samples: int) -> int:
        """Number of frames that the encoder makes of ``num_samples`` samples."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What, beside the encoder's weights, its features depend on; JSON-serialisable."""


class Waveform(FrontEnd):
    """The samples themselves, standardised per utterance where the model wants it (wav2vec 2.0, HuBERT, WavLM).

    The convolutions of the encoder make ``T = floor((T' - kernel) / stride) + 1`` frames of T' per layer: with the
    usual seven, ``floor((N - 400) / 320) + 1``, which is 49 for the first second and 50 for every further one.

    Args:
        extractor: The model's ``Wav2Vec2FeatureExtractor``.
        config: The model's configuration.
    """

    def __init__(self, extractor: Any, config: Any) -> None:
        super().__init__()
        self.normalize = bool(extractor.do_normalize)
        self.kernels_and_strides = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.hop_length = prod(config.conv_stride)

    def num_frames(self, num_samples: int) -> int:
        """Frames that are left after the encoder's convolutions."""
        for kernel, stride in self.kernels_and_strides:
            num_samples = (num_samples - kernel) // stride + 1 if num_samples >= kernel else 0
        return num_samples

    def forward(self, audio: Tensor) -> Tensor:
        """``[B, N]`` to ``[B, N]``."""
        if not self.normalize:
            return audio
        centred = audio - audio.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()

    def settings(self) -> dict[str, Any]:
        """Whether the audio is standardised."""
        return {"normalize": self.normalize}


class KaldiFilterbank(FrontEnd):
    """Kaldi's log-mel filterbank, standardised per band and utterance, frames stacked in pairs (w2v-BERT 2.0).

    ``T = floor((1 + floor((N - 400) / 160)) / 2)``: 49 for one second, 50 for every further one. An odd last frame is
    dropped; the extractor would pad it and mask it out, which leaves the same frames.

    Args:
        extractor: The model's ``SeamlessM4TFeatureExtractor``.
        config: The model's configuration.
    """

    # Fixed inside the extractor, not settings of it.
    FRAME_LENGTH, FRAME_SHIFT, FFT_LENGTH, PREEMPHASIS = 400, 160, 512, 0.97
    ENERGY_FLOOR = 1.192092955078125e-07

    def __init__(self, extractor: Any, config: Any) -> None:
        super().__init__()
        self.stride = int(extractor.stride)
        self.hop_length = self.FRAME_SHIFT * self.stride
        self.filters: Tensor
        self.register_buffer("filters", torch.from_numpy(extractor.mel_filters).float(), persistent=False)
        self.window: Tensor
        self.register_buffer("window", torch.from_numpy(extractor.window).float(), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Whole stacks of filterbank frames."""
        if num_samples < self.FRAME_LENGTH:
            return 0
        return ((num_samples - self.FRAME_LENGTH) // self.FRAME_SHIFT + 1) // self.stride

    def forward(self, audio: Tensor) -> Tensor:
        """``[B, N]`` to ``[B, T, stride * bands]``."""
        frames = (audio * 2**15).unfold(1, self.FRAME_LENGTH, self.FRAME_SHIFT)  # as if of 16-bit integers
        frames = frames - frames.mean(dim=2, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        frames = (frames - self.PREEMPHASIS * previous) * self.window
        energies = torch.fft.rfft(frames, n=self.FFT_LENGTH).abs().square() @ self.filters
        bands = energies.clamp_min(self.ENERGY_FLOOR).log()
        # The statistics include an odd last frame, as the extractor's do.
        deviation = (bands.var(dim=1, keepdim=True) + 1e-7).sqrt()
        bands = (bands - bands.mean(dim=1, keepdim=True)) / deviation
        num_stacks = bands.shape[1] // self.stride
        return bands[:, : num_stacks * self.stride].reshape(len(audio), num_stacks, -1)

    def settings(self) -> dict[str, Any]:
        """How the bands are laid out."""
        return {"bands": self.filters.shape[1], "stride": self.stride}


class WhisperLogMel(FrontEnd):
    """Whisper's log-mel spectrum of the audio as it is, not padded to 30 s.

    Half as many frames as mel frames: ``T = ceil(floor(N / 160) / 2)``, 50 for every second.

    Args:
        extractor: The model's ``WhisperFeatureExtractor``.
        config: The model's configuration.
    """

    def __init__(self, extractor: Any, config: Any) -> None:
        super().__init__()
        self.fft_length = int(extractor.n_fft)
        self.frame_shift = int(extractor.hop_length)
        self.hop_length = 2 * self.frame_shift  # the second convolution of the encoder has stride 2
        self.filters: Tensor
        self.register_buffer("filters", torch.from_numpy(extractor.mel_filters).float(), persistent=False)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(self.fft_length), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Half the mel frames, rounded up."""
        # The reflection at the edges needs more samples than half a window.
        return (num_samples // self.frame_shift + 1) // 2 if num_samples > self.fft_length // 2 else 0

    def forward(self, audio: Tensor) -> Tensor:
        """``[B, N]`` to ``[B, bands, floor(N / 160)]``."""
        spectrum = torch.stft(audio, self.fft_length, self.frame_shift, window=self.window, return_complex=True)
        energies = self.filters.T @ spectrum[..., :-1].abs().square()
        bands = energies.clamp_min(1e-10).log10()
        loudest = bands.amax(dim=(1, 2), keepdim=True)
        return (bands.maximum(loudest - 8.0) + 4.0) / 4.0

    def settings(self) -> dict[str, Any]:
        """How the bands are laid out, and that nothing is padded."""
        return {"bands": self.filters.shape[1], "padded": False}
