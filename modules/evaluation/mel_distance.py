"""How far is the generated sound from the recording, frame by frame?"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from modules.evaluation.items import EvaluationItem
from modules.evaluation.scorer import Scorer, Scores
from modules.measure import Measure

FLOOR = 1e-5  # amplitude, -100 dB: silence below it counts as equal


class MelDistance(Scorer):
    """Mean absolute difference of log-mel spectrograms to the original, in decibels; needs no model.

    Semantic tokens are aligned in time, so a rendering of an utterance's own tokens can be compared with its recording
    frame by frame. For a codec this is the usual reconstruction distance. For a generator it also falls with every
    difference of voice and room: another speaker saying the same words is far away. Prompts are not scored.

    Args:
        sample_rate: Samples per second, in Hz.
        num_mels: Mel bands.
        window_seconds: Length of a frame.
        hop_seconds: Distance of two frames.
        name: Key of the scorer in the results.
    """

    filters: Tensor
    window: Tensor

    def __init__(
        self,
        sample_rate: int = 16_000,
        num_mels: int = 80,
        window_seconds: float = 0.064,
        hop_seconds: float = 0.016,
        name: str = "mel",
    ) -> None:
        super().__init__()
        self.name = name
        self.sample_rate = sample_rate
        self.num_mels = num_mels
        self.n_fft = round(window_seconds * sample_rate)
        self.hop = round(hop_seconds * sample_rate)
        filters = mel_filter_bank(self.n_fft // 2 + 1, num_mels, 0.0, sample_rate / 2, sample_rate, norm="slaney")
        # Slaney's filters have unit area; brought to unit height they keep the amplitude of what falls into a band.
        filters = torch.from_numpy(filters).float()
        self.register_buffer("filters", filters / filters.amax(dim=0), persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    @property
    def measures(self) -> Sequence[Measure]:
        """The distance."""
        return (Measure("mel_distance", "Mel distance dB", "mel_distance", higher_is_better=False),)

    def spectrogram(self, audio: Tensor) -> Tensor:
        """Mel spectrogram of audio ``[N]`` in decibels, ``[num_mels, 1 + N // hop]``."""
        spectrum = (
            torch.stft(
                audio, self.n_fft, self.hop, window=self.window, center=True, pad_mode="constant", return_complex=True
            ).abs()
            / self.window.sum()
        )
        return 20 * (self.filters.T @ spectrum).clamp(min=FLOOR).log10()

    @torch.inference_mode()
    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance over the time both it and the original last.

        Returns:
            ``mel_distance``; 0 for the recording itself.
        """
        samples = min(item.continuation.numel(), item.original_continuation.numel())
        audio, original = item.continuation[:samples], item.original_continuation[:samples]
        if samples <= 0:
            return Scores({"mel_distance": float("nan")}, {"mel_distance": "no audio after the prompt"})
        distance = (self.spectrogram(audio) - self.spectrogram(original)).abs().mean()
        return Scores({"mel_distance": float(distance)})

    def identity(self) -> dict[str, Any]:
        """The settings."""
        settings = {"num_mels": self.num_mels, "n_fft": self.n_fft, "hop": self.hop, "sample_rate": self.sample_rate}
        return {"name": "log-mel L1", "revision": "1", **settings}
