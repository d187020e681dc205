"""AudioLM's acoustic stages: coarse and fine RVQ tokens, generated one by one."""

from modules.audiolm.decoding import continue_codes, generate_coarse, generate_fine
from modules.audiolm.module import AudioLM
from modules.audiolm.network import CoarseNetwork, FineNetwork
from modules.audiolm.stages import AudioLMCoarse, AudioLMFine

__all__ = [
    "AudioLM",
    "AudioLMCoarse",
    "AudioLMFine",
    "CoarseNetwork",
    "FineNetwork",
    "continue_codes",
    "generate_coarse",
    "generate_fine",
]
