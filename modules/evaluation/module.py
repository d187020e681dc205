"""The evaluation stage: scores every utterance of every system."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from modules.batches import Rejection
from modules.evaluation.items import EvaluationBatch, EvaluationItem
from modules.evaluation.metrics import GroupedRatio
from modules.evaluation.scorer import Scorer, ScorerUnavailableError, Scores


class ScoredItem(NamedTuple):
    """One utterance of one system with everything the scorers said about it."""

    item: EvaluationItem
    scores: dict[str, Scores]  # by name of the scorer


class AbsentScorer(NamedTuple):
    """A scorer that could not be loaded."""

    name: str
    reason: str
    remedy: str


class EvaluationModule(LightningModule):
    """Runs scorers over rendered speech; ``soundstorm test``.

    Logs ``test/<system>-<condition>/<scorer>/<measure>`` over all utterances. What was found for each utterance goes
    to the callbacks (``ResultsWriter``); tables with splits and confidence intervals are made from that.

    Run it on one device, or with a sampler that repeats no utterance: a clip seen twice is counted twice.

    Args:
        scorers: What to score with.
        on_missing: What to do about a scorer whose model or package cannot be had: stop with an ``error``, or ``skip``
            it and name it wherever its numbers would stand.
    """

    def __init__(self, scorers: Sequence[Scorer], on_missing: Literal["error", "skip"] = "error") -> None:
        super().__init__()
        names = [scorer.name for scorer in scorers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two scorers are named {twice[0]!r}: give one of them another name")
        self.configured = tuple(scorers)
        self.on_missing = on_missing
        self.scorers = nn.ModuleList()
        self.absent: list[AbsentScorer] = []
        self.ratios = nn.ModuleDict()
        self._rows: list[tuple[str, str]] = []

    @property
    def loaded(self) -> list[Scorer]:
        """The scorers that are at hand, after ``setup``."""
        return [scorer for scorer in self.scorers if isinstance(scorer, Scorer)]

    def setup(self, stage: str) -> None:
        """Load the scorers and lay out the table.

        Raises:
            ScorerUnavailableError: If a scorer cannot be had and ``on_missing`` is ``error``.
            ValueError: If a scorer wants another sample rate than the data has.
        """
        if len(self.scorers) or self.absent:
            return
        data = self.trainer.datamodule  # ty: ignore[missing-attribute]
        self._rows = list(data.rows)
        for scorer in self.configured:
            if scorer.sample_rate != data.sample_rate:
                raise ValueError(
                    f"scorer {scorer.name!r} listens at {scorer.sample_rate} Hz, the data has {data.sample_rate} Hz: "
                    f"set the datamodule's sample_rate to {scorer.sample_rate}"
                )
            try:
                scorer.load()
            except ScorerUnavailableError as error:
                if self.on_missing == "error":
                    raise ScorerUnavailableError(
                        f"scorer {scorer.name!r}: {error.reason}", f"{error.remedy}, or set on_missing to skip"
                    ) from error
                rank_zero_warn(f"scorer {scorer.name!r} is left out: {error}")
                self.absent.append(AbsentScorer(scorer.name, error.reason, error.remedy))
                continue
            self.scorers.append(scorer.eval())
            for measure in scorer.measures:
                self.ratios[f"{scorer.name}/{measure.name}"] = GroupedRatio(len(self._rows))

    def on_test_epoch_start(self) -> None:
        """Forget an earlier test."""
        for key in self.ratios:
            self._ratio(key).reset()

    @torch.inference_mode()
    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> dict[str, Any]:
        """Score a batch.

        Args:
            batch: Utterances.
            batch_idx: Unused.

        Returns:
            ``results``, a list of :class:`ScoredItem`, and ``rejected``, the batch's list of :class:`Rejection`.
        """
        scores: list[dict[str, Scores]] = [{} for _ in batch.items]
        for scorer in self.loaded:
            for found, of_item in zip(scores, scorer.score_batch(batch.items), strict=True):
                found[scorer.name] = named_problems(of_item, scorer)
        results = [ScoredItem(item, found) for item, found in zip(batch.items, scores, strict=True)]
        for result in results:
            self._count(result)
        rejected: list[Rejection] = list(batch.rejected)
        return {"results": results, "rejected": rejected}

    def _count(self, result: ScoredItem) -> None:
        item = result.item
        row = self._rows.index((item.system, item.condition))
        for scorer in self.loaded:
            for measure in scorer.measures:
                terms = measure.terms(result.scores[scorer.name].values)
                if terms is not None:
                    self._ratio(f"{scorer.name}/{measure.name}").update(row, *terms)

    def _ratio(self, key: str) -> GroupedRatio:
        ratio = self.ratios[key]
        assert isinstance(ratio, GroupedRatio)
        return ratio

    def on_test_epoch_end(self) -> None:
        """Log each measure over all utterances of a row."""
        for scorer in self.loaded:
            for measure in scorer.measures:
                values = self._ratio(f"{scorer.name}/{measure.name}").compute()
                for (system, condition), value in zip(self._rows, values.reshape(-1).tolist(), strict=True):
                    if math.isfinite(value):
                        key = f"test/{system}-{condition}/{scorer.name}/{measure.name}"
                        self.log(key, measure.scale * value, rank_zero_only=True)


def named_problems(scores: Scores, scorer: Scorer) -> Scores:
    """Name as a problem every score that is not finite and that its scorer said nothing about."""
    problems = dict(scores.problems)
    for measure in scorer.measures:
        terms = measure.terms(scores.values)
        if terms is not None and not all(map(math.isfinite, terms)):
            problems.setdefault(measure.name, "the scorer returned a value that is not finite")
    return Scores(scores.values, problems)
