"""Blocks shared by the systems."""

from modules.layers.conformer import Conformer, ConformerBlock
from modules.layers.rotary import apply_rotary, rotary_angles

__all__ = ["Conformer", "ConformerBlock", "apply_rotary", "rotary_angles"]
