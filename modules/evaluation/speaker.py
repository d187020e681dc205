"""Does the generated voice sound like the prompt's?"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

from modules.evaluation.items import EvaluationItem
from modules.evaluation.pretrained import load_pretrained, pretrained_identity
from modules.evaluation.scorer import Score, Scorer, ScorerUnavailableError, Scores
from modules.measure import Measure


class VoiceEmbedding(nn.Module, ABC):
    """Maps a clip to a vector that tells voices apart by cosine.

    Attributes:
        sample_rate: Samples per second of the audio it is given, in Hz.
        min_seconds: Shortest clip it can embed.
    """

    sample_rate: int
    min_seconds: float

    @abstractmethod
    def load(self) -> None:
        """Fetch the model; raises ``ScorerUnavailableError`` if it cannot be had."""

    @abstractmethod
    def forward(self, audio: Tensor) -> Tensor:
        """Embed one clip: float32 mono ``[N]`` -> ``[D]``, of length 1."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Say which model this is: at least ``name`` and ``revision``."""


class XVectorEmbedding(VoiceEmbedding):
    """Any speaker model of transformers with an x-vector head: WavLM, wav2vec 2.0, UniSpeech-SAT, ...

    Cosines of different models are not comparable: ``microsoft/wavlm-base-plus-sv`` gives about 0.9 where the WavLM
    verification system of the paper gives 0.6.

    Args:
        model: Hub id or local folder.
        revision: Commit, branch or tag on the hub.
    """

    sample_rate = 16_000
    min_seconds = 0.5

    def __init__(self, model: str, revision: str | None = None) -> None:
        super().__init__()
        self.name = model
        self.revision = revision

    def load(self) -> None:
        """Fetch model and feature extractor."""
        self.model: Any = load_pretrained(AutoModelForAudioXVector, self.name, self.revision)
        try:
            self.feature_extractor = AutoFeatureExtractor.from_pretrained(self.name, revision=self.revision)
        except (OSError, ValueError) as error:
            raise ScorerUnavailableError(
                f"{self.name!r} has no feature extractor ({str(error).splitlines()[0]})",
                "save preprocessor_config.json beside the model",
            ) from error

    @torch.inference_mode()
    def forward(self, audio: Tensor) -> Tensor:
        """Embed one clip: float32 mono ``[N]`` -> ``[D]``, of length 1."""
        inputs = self.feature_extractor(audio.cpu().numpy(), sampling_rate=self.sample_rate, return_tensors="pt")
        embeddings = self.model(inputs.input_values.to(self.model.device)).embeddings
        return nn.functional.normalize(embeddings[0], dim=-1)

    def identity(self) -> dict[str, Any]:
        """Say which model this is."""
        return pretrained_identity(self.model, self.name)


class SpeakerSimilarity(Scorer):
    """Cosine between the voice of the prompt and the voice of the audio after it.

    The prompt is cut off the generated audio before it is compared, else the codec's copy of it would be scored.
    SIM-o compares with the prompt as recorded, whichever utterance gave it; SIM-r with the prompt as the system's codec
    renders it, which is the head of the generated audio: prompted systems keep the prompt's codes untouched. Rows
    without a prompt have no such score; recordings and reconstructions are scored as if their leading seconds were the
    prompt.

    Args:
        embedding: What hears voices.
        name: Key of the scorer in the results.
    """

    def __init__(self, embedding: VoiceEmbedding, name: str = "voice") -> None:
        super().__init__()
        self.embedding = embedding
        self.name = name
        self.sample_rate = embedding.sample_rate

    @property
    def measures(self) -> Sequence[Measure]:
        """SIM-o and SIM-r."""
        return (
            Measure("sim_o", "Voice (SIM-o)", "sim_o", higher_is_better=True, published="voice"),
            Measure("sim_r", "Voice (SIM-r)", "sim_r", higher_is_better=True),
        )

    def load(self) -> None:
        """Fetch the embedding's model."""
        self.embedding.load()

    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance.

        Returns:
            ``sim_o``, and ``sim_r`` for all but the recordings; nothing where the row has no prompt.
        """
        if item.prompt_seconds <= 0:
            return Scores({})
        prompts = {"sim_o": item.recorded_prompt}
        if item.system != "original":
            prompts["sim_r"] = item.audio[: item.prompt_samples]
        heard: dict[str, Tensor] = {}
        problems: dict[str, str] = {}
        for key, prompt in prompts.items():
            if self._is_short(item.continuation):
                problems[key] = f"audio after the prompt shorter than {self.embedding.min_seconds:g} s"
            elif prompt is None:
                problems[key] = item.prompt_problem or "no recording of the prompt"
            elif self._is_short(prompt):
                problems[key] = f"prompt shorter than {self.embedding.min_seconds:g} s"
            else:
                heard[key] = prompt
        values: dict[str, Score] = dict.fromkeys(problems, math.nan)
        if heard:
            voice = self.embedding(item.continuation)
            values |= {key: float(torch.dot(voice, self.embedding(prompt))) for key, prompt in heard.items()}
        return Scores(values, problems)

    def _is_short(self, audio: Tensor) -> bool:
        return audio.numel() < int(self.embedding.min_seconds * self.embedding.sample_rate)

    def identity(self) -> dict[str, Any]:
        """The embedding's identity."""
        return self.embedding.identity()
