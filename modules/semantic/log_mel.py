"""Speech features that need no weights."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from modules.semantic.features import SpeechFeatures

FLOOR = 1e-6  # of a band's energy, that of noise at about -60 dBFS: fainter sound counts as silence


class LogMelFeatures(SpeechFeatures):
    """Log-mel spectrum of a few neighbouring frames.

    Far from the phonetic clarity of a self-supervised encoder, but needs no weights and next to no time. Frame t is
    centred on sample ``(t + 0.5) * hop_length``, the middle of a codec's frame of the same hop, and
    ``T = ceil(N / hop_length)``: as many frames as the codec's.

    Args:
        sample_rate: Samples per second, in Hz.
        hop_length: Samples per frame.
        window_length: Samples seen by one spectrum.
        num_mels: Mel bands.
        context: Neighbours on either side that are stacked onto each frame; the edges repeat.
        normalize: Subtract each band's mean over the utterance, which removes the colour of voice and microphone.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        hop_length: int = 320,
        window_length: int = 640,
        num_mels: int = 24,
        context: int = 3,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        if window_length < hop_length:
            raise ValueError(f"a window of {window_length} samples leaves gaps between frames {hop_length} apart")
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.window_length = window_length
        self.num_mels = num_mels
        self.context = context
        self.normalize = normalize
        self.dim = num_mels * (2 * context + 1)
        filters = mel_filter_bank(
            num_frequency_bins=window_length // 2 + 1,
            num_mel_filters=num_mels,
            min_frequency=0.0,
            max_frequency=sample_rate / 2,
            sampling_rate=sample_rate,
            mel_scale="htk",
        )
        self.filters: Tensor
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """``ceil(num_samples / hop_length)``."""
        return math.ceil(num_samples / self.hop_length)

    def extract(self, audio: Tensor) -> Tensor:
        """Compute the stacked log-mel spectrum: ``[B, N]`` to ``[B, T, num_mels * (2 * context + 1)]``."""
        num_frames = self.num_frames(audio.shape[1])
        before = (self.window_length - self.hop_length) // 2
        after = (num_frames - 1) * self.hop_length + self.window_length - before - audio.shape[1]
        windows = F.pad(audio, (before, after)).unfold(1, self.window_length, self.hop_length)  # [B, T, window]
        energies = torch.fft.rfft(windows * self.window).abs().square() / self.window.square().sum()
        mels = (energies @ self.filters).clamp_min(FLOOR).log()  # [B, T, num_mels]
        if self.normalize:
            mels = mels - mels.mean(dim=1, keepdim=True)
        edges = F.pad(mels.transpose(1, 2), (self.context, self.context), mode="replicate")
        return edges.unfold(2, 2 * self.context + 1, 1).permute(0, 2, 3, 1).flatten(2)

    def identity(self) -> dict[str, Any]:
        """All settings: there are no weights."""
        return {"name": "log-mel", "revision": 1, **self.init_args()}

    def init_args(self) -> dict[str, Any]:
        """Arguments that construct these features again."""
        return {
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "window_length": self.window_length,
            "num_mels": self.num_mels,
            "context": self.context,
            "normalize": self.normalize,
        }
