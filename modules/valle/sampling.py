"""Repetition-aware sampling (Chen et al. 2024, VALL-E 2, section 3.3.1)."""

import torch
from torch import Tensor

from modules.sampling import TokenSampling, filter_logits, sample_categorical


def repetition_aware_sample(
    logits: Tensor, uniform: Tensor, history: Tensor, top_p: float, threshold: float = 0.1
) -> Tensor:
    """Sample from the nucleus, and anew from the whole distribution where that repeats what was said too often.

    A token's repetition ratio is its share of the last K tokens. The paper prints that sum from the token itself
    onwards, which would count it always; here as in its text, from the last token. With K = 10 and a threshold of 0.1,
    two repeats in ten are too many.

    Args:
        logits: Shape ``[B, C]``.
        uniform: Numbers in ``[0, 1)``: one for the nucleus, one for the second draw, float64 ``[B, 2]``.
        history: The last K tokens of each row, int64 ``[B, K]``; -1 where there are fewer (they still count in K).
        top_p: Probability that the nucleus holds.
        threshold: Largest repetition ratio that is accepted.

    Returns:
        Token ids, int64 ``[B]``.
    """
    token = sample_categorical(filter_logits(logits, top_p=top_p), uniform[:, 0])
    repeats = (history == token[:, None]).sum(dim=1)
    # Compared as counts: 1 / 10 > 0.1 must not depend on rounding.
    too_many = repeats.double() > threshold * history.shape[1] + 1e-9
    return torch.where(too_many, sample_categorical(logits, uniform[:, 1]), token)


class RepetitionAwareSampling(TokenSampling):
    """VALL-E 2's choice of the next token; see :func:`repetition_aware_sample`.

    Args:
        top_p: Probability that the nucleus holds; the paper tries 0 to 0.8.
        window: Tokens K that repetitions are counted in.
        threshold: Largest share of them that a token may have.
        temperature: Of the distribution; the paper does not state another than 1.

    Raises:
        ValueError: An argument is out of range.
    """

    draws = 2

    def __init__(self, top_p: float = 0.8, window: int = 10, threshold: float = 0.1, temperature: float = 1.0) -> None:
        if not 0 <= top_p <= 1 or window < 1 or threshold < 0 or temperature <= 0:
            raise ValueError(
                f"top_p ({top_p}) must lie from 0 to 1, window ({window}) be at least 1, threshold ({threshold}) not "
                f"negative and temperature ({temperature}) positive"
            )
        self.top_p = top_p
        self.window = window
        self.threshold = threshold
        self.temperature = temperature

    def __call__(self, logits: Tensor, uniform: Tensor, history: Tensor) -> Tensor:
        """Choose tokens ``[B]``."""
        return repetition_aware_sample(logits / self.temperature, uniform, history, self.top_p, self.threshold)
