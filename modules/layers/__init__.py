"""Blocks shared by the systems."""

from modules.layers.conformer import Conformer, ConformerBlock
from modules.layers.continuation import Caching, Continuation, pack, unpack
from modules.layers.matmul import Linear, linear
from modules.layers.rotary import apply_rotary, rotary_angles
from modules.layers.transformer import KeyValueCache, Transformer, rotary_at

__all__ = [
    "Caching",
    "Conformer",
    "ConformerBlock",
    "Continuation",
    "KeyValueCache",
    "Linear",
    "Transformer",
    "apply_rotary",
    "linear",
    "pack",
    "rotary_angles",
    "rotary_at",
    "unpack",
]
