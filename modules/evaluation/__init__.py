"""Evaluation: scorers for rendered speech and the LightningModule that runs them."""

from modules.evaluation.consistency import AcousticConsistency
from modules.evaluation.consistency_training import ConsistencyEmbedding, ConsistencyTraining
from modules.evaluation.detection import Detection, DetectionTraining
from modules.evaluation.fidelity import Fidelity
from modules.evaluation.items import SPLITS, EvaluationBatch, EvaluationItem, split_of
from modules.evaluation.mel_distance import MelDistance
from modules.evaluation.metrics import GroupedRatio
from modules.evaluation.module import AbsentScorer, EvaluationModule, ScoredItem
from modules.evaluation.pooled_conformer import PooledConformer
from modules.evaluation.quality import Dnsmos
from modules.evaluation.quality_optional import DistillMos, Nisqa
from modules.evaluation.recognition import Recognizer, WhisperRecognizer
from modules.evaluation.recognition_ctc import CtcRecognizer
from modules.evaluation.recognition_faster import FasterWhisperRecognizer
from modules.evaluation.scorer import Scorer, ScorerUnavailableError, Scores
from modules.evaluation.speaker import SpeakerSimilarity, VoiceEmbedding, XVectorEmbedding
from modules.evaluation.speaker_optional import OnnxVoiceEmbedding, ResemblyzerEmbedding
from modules.evaluation.word_errors import WordErrors
from modules.measure import Measure

__all__ = [
    "SPLITS",
    "AbsentScorer",
    "AcousticConsistency",
    "ConsistencyEmbedding",
    "ConsistencyTraining",
    "CtcRecognizer",
    "Detection",
    "DetectionTraining",
    "DistillMos",
    "Dnsmos",
    "EvaluationBatch",
    "EvaluationItem",
    "EvaluationModule",
    "FasterWhisperRecognizer",
    "Fidelity",
    "GroupedRatio",
    "Measure",
    "MelDistance",
    "Nisqa",
    "OnnxVoiceEmbedding",
    "PooledConformer",
    "Recognizer",
    "ResemblyzerEmbedding",
    "ScoredItem",
    "Scorer",
    "ScorerUnavailableError",
    "Scores",
    "SpeakerSimilarity",
    "VoiceEmbedding",
    "WhisperRecognizer",
    "WordErrors",
    "XVectorEmbedding",
    "split_of",
]
