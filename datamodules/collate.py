"""Put utterances of different lengths side by side in one :class:`~modules.batches.TokenBatch`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from datamodules.token_card import TokenSetCard
from modules.batches import TokenBatch


class Utterance(NamedTuple):
    """One row of a batch to be."""

    id: str
    speaker: str
    text: str
    semantic: npt.NDArray[np.integer]  # [T]
    codes: npt.NDArray[np.integer]  # [Q, T]
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
    semantic = np.zeros((len(utterances), width), dtype=np.int64)
    codes = np.zeros((len(utterances), card.num_quantizers, width), dtype=np.int64)
    for row, utterance in enumerate(utterances):
        length = len(utterance.semantic)
        semantic[row, :length] = utterance.semantic
        codes[row, :, :length] = utterance.codes
    _check_range(utterances, "semantic", semantic, card.semantic_vocab_size)
    _check_range(utterances, "acoustic", codes, card.codebook_size)
    return TokenBatch(
        ids=[utterance.id for utterance in utterances],
        semantic=torch.from_numpy(semantic),
        codes=torch.from_numpy(codes),
        lengths=torch.tensor([len(utterance.semantic) for utterance in utterances]),
        prompt_frames=torch.tensor([utterance.prompt_frames for utterance in utterances]),
        seeds=torch.tensor([utterance.seed for utterance in utterances]),
        speakers=[utterance.speaker for utterance in utterances],
        texts=[utterance.text for utterance in utterances],
        prompt_ids=[utterance.prompt_id for utterance in utterances],
    )


def _check_range(utterances: Sequence[Utterance], kind: str, tokens: npt.NDArray[np.int64], size: int) -> None:
    if tokens.min() < 0 or tokens.max() >= size:
        wrong = ((tokens < 0) | (tokens >= size)).reshape(len(tokens), -1).any(axis=1)
        raise ValueError(
            f"{utterances[int(wrong.argmax())].id}: its {kind} tokens are not all from 0 to {size - 1}, as the card of "
            "its token set says; make the token set anew"
        )
