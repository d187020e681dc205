"""Recognisers trained with CTC: wav2vec 2.0, HuBERT, WavLM, w2v-BERT."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

from modules.evaluation.pretrained import load_pretrained, pretrained_identity, quiet_transformers
from modules.evaluation.recognition import Recognizer, quiet_pieces
from modules.evaluation.scorer import ScorerUnavailableError
from modules.evaluation.text import EnglishNormalizer


class CtcRecognizer(Recognizer):
    """Any recogniser of transformers with a CTC head, by hub id or local folder; greedy, without a language model.

    It cannot invent fluent text as Whisper does on noise, and so punishes unclear speech harder. Clips go through it
    one by one: its convolutions would let a clip's text depend on padding.

    Args:
        model: Hub id or local folder, such as ``facebook/hubert-large-ls960-ft``.
        revision: Commit, branch or tag on the hub.
        spellings: JSON file of British to American spellings, as ``normalizer.json`` beside a published Whisper.
        max_seconds: Longer audio is cut at its quietest points, to bound the memory.
    """

    sample_rate = 16_000

    def __init__(
        self, model: str, revision: str | None = None, spellings: Path | None = None, max_seconds: float = 30.0
    ) -> None:
        super().__init__()
        self.name = model
        self.revision = revision
        self.max_seconds = max_seconds
        self.normalizer = EnglishNormalizer({}) if spellings is None else EnglishNormalizer.from_table(spellings)

    def load(self) -> None:
        """Fetch model, feature extractor and tokenizer."""
        self.model: Any = load_pretrained(AutoModelForCTC, self.name, self.revision)
        try:
            with quiet_transformers():
                self.feature_extractor = AutoFeatureExtractor.from_pretrained(self.name, revision=self.revision)
                self.tokenizer: Any = AutoTokenizer.from_pretrained(self.name, revision=self.revision)
        except (OSError, ValueError, KeyError) as error:
            raise ScorerUnavailableError(
                f"{self.name!r} has no feature extractor or tokenizer ({str(error).splitlines()[0]})",
                "save the processor beside the model",
            ) from error
        if self.feature_extractor.sampling_rate != self.sample_rate:
            rate = self.feature_extractor.sampling_rate
            raise ScorerUnavailableError(f"{self.name!r} listens at {rate} Hz", "name a model for 16000 Hz")

    def transcribe(self, audio: Sequence[Tensor]) -> list[str]:
        """Transcribe clips of any length; what is shorter than one frame has an empty transcript."""
        return [" ".join(filter(None, map(self._hear, quiet_pieces(clip, self._window)))) for clip in audio]

    @property
    def _window(self) -> int:
        return int(self.max_seconds * self.sample_rate)

    @torch.inference_mode()
    def _hear(self, audio: Tensor) -> str:
        if audio.numel() < 0.05 * self.sample_rate:  # a few frames: nothing can be said in them
            return ""
        inputs = self.feature_extractor(
            audio.float().cpu().numpy(), sampling_rate=self.sample_rate, return_tensors="pt"
        )
        logits = self.model(**{key: value.to(self.model.device) for key, value in inputs.items()}).logits
        return self.tokenizer.decode(logits[0].argmax(dim=-1), skip_special_tokens=True).strip()

    def identity(self) -> dict[str, Any]:
        """Say which model this is, and how it was run."""
        return {**pretrained_identity(self.model, self.name), "decoding": "greedy CTC"}
