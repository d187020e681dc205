"""How scores of utterances become a number of a table; apart from the scorers, as reading a table needs no torch."""

import math
from dataclasses import asdict, dataclass
from typing import Any


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
