"""Further estimators of quality that need optional packages: NISQA and DistillMOS."""

import importlib
import math
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from modules.evaluation.items import EvaluationItem
from modules.evaluation.scorer import Score, Scorer, ScorerUnavailableError, Scores
from modules.measure import Measure
from modules.model_folder import weights_digest

NISQA_SCORES = ("nisqa_mos", "nisqa_noisiness", "nisqa_discontinuity", "nisqa_coloration", "nisqa_loudness")


class Nisqa(Scorer):
    """NISQA v2.0 (Mittag et al. 2021) through torchmetrics, which fetches its weights on the first use.

    Args:
        name: Key of the scorer in the results.
    """

    sample_rate = 16_000

    def __init__(self, name: str = "nisqa") -> None:
        super().__init__()
        self.name = name

    @property
    def measures(self) -> Sequence[Measure]:
        """Overall quality, 1 to 5, and how little noise, breaks, colour and wrong loudness there is."""
        labels = ("NISQA MOS", "NISQA noisiness", "NISQA discontinuity", "NISQA coloration", "NISQA loudness")
        return tuple(
            Measure(key, label, key, higher_is_better=True) for key, label in zip(NISQA_SCORES, labels, strict=True)
        )

    def load(self) -> None:
        """Import what torchmetrics needs, and its weights."""
        self._module: Any = importlib.import_module("torchmetrics.functional.audio.nisqa")
        try:
            noise = torch.randn(self.sample_rate, generator=torch.Generator().manual_seed(0))
            self._module.non_intrusive_speech_quality_assessment(noise, self.sample_rate)
        except ImportError as error:
            reason = f"NISQA's packages cannot be imported ({str(error).splitlines()[0]})"
            raise ScorerUnavailableError(reason, "pip install librosa requests") from error
        except (OSError, RuntimeError) as error:
            # The file is a Git LFS page, half a file or nothing, where GitHub cannot be reached.
            reason = f"NISQA's weights cannot be fetched or read ({str(error).strip().splitlines()[0][:200]})"
            remedy = "connect once, or put nisqa.tar from github.com/gabrielmittag/NISQA into ~/.torchmetrics/NISQA"
            raise ScorerUnavailableError(reason, remedy) from error

    @torch.inference_mode()
    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance, prompt included; its shortest audio is a fifth of a second, its longest about 50 s."""
        try:
            if not item.audio.numel():
                raise RuntimeError("no audio")
            found = self._module.non_intrusive_speech_quality_assessment(item.audio.float(), self.sample_rate)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            return Scores(dict.fromkeys(NISQA_SCORES, math.nan), dict.fromkeys(NISQA_SCORES, reason))
        return Scores(dict(zip(NISQA_SCORES, found.reshape(-1).tolist(), strict=True)))

    def identity(self) -> dict[str, Any]:
        """The model, and the version of the package that brings it."""
        return {"name": "NISQA v2.0 (torchmetrics)", "revision": version("torchmetrics")}


class DistillMos(Scorer):
    """DistillMOS (Stahl and Gamper 2025) through the ``distillmos`` package, which brings the weights.

    Args:
        name: Key of the scorer in the results.
    """

    sample_rate = 16_000

    def __init__(self, name: str = "distillmos") -> None:
        super().__init__()
        self.name = name

    @property
    def measures(self) -> Sequence[Measure]:
        """Overall quality, 1 to 5."""
        return (Measure("distillmos", "DistillMOS", "distillmos", higher_is_better=True),)

    def load(self) -> None:
        """Import the package and its weights."""
        try:
            package = importlib.import_module("distillmos")
        # OSError, too: a torchaudio that does not fit torch fails when its library is opened.
        except (ImportError, OSError) as error:
            reason = f"distillmos cannot be imported ({str(error).splitlines()[0]})"
            raise ScorerUnavailableError(
                reason, "pip install '.[distillmos]', with a torchaudio that fits torch"
            ) from error
        self.model: Any = package.ConvTransformerSQAModel().eval().requires_grad_(False)

    @torch.inference_mode()
    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance, prompt included: ``distillmos``."""
        if not item.audio.numel():
            return Scores({"distillmos": math.nan}, {"distillmos": "no audio"})
        value: Score = float(self.model(item.audio.float()[None]).reshape(()))
        return Scores({"distillmos": value})

    def identity(self) -> dict[str, Any]:
        """The package, and a digest of the weights."""
        return {"name": "DistillMOS", "revision": weights_digest(self.model.state_dict())}
