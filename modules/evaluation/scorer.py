"""The contract every scorer keeps, and how its scores become the numbers of a table."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from modules.evaluation.items import EvaluationItem

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
class Measure:
    """One number of the table: a ratio of sums over the utterances of a cell.

    Attributes:
        name: Short key, unique within its scorer.
        label: Heading in the table.
        numerator: Score that is summed over the utterances.
        denominator: Score that divides, summed as well (a corpus-level rate); ``None`` for the mean over utterances.
        scale: Factor on the ratio, 100 for percentages.
        digits: Decimals printed.
        higher_is_better: Direction; ``None`` where neither is.
        published: Metric of the paper's Table 1 that the measure stands beside, if any.
    """

    name: str
    label: str
    numerator: str
    denominator: str | None = None
    scale: float = 1.0
    digits: int = 2
    higher_is_better: bool | None = None
    published: str | None = None

    def terms(self, scores: dict[str, Any]) -> tuple[float, float] | None:
        """Take the summands of one utterance.

        Args:
            scores: The utterance's scores by this measure's scorer.

        Returns:
            Numerator and denominator; not finite where the scorer found no value, or nothing to divide by; ``None``
            where the measure does not apply to the utterance.
        """
        if self.numerator not in scores:
            return None
        numerator = scores[self.numerator]
        denominator = 1.0 if self.denominator is None else scores.get(self.denominator)
        if numerator is None or not denominator:  # None is how a missing value is written in JSON
            return math.nan, math.nan
        return float(numerator), float(denominator)

    def as_dict(self) -> dict[str, Any]:
        """The attributes, JSON-serialisable; ``Measure(**measure.as_dict())`` is the measure again."""
        return asdict(self)


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
