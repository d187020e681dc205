"""Pure functions that turn logits and uniform noise into tokens and into an order of positions."""

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
        kept = kept.masked_fill(probabilities.cumsum(dim=-1) - probabilities >= top_p, -torch.inf)
        logits = torch.empty_like(logits).scatter(-1, ids, kept)
    return logits


def sample_categorical(logits: Tensor, uniform: Tensor) -> Tensor:
    """Sample from the distributions given by logits, by inversion of the cumulative distribution in float64.

    One uniform number per token is enough, where Gumbel noise takes C; and nothing is truncated as float32 Gumbel
    noise is, which silently lowers the temperature (Zheng et al. 2024).

    Args:
        logits: Shape ``[..., C]``.
        uniform: Numbers in ``[0, 1)``, float64, shape ``[...]``.

    Returns:
        Token ids, int64, shape ``[...]``.
    """
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    threshold = uniform.unsqueeze(-1) * cumulative[..., -1:]
    ids = torch.searchsorted(cumulative, threshold.contiguous(), right=True).squeeze(-1)
    return ids.clamp_(max=logits.shape[-1] - 1)


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
