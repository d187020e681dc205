"""Audio to acoustic and semantic tokens, aligned frame by frame."""

from modules.tokenization.alignment import align_tokens, aligned_indices
from modules.tokenization.module import Tokenization

__all__ = ["Tokenization", "align_tokens", "aligned_indices"]
