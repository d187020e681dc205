"""Pure functions that turn logits and uniform noise into tokens and into an order of positions."""

import torch
from torch import Tensor


def gumbel(uniform: Tensor) -> Tensor:
    """Turn uniform numbers in ``[0, 1)`` into standard Gumbel noise, in float64."""
    tiny = torch.finfo(torch.float64).tiny
    return -(-uniform.double().clamp_min(tiny).log()).clamp_min(tiny).log()


def guide(conditional: Tensor, unconditional: Tensor, scale: float, rescale: float) -> Tensor:
    """Classifier-free guidance with rescaling per position.

    Args:
        conditional: Logits with the condition, shape ``[..., C]``.
        unconditional: Logits without it, shape ``[..., C]``.
        scale: Guidance w; 0 leaves the conditional logits.
        rescale: Share of the result that is brought back to the standard deviation over C of the conditional logits.

    Returns:
        Guided logits, shape ``[..., C]``.
    """
    guided = conditional + scale * (conditional - unconditional)
    if rescale:
        deviation = guided.std(dim=-1, keepdim=True).clamp_min(torch.finfo(guided.dtype).tiny)
        restored = guided * (conditional.std(dim=-1, keepdim=True) / deviation)
        guided = rescale * restored + (1 - rescale) * guided
    return guided


def low_discrepancy_scores(num_positions: int) -> Tensor:
    """Score positions so that the best k of them are spread evenly, for every k: the van der Corput order.

    Args:
        num_positions: Number of positions N.

    Returns:
        Scores, float64 ``[N]``, all different: position ``v`` that comes n-th has score ``-n``.
    """
    bits = max(1, (num_positions - 1).bit_length())
    numbers = torch.arange(2**bits)
    reversed_bits = torch.zeros_like(numbers)
    for bit in range(bits):
        reversed_bits |= ((numbers >> bit) & 1) << (bits - 1 - bit)
    order = reversed_bits[reversed_bits < num_positions]
    scores = torch.empty(num_positions, dtype=torch.float64)
    scores[order] = -torch.arange(num_positions, dtype=torch.float64)
    return scores
