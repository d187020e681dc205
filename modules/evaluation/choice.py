"""Which utterances of an evaluation are worth listening to."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from modules.measure import Measure

T = TypeVar("T")


def spread_evenly(items: Sequence[T], number: int) -> list[T]:
    """Choose so many items, or all if there are fewer, in even steps from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)
    return [items[place] for place in places]


def ranking_measure(measures: Iterable[tuple[str, Measure]]) -> tuple[str, Measure] | None:
    """Find what tells bad utterances from good ones: of scorers and their measures the first that has a direction."""
    return next(((scorer, measure) for scorer, measure in measures if measure.higher_is_better is not None), None)


def choose_worst(results: Iterable[dict[str, Any]], scorer: str, measure: Measure, number: int) -> list[str]:
    """Choose the utterances of which some system made the worst; what was only recorded or coded does not count.

    Args:
        results: Rows of ``results.jsonl``.
        scorer: Whose scores decide.
        measure: Which of its measures.
        number: How many utterances.

    Returns:
        Their ids, the worst first; of equals the first by id.
    """
    errors: dict[str, float] = {}
    for result in results:
        terms = measure.terms(result["scores"].get(scorer, {}))
        if result["condition"] != "reference" and terms is not None and all(map(math.isfinite, terms)):
            error = (-1 if measure.higher_is_better else 1) * terms[0] / terms[1]
            errors[result["id"]] = max(error, errors.get(result["id"], -math.inf))
    return sorted(errors, key=lambda id: (-errors[id], id))[:number]
