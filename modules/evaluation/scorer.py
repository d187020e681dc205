"""The contract every scorer keeps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from modules.evaluation.items import EvaluationItem
from modules.measure import Measure

Score = float | int | str | list[float]


class ScorerUnavailableError(RuntimeError):
    """A scorer's model or package cannot be had here.

    Args:
        reason: What is missing.
        remedy: What the user can do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class Scores:
    """What a scorer says about one utterance.

    Attributes:
        values: Scores by key: NaN where no value could be found, absent where the score does not apply.
        problems: Measure -> what was wrong with it; also where a value could still be given.
    """

    values: dict[str, Score]
    problems: dict[str, str] = field(default_factory=dict)


class Scorer(nn.Module, ABC):
    """Scores utterances one by one; frozen, in evaluation mode.

    A scorer is built without its model, which :meth:`load` fetches: a configuration can name models that are not at
    hand, and the run decides whether to stop or to leave the scorer out.

    Attributes:
        name: Key of the scorer in the results, unique within a run.
        sample_rate: Samples per second of the audio it is given, in Hz.
    """

    name: str
    sample_rate: int

    @property
    @abstractmethod
    def measures(self) -> Sequence[Measure]:
        """The table's columns this scorer fills; known before :meth:`load`, so that an absent one can be named."""

    def load(self) -> None:
        """Fetch the model.

        Raises:
            ScorerUnavailableError: If it cannot be had.
        """

    @abstractmethod
    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance; the values hold at least the terms of the :attr:`measures` that apply to it."""

    def score_batch(self, items: Sequence[EvaluationItem]) -> list[Scores]:
        """Score several utterances; worth overriding where a model is faster on many."""
        return [self.score(item) for item in items]

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Say which scorer this is: JSON-serialisable, at least ``name`` and ``revision`` of its model."""
