"""SoundStorm: masked prediction of RVQ tokens from semantic tokens, decoded level by level in parallel."""

from typing import TYPE_CHECKING

from modules.lazy import lazy_names
from modules.soundstorm.chunks import Chunking, decode_in_chunks
from modules.soundstorm.decoding import PassTrace, decode
from modules.soundstorm.masking import Draw, MaskingOptions, apply_masks, draw_masks
from modules.soundstorm.network import SoundStormNetwork
from modules.soundstorm.readings import ReadingChoice, decode_best
from modules.soundstorm.schedule import DecodingSchedule, Pass

if TYPE_CHECKING:
    from modules.soundstorm.module import SoundStorm

__all__ = [
    "Chunking",
    "DecodingSchedule",
    "Draw",
    "MaskingOptions",
    "Pass",
    "PassTrace",
    "ReadingChoice",
    "SoundStorm",
    "SoundStormNetwork",
    "apply_masks",
    "decode",
    "decode_best",
    "decode_in_chunks",
    "draw_masks",
]

__getattr__ = lazy_names(__name__, {"SoundStorm": "modules.soundstorm.module"})
