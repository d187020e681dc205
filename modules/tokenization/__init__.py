"""Audio to acoustic and semantic tokens, aligned frame by frame."""

from typing import TYPE_CHECKING

from modules.lazy import lazy_names
from modules.tokenization.alignment import align_tokens, aligned_indices

if TYPE_CHECKING:
    from modules.tokenization.module import Tokenization

__all__ = ["Tokenization", "align_tokens", "aligned_indices"]

__getattr__ = lazy_names(__name__, {"Tokenization": "modules.tokenization.module"})
