"""Speech recognisers that listen to what the systems say."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoProcessor, WhisperForConditionalGeneration

from modules.evaluation.pretrained import load_pretrained, pretrained_identity, quiet_transformers
from modules.evaluation.scorer import ScorerUnavailableError
from modules.evaluation.text import EnglishNormalizer


class Recognizer(nn.Module, ABC):
    """Turns speech into text.

    Attributes:
        sample_rate: Samples per second of the audio it is given, in Hz.
        normalizer: What both transcript and reference pass through before they are compared; there after :meth:`load`.
    """

    sample_rate: int
    normalizer: EnglishNormalizer

    @abstractmethod
    def load(self) -> None:
        """Fetch the model; raises ``ScorerUnavailableError`` if it cannot be had."""

    @abstractmethod
    def transcribe(self, audio: Sequence[Tensor]) -> list[str]:
        """Transcribe clips, each float32 mono ``[N_i]``; a clip's text does not depend on the clips beside it."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Say which model this is: at least ``name`` and ``revision``."""


def quiet_pieces(audio: Tensor, window: int) -> list[Tensor]:
    """Cut audio into pieces that each end in the quietest moment of the last third of a window.

    Args:
        audio: Mono, ``[N]``.
        window: Greatest length of a piece, in samples.

    Returns:
        The pieces in order, together the whole; none where there is no audio.
    """
    search, block = window // 3, max(1, window // 300)
    pieces = []
    while audio.shape[-1] > window:
        blocks = audio[window - search : window].unfold(0, block, block)
        quietest = int(blocks.square().mean(dim=-1).argmin())
        cut = window - search + quietest * block + block // 2
        pieces.append(audio[:cut])
        audio = audio[cut:]
    return [*pieces, audio] if audio.shape[-1] else pieces


class WhisperRecognizer(Recognizer):
    """Any Whisper of transformers, by hub id or local folder.

    Language and task are always stated: without them the multilingual models loop on short clips. The length of a
    transcript is capped by the clip's duration, far above what anybody can say in that time.

    Args:
        model: Hub id or local folder.
        revision: Commit, branch or tag on the hub.
        language: Language that is spoken.
        num_beams: Beams of the search; 1 is greedy.
        max_tokens_per_second: Cap on the transcript's length; English speech has about 4 tokens per second.
        half: Weights in float16, for GPUs.
        spellings: JSON file of British to American spellings, for a folder that does not bring ``normalizer.json``.
    """

    sample_rate = 16_000
    window_seconds = 30

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        language: str = "en",
        num_beams: int = 1,
        max_tokens_per_second: float = 10.0,
        half: bool = False,
        spellings: Path | None = None,
    ) -> None:
        super().__init__()
        self.name = model
        self.revision = revision
        self.language = language
        self.num_beams = num_beams
        self.max_tokens_per_second = max_tokens_per_second
        self.dtype = torch.float16 if half else torch.float32
        self.spellings = spellings

    def load(self) -> None:
        """Fetch model, feature extractor and tokenizer."""
        self.model: Any = load_pretrained(WhisperForConditionalGeneration, self.name, self.revision, self.dtype)
        try:
            self.processor = AutoProcessor.from_pretrained(self.name, revision=self.revision)
        except (OSError, ValueError) as error:
            raise ScorerUnavailableError(
                f"{self.name!r} has no feature extractor or tokenizer ({str(error).splitlines()[0]})",
                "save the processor beside the model",
            ) from error
        generation = self.model.generation_config
        self.multilingual = getattr(generation, "is_multilingual", True)
        if self.multilingual and f"<|{self.language}|>" not in (getattr(generation, "lang_to_id", None) or {}):
            raise ScorerUnavailableError(
                f"generation_config.json of {self.name!r} does not list the language {self.language!r}",
                "take that file from the OpenAI model of the same size, or set another language",
            )
        # A timestamp, which is not asked for, would send generation back to that time, and on noise for ever.
        first = getattr(generation, "no_timestamps_token_id", None)
        if first is not None:
            timestamps = range(first + 1, self.model.config.vocab_size)
            generation.suppress_tokens = sorted({*(generation.suppress_tokens or ()), *timestamps})
        if self.spellings is not None:
            self.normalizer = EnglishNormalizer.from_table(self.spellings)
        else:
            self.normalizer = EnglishNormalizer(self.processor.tokenizer.english_spelling_normalizer or {})

    def transcribe(self, audio: Sequence[Tensor]) -> list[str]:
        """Transcribe clips of any length; those over 30 s in pieces cut at their quietest points."""
        pieces = [self._windows(clip) for clip in audio]
        texts = iter(self._transcribe_windows([piece for clip in pieces for piece in clip]))
        return [" ".join(text for text in [next(texts) for _ in clip] if text) for clip in pieces]

    @torch.inference_mode()
    def _transcribe_windows(self, audio: list[Tensor]) -> list[str]:
        if not audio:
            return []
        features = self.processor.feature_extractor(
            [clip.float().cpu().numpy() for clip in audio], sampling_rate=self.sample_rate, return_tensors="pt"
        ).input_features
        caps = [10 + int(self.max_tokens_per_second * clip.shape[-1] / self.sample_rate) for clip in audio]
        # The decoder's positions also hold the four tokens that state language and task.
        room = self.model.config.max_target_positions - 8
        with quiet_transformers():
            tokens = self.model.generate(
                features.to(self.model.device, self.model.dtype),
                max_new_tokens=min(max(caps), room),
                num_beams=self.num_beams,
                do_sample=False,
                return_timestamps=False,
                **({"language": self.language, "task": "transcribe"} if self.multilingual else {}),
            )
        # A clip is not given more tokens because a longer one is beside it.
        said = [row[:cap] for row, cap in zip(tokens.tolist(), caps, strict=True)]
        texts = self.processor.tokenizer.batch_decode(said, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _windows(self, audio: Tensor) -> list[Tensor]:
        """Cut audio into windows the model can hear."""
        return quiet_pieces(audio, self.window_seconds * self.sample_rate)

    def identity(self) -> dict[str, Any]:
        """Say which model this is, and how it was run."""
        return {
            **pretrained_identity(self.model, self.name),
            "language": self.language,
            "num_beams": self.num_beams,
            "precision": str(self.dtype).removeprefix("torch."),
        }
