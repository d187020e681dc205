"""Put utterances of different lengths side by side in one :class:`~modules.batches.TokenBatch`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from datamodules.token_card import TokenSetCard
from datamodules.token_set import SoftRow, TokenRow
from modules.batches import SoftTokens, TokenBatch


class Utterance(NamedTuple):
    """One row of a batch to be."""

    row: TokenRow
    prompt_frames: int
    seed: int
    prompt_id: str = ""  # the other utterance that gives the prompt


def collate(utterances: Sequence[Utterance], width: int, card: TokenSetCard) -> TokenBatch:
    """Pad utterances on the right with zeros.

    Args:
        utterances: The rows, none longer than ``width``.
        width: Frames T of the batch.
        card: What the tokens must fit.

    Returns:
        The batch, on the CPU.

    Raises:
        ValueError: An utterance holds a token that the card does not allow (damaged data); it is named.
    """
    rows = [utterance.row for utterance in utterances]
    semantic = np.zeros((len(rows), width), dtype=np.int64)
    codes = np.zeros((len(rows), card.num_quantizers, width), dtype=np.int64)
    for number, row in enumerate(rows):
        semantic[number, : len(row.semantic)] = row.semantic
        codes[number, :, : len(row.semantic)] = row.codes
    _check_range(rows, "semantic", semantic, card.semantic_vocab_size)
    _check_range(rows, "acoustic", codes, card.codebook_size)
    return TokenBatch(
        ids=[row.id for row in rows],
        semantic=torch.from_numpy(semantic),
        codes=torch.from_numpy(codes),
        lengths=torch.tensor([len(row.semantic) for row in rows]),
        prompt_frames=torch.tensor([utterance.prompt_frames for utterance in utterances]),
        seeds=torch.tensor([utterance.seed for utterance in utterances]),
        speakers=[row.speaker for row in rows],
        texts=[row.text for row in rows],
        prompt_ids=[utterance.prompt_id for utterance in utterances],
        soft_semantic=_collate_soft(rows, width, card) if card.soft_semantic else None,
    )


def soften(row: TokenRow) -> SoftRow:
    """Give the soft tokens of an utterance; its tokens with probability 1 where it has none."""
    return row.soft or SoftRow(row.semantic[:, None], np.ones((len(row.semantic), 1), dtype=np.float16))


def join(first: TokenRow, second: TokenRow) -> TokenRow:
    """Put the frames of an utterance before those of a second, which gives all else."""
    soft = None
    if first.soft is not None or second.soft is not None:
        parts = [soften(first), soften(second)]
        count = max(part.tokens.shape[1] for part in parts)
        pads = [((0, 0), (0, count - part.tokens.shape[1])) for part in parts]
        soft = SoftRow(
            np.concatenate([np.pad(part.tokens, pad) for part, pad in zip(parts, pads, strict=True)]),
            np.concatenate([np.pad(part.probabilities, pad) for part, pad in zip(parts, pads, strict=True)]),
        )
    return second._replace(
        semantic=np.concatenate([first.semantic, second.semantic]),
        codes=np.concatenate([first.codes, second.codes], axis=1),
        soft=soft,
    )


def _collate_soft(rows: Sequence[TokenRow], width: int, card: TokenSetCard) -> SoftTokens:
    parts = [soften(row) for row in rows]
    shape = (len(rows), width, max(part.tokens.shape[1] for part in parts))
    tokens, probabilities = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    for number, part in enumerate(parts):
        length, count = part.tokens.shape
        tokens[number, :length, :count] = part.tokens
        # Rounding to 16 bits left sums that are nearly 1.
        exact = part.probabilities.astype(np.float32)
        probabilities[number, :length, :count] = exact / exact.sum(axis=1, keepdims=True)
    _check_range(rows, "soft semantic", tokens, card.semantic_vocab_size)
    return SoftTokens(torch.from_numpy(tokens), torch.from_numpy(probabilities))


def _check_range(rows: Sequence[TokenRow], kind: str, tokens: npt.NDArray[np.int64], size: int) -> None:
    if tokens.min() < 0 or tokens.max() >= size:
        wrong = ((tokens < 0) | (tokens >= size)).reshape(len(tokens), -1).any(axis=1)
        raise ValueError(
            f"{rows[int(wrong.argmax())].id}: its {kind} tokens are not all from 0 to {size - 1}, as the card of "
            "its token set says; make the token set anew"
        )
