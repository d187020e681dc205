"""Sampling of tokens from logits and uniform noise, as pure functions, for systems that generate token by token."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Rule out improbable tokens.

    Args:
        logits: Shape ``[..., C]``.
        top_k: Keep the k most probable tokens; 0 keeps all.
        top_p: Keep the fewest most probable tokens that hold at least this much probability; 1 keeps all.

    Returns:
        Logits with -inf where a token is ruled out, shape ``[..., C]``; the most probable token always stays.
    """
    if 0 < top_k < logits.shape[-1]:
        kept, ids = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, ids, kept)
    if top_p < 1:
        kept, ids = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = kept.softmax(dim=-1)
        # A token goes if those before it hold the probability already.
        gone = probabilities.cumsum(dim=-1) - probabilities >= top_p
        gone[..., 0] = False
        logits = torch.empty_like(logits).scatter(-1, ids, kept.masked_fill(gone, -torch.inf))
    return logits


def sample_categorical(logits: Tensor, uniform: Tensor) -> Tensor:
    """Sample from the distributions given by logits, by inversion of the cumulative distribution in float64.

    Args:
        logits: Shape ``[..., C]``.
        uniform: Numbers in ``[0, 1)``, float64, shape ``[...]``.

    Returns:
        Token ids, int64, shape ``[...]``.
    """
    # One uniform number per token, where Gumbel noise takes C; and nothing is truncated as float32 Gumbel noise is,
    # which silently lowers the temperature (Zheng et al. 2024).
    cumulative = logits.float().softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    threshold = uniform.unsqueeze(-1) * cumulative[..., -1:]
    ids = torch.searchsorted(cumulative, threshold.contiguous(), right=True).squeeze(-1)
    return ids.clamp_(max=logits.shape[-1] - 1)


def row_noise(seeds: Tensor, width: int, draws: int, device: torch.device) -> Tensor:
    """Draw uniform numbers for the frames of each row, from the row's own stream.

    They are drawn on the CPU whatever the device, frame after frame: what a row draws depends neither on its batch nor
    on how much wider the batch is.

    Args:
        seeds: Seed per row, ``[B]``.
        width: Frames T.
        draws: Numbers per frame N.
        device: Where they are needed.

    Returns:
        Numbers in ``[0, 1)``, float64, shape ``[B, T, N]``.
    """
    noise = torch.empty(len(seeds), width, draws, dtype=torch.float64)
    for row, seed in zip(noise, seeds.tolist(), strict=True):
        row.uniform_(generator=torch.Generator().manual_seed(seed))
    return noise.to(device, non_blocking=True)


class TokenSampling(ABC):
    """How the next token of each row is chosen.

    Attributes:
        window: Number of a row's last tokens that the choice looks at.
        draws: Uniform numbers that one token takes.
    """

    window: int = 0
    draws: int = 1

    @abstractmethod
    def __call__(self, logits: Tensor, uniform: Tensor, history: Tensor) -> Tensor:
        """Choose tokens.

        Args:
            logits: Shape ``[B, C]``.
            uniform: Numbers in ``[0, 1)``, float64 ``[B, draws]``.
            history: The last tokens of each row, the newest at the end, int64 ``[B, window]``; -1 before the first.

        Returns:
            Token ids, int64 ``[B]``.
        """

    def settings(self) -> dict[str, Any]:
        """Return the class's name and the arguments that it was made with."""
        return {"name": type(self).__name__, **vars(self)}


class CategoricalSampling(TokenSampling):
    """Sample from the distribution, or from its most probable part.

    Args:
        temperature: Of the distribution; 0 always takes the most probable token.
        top_k: Sample from the k most probable tokens only; 0 for all.
        top_p: Sample from the most probable tokens that hold this much probability (nucleus); 1 for all.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> None:
        if temperature < 0 or top_k < 0 or not 0 <= top_p <= 1:
            raise ValueError(
                f"temperature ({temperature}) and top_k ({top_k}) must not be negative, top_p ({top_p}) from 0 to 1"
            )
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p

    def __call__(self, logits: Tensor, uniform: Tensor, history: Tensor) -> Tensor:
        """Choose tokens ``[B]``; the history plays no part."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        return sample_categorical(filter_logits(logits / self.temperature, self.top_k, self.top_p), uniform[:, 0])
