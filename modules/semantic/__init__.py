"""Semantic front end: speech features quantised by k-means."""

from typing import TYPE_CHECKING

from modules.lazy import lazy_names
from modules.semantic.distilled import DistilledFeatures
from modules.semantic.features import SpeechFeatures
from modules.semantic.log_mel import LogMelFeatures
from modules.semantic.posterior import Posterior
from modules.semantic.tokenizer import SemanticTokenizer

if TYPE_CHECKING:
    from modules.semantic.transformers_features import TransformersFeatures

__all__ = [
    "DistilledFeatures",
    "LogMelFeatures",
    "Posterior",
    "SemanticTokenizer",
    "SpeechFeatures",
    "TransformersFeatures",
]

__getattr__ = lazy_names(__name__, {"TransformersFeatures": "modules.semantic.transformers_features"})
