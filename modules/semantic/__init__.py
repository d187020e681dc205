"""Semantic front end: speech features quantised by k-means."""

from modules.semantic.distilled import DistilledFeatures
from modules.semantic.features import SpeechFeatures
from modules.semantic.log_mel import LogMelFeatures
from modules.semantic.posterior import Posterior
from modules.semantic.tokenizer import SemanticTokenizer
from modules.semantic.transformers_features import TransformersFeatures

__all__ = [
    "DistilledFeatures",
    "LogMelFeatures",
    "Posterior",
    "SemanticTokenizer",
    "SpeechFeatures",
    "TransformersFeatures",
]
