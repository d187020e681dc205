"""What passes between the stages in memory: one batch of audio, of tokens, of generated tokens.

All are named tuples, so that Lightning moves their tensors to the device and leaves the rest alone.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

from torch import Tensor


class SoftTokens(NamedTuple):
    """What a semantic token may be: the most probable ones of each frame, the best first.

    Soft speech units (van Niekerk et al. 2022, "A comparison of discrete and soft speech units for improved voice
    conversion"): what a tokenizer is unsure of is left open, in place of being decided wrongly.
    """

    tokens: Tensor  # [..., T, K] int64
    probabilities: Tensor  # [..., T, K] float32, of sum 1 in each frame; all 0 in padding

    def spread(self, vocab_size: int) -> Tensor:
        """Lay the probabilities out over all V tokens, float32 ``[..., T, V]``."""
        empty = self.probabilities.new_zeros(*self.tokens.shape[:-1], vocab_size)
        # Added, because padding repeats a token, with probability 0.
        return empty.scatter_add(-1, self.tokens, self.probabilities)


class Rejection(NamedTuple):
    """An input that was left out, and why; ends as one line of ``rejected.jsonl``."""

    id: str
    path: str
    reason: str


class AudioBatch(NamedTuple):
    """Utterances of one batch, not padded: every clip keeps its own length."""

    ids: list[str]
    audio: list[Tensor]  # per utterance [N_i], float32 mono in [-1, 1]
    sample_rate: int  # Hz
    speakers: list[str]  # "" where unknown
    texts: list[str]  # "" where unknown
    rejected: list[Rejection]
    paths: Sequence[str] = ()  # per utterance, for messages; empty where there are no files


class TokenizedBatch(NamedTuple):
    """Tokens of one batch of utterances on their way into a token set, not padded."""

    ids: list[str]
    semantic: list[Tensor]  # per utterance [T_i], at the codec's frame rate
    codes: list[Tensor]  # per utterance [Q, T_i]
    speakers: list[str]
    texts: list[str]
    rejected: list[Rejection]
    soft_semantic: Sequence[SoftTokens] = ()  # per utterance [T_i, K], at the codec's frame rate; empty: not asked for


class TokenBatch(NamedTuple):
    """Utterances of a token set, right-padded to a common width T."""

    ids: list[str]
    semantic: Tensor  # [B, T] int64
    codes: Tensor  # [B, Q, T] int64
    lengths: Tensor  # [B] int64, real frames per row
    prompt_frames: Tensor  # [B] int64, leading frames given at every level; 0 where there is no prompt
    seeds: Tensor  # [B] int64, one random stream per row: independent of batch, rank and world size
    speakers: list[str]
    texts: list[str]
    prompt_ids: Sequence[str] = ()  # per row the other utterance that gives the prompt, or ""; empty: none does
    soft_semantic: SoftTokens | None = None  # [B, T, K]; of what was tokenized without, its tokens with probability 1


class GeneratedBatch(NamedTuple):
    """Codes made by an acoustic generator, right-padded to a common width T."""

    ids: list[str]
    codes: Tensor  # [B, Q, T] int64, prompt frames included
    lengths: Tensor  # [B] int64
    prompt_frames: Tensor  # [B] int64
    seeds: Tensor  # [B] int64, the seed each row was generated with
    speakers: list[str]
    texts: list[str]
    prompt_ids: Sequence[str] = ()  # as in TokenBatch

    @classmethod
    def of(cls, batch: TokenBatch, codes: Tensor) -> Self:
        """Put codes in the place of a batch's tokens; what else it says of its rows stays."""
        return cls(codes=codes, **{name: getattr(batch, name) for name in cls._fields if name != "codes"})
