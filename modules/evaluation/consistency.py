"""Does the voice stay the same until the end?"""

from collections.abc import Sequence
from typing import Any

import torch

from modules.evaluation.items import EvaluationItem
from modules.evaluation.scorer import Scorer, Scores
from modules.evaluation.speaker import VoiceEmbedding
from modules.measure import Measure


class AcousticConsistency(Scorer):
    """Cosine of the first seconds with every later, non-overlapping crop of the same audio.

    For a prompted system the first crop is the prompt, as in the paper (section 4.2, Figure 2). The paper embeds the
    crops with a model trained for the purpose, which is not public; ``ConsistencyTraining`` trains one like it and
    ``ConsistencyEmbedding`` brings it here. Any other voice embedding can take its place. Only values of the same
    embedding compare.

    Args:
        embedding: What hears voices.
        crop_seconds: Length of a crop; 3 s in the paper, as its prompts. What is left at the end is not scored.
        name: Key of the scorer in the results.
    """

    def __init__(self, embedding: VoiceEmbedding, crop_seconds: float = 3.0, name: str = "consistency") -> None:
        super().__init__()
        if crop_seconds < embedding.min_seconds:
            raise ValueError(f"crop_seconds is {crop_seconds}, the embedding needs {embedding.min_seconds} s")
        self.embedding = embedding
        self.crop_seconds = crop_seconds
        self.name = name
        self.sample_rate = embedding.sample_rate

    @property
    def measures(self) -> Sequence[Measure]:
        """Mean over the crops, and drift from the first of them to the last."""
        return (
            Measure("consistency", "Consistency", "mean", higher_is_better=True, published="consistency"),
            Measure("drift", "Drift", "drift", digits=3, higher_is_better=False),
        )

    def load(self) -> None:
        """Fetch the embedding's model."""
        self.embedding.load()

    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance.

        Returns:
            ``curve``, the cosines in order of time; ``mean`` of them; ``drift``, the first minus the last, positive
            where the voice moves away, which needs two crops after the first seconds.
        """
        nan = float("nan")
        samples = int(self.crop_seconds * self.sample_rate)
        crops = [crop for crop in item.audio.split(samples) if crop.numel() == samples]
        if len(crops) < 2:
            reason = f"shorter than two crops of {self.crop_seconds:g} s"
            return Scores({"mean": nan, "drift": nan}, {"consistency": reason, "drift": reason})
        first, *later = (self.embedding(crop) for crop in crops)
        curve = [float(torch.dot(first, voice)) for voice in later]
        mean = sum(curve) / len(curve)
        if len(curve) < 2:
            reason = f"shorter than three crops of {self.crop_seconds:g} s"
            return Scores({"curve": curve, "mean": mean, "drift": nan}, {"drift": reason})
        return Scores({"curve": curve, "mean": mean, "drift": curve[0] - curve[-1]})

    def identity(self) -> dict[str, Any]:
        """The embedding's identity, and the length of a crop."""
        return {**self.embedding.identity(), "crop_seconds": self.crop_seconds}
