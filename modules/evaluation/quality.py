"""Estimated quality without a reference recording."""

import importlib
import math
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from modules.evaluation.items import EvaluationItem
from modules.evaluation.scorer import Scorer, ScorerUnavailableError, Scores
from modules.measure import Measure


class Dnsmos(Scorer):
    """DNSMOS P.835 and P.808 through the ``speechmos`` package, which brings the weights.

    The paper's estimator is a relative of it that is not public; the values do not compare with the paper's.

    Args:
        name: Key of the scorer in the results.
    """

    sample_rate = 16_000

    def __init__(self, name: str = "dnsmos") -> None:
        super().__init__()
        self.name = name

    @property
    def measures(self) -> Sequence[Measure]:
        """Overall, signal and background quality (P.835), and overall quality (P.808)."""
        return (
            Measure("dnsmos_ovrl", "DNSMOS OVRL", "ovrl_mos", higher_is_better=True),
            Measure("dnsmos_p808", "DNSMOS P.808", "p808_mos", higher_is_better=True),
            Measure("dnsmos_sig", "DNSMOS SIG", "sig_mos", higher_is_better=True),
            Measure("dnsmos_bak", "DNSMOS BAK", "bak_mos", higher_is_better=True),
        )

    def load(self) -> None:
        """Import the package, and what it imports only when it runs."""
        try:
            self._dnsmos = importlib.import_module("speechmos.dnsmos")
            self._dnsmos.run(np.full(self.sample_rate, 0.1, dtype=np.float32), self.sample_rate)
        except ImportError as error:
            raise ScorerUnavailableError(
                f"speechmos cannot be imported ({error})", "pip install '.[scorers]'"
            ) from error

    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance, prompt included: ``ovrl_mos``, ``sig_mos``, ``bak_mos`` and ``p808_mos``, 1 to 5."""
        if not item.audio.numel():  # the package would repeat it until it is long enough, for ever
            scores: dict[str, float | str | list[float]] = {measure.numerator: math.nan for measure in self.measures}
            return Scores(scores, {measure.name: "no audio" for measure in self.measures})
        audio = item.audio.clamp(-1, 1).cpu().numpy().astype(np.float32)
        found = self._dnsmos.run(audio, self.sample_rate)
        return Scores({measure.numerator: float(found[measure.numerator]) for measure in self.measures})

    def identity(self) -> dict[str, Any]:
        """The package and its version."""
        return {"name": "DNSMOS (speechmos)", "revision": version("speechmos")}
