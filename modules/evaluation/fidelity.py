"""How faithful is a codec to the recording? The two intrusive measures that codecs are compared by."""

import importlib
import math
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from modules.evaluation.items import EvaluationItem
from modules.evaluation.scorer import Scorer, ScorerUnavailableError, Scores
from modules.measure import Measure

# Below this neither measure has frames enough to say anything.
SHORTEST_SECONDS = 0.5


class Fidelity(Scorer):
    """PESQ (ITU-T P.862.2, wide band) and extended STOI (Jensen and Taal 2016) against the recording, by torchmetrics.

    Both compare sample by sample: they mean something for codecs, and nothing for speech that was generated, which may
    be just as good and is never the same. Prompts are not scored.

    Args:
        name: Key of the scorer in the results.
    """

    sample_rate = 16_000

    def __init__(self, name: str = "fidelity") -> None:
        super().__init__()
        self.name = name

    @property
    def measures(self) -> Sequence[Measure]:
        """PESQ, 1 to 4.64, and ESTOI, up to 1."""
        return (
            Measure("pesq", "PESQ-wb", "pesq", higher_is_better=True),
            Measure("estoi", "ESTOI", "estoi", higher_is_better=True),
        )

    def load(self) -> None:
        """Import the packages that torchmetrics hands the work to."""
        try:
            importlib.import_module("pesq")
            importlib.import_module("pystoi")
        except ImportError as error:
            reason = f"PESQ's and STOI's packages cannot be imported ({str(error).splitlines()[0]})"
            raise ScorerUnavailableError(reason, "pip install '.[fidelity]'") from error
        audio: Any = importlib.import_module("torchmetrics.functional.audio")
        self._pesq = audio.perceptual_evaluation_speech_quality
        self._stoi = audio.short_time_objective_intelligibility

    @torch.inference_mode()
    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance over the time both it and the recording last: ``pesq`` and ``estoi``."""
        samples = min(item.continuation.numel(), item.original_continuation.numel())
        if samples < SHORTEST_SECONDS * self.sample_rate:
            reason = f"less than {SHORTEST_SECONDS} s after the prompt"
            return Scores(dict.fromkeys(("pesq", "estoi"), math.nan), dict.fromkeys(("pesq", "estoi"), reason))
        audio, original = item.continuation[:samples].float(), item.original_continuation[:samples].float()
        values, reasons = {}, {}
        for name, measure in (
            ("pesq", lambda: self._pesq(audio, original, self.sample_rate, "wb")),
            ("estoi", lambda: self._stoi(audio, original, self.sample_rate, extended=True)),
        ):
            try:
                values[name] = float(measure())
            except Exception as error:  # pesq raises classes of its own, for silence for instance
                values[name] = math.nan
                reasons[name] = " ".join(str(error).split())[:200] or type(error).__name__
        return Scores(values, reasons)

    def identity(self) -> dict[str, Any]:
        """The packages."""
        return {"name": "PESQ-wb and ESTOI", "revision": f"pesq {version('pesq')}, pystoi {version('pystoi')}"}
