"""VALL-E and VALL-E 2: the first RVQ level code by code, the others a level at a time."""

from modules.valle.autoregressive import AutoregressiveNetwork
from modules.valle.decoding import fill_levels, generate_first_level
from modules.valle.module import VallE
from modules.valle.nonautoregressive import NonAutoregressiveNetwork
from modules.valle.sampling import RepetitionAwareSampling, repetition_aware_sample
from modules.valle.stages import VallEAutoregressive, VallENonAutoregressive

__all__ = [
    "AutoregressiveNetwork",
    "NonAutoregressiveNetwork",
    "RepetitionAwareSampling",
    "VallE",
    "VallEAutoregressive",
    "VallENonAutoregressive",
    "fill_levels",
    "generate_first_level",
    "repetition_aware_sample",
]
