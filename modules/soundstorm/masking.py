"""SoundStorm's training mask (Borsos et al. 2023, section 3.2) as a pure function."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskingOptions:
    """Departures from the paper's mask; the defaults are the paper's.

    Attributes:
        prompt_dropout: Probability of training an example without a prompt (t = 0). The paper's draw gives that with
            probability 1/T only, although it evaluates without prompts.
        semantic_dropout: Probability of hiding an example's semantic tokens, for guidance on them.
        coarse_weight: Draw level q with weight ``1 + coarse_weight * (Q - 1 - q)``; 0 draws uniformly, large values
            fall linearly from coarse to fine as in MaskGCT.
        coarse_exponent: Raise these weights to this power: steeper than a line, for networks that have yet to learn the
            coarse levels, which carry the words.
        max_prompt_frames: Draw prompts t ~ U{0, min(L - 1, this)}; None draws them up to the whole example. Most of a
            long prompt costs time and has no loss; 150 frames are the 3 s that the paper evaluates with.
        span_length: Mask runs of this many frames, drawn jointly, as in MAGNeT; 1 masks frames independently.
    """

    prompt_dropout: float = 0.0
    semantic_dropout: float = 0.0
    coarse_weight: float = 0.0
    coarse_exponent: float = 1.0
    max_prompt_frames: int | None = None
    span_length: int = 1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: A value is out of its range.
        """
        for name in ("prompt_dropout", "semantic_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be a probability")
        for name in ("coarse_weight", "coarse_exponent"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.max_prompt_frames is not None and self.max_prompt_frames < 0:
            raise ValueError(f"max_prompt_frames={self.max_prompt_frames} must not be negative; None sets no limit")
        if self.span_length < 1:
            raise ValueError(f"span_length={self.span_length} must be at least 1")


class Draw(NamedTuple):
    """What is drawn for each example of a batch."""

    level: Tensor  # [B] int64, the level q that is trained
    prompt_frames: Tensor  # [B] int64, the number t of leading frames given at every level
    masked: Tensor  # [B, T] bool, frames whose token of level q is masked, and predicted
    drop_semantic: Tensor  # [B] bool, semantic tokens hidden


def draw_masks(
    lengths: Tensor,
    width: int,
    num_quantizers: int,
    seeds: Tensor,
    options: MaskingOptions | None = None,
    prompt_frames: Tensor | None = None,
) -> Draw:
    """Draw prompt length t, level q and mask for each example from its own random stream.

    t ~ U{0, L-1}, q ~ U{0, Q-1}, u ~ U[0, pi/2], p = cos u; frame l >= t is masked with probability p. Where none is,
    one is masked at random, so that every example counts (not in the paper). A row's draw depends on its length and
    seed alone: not on the batch, the padding or the rank.

    Args:
        lengths: Real frames per row, int64 ``[B]``, at least 1.
        width: Number of frames T of the padded batch.
        num_quantizers: RVQ levels Q.
        seeds: One seed per row, int64 ``[B]``.
        options: Departures from the paper.
        prompt_frames: Fixed prompt lengths t, ``[B]``, instead of drawn ones (validation).

    Returns:
        The draw, on the CPU.

    Raises:
        ValueError: A row is empty, or its prompt leaves nothing to predict.
    """
    options = options or MaskingOptions()
    batch = len(lengths)
    level = torch.empty(batch, dtype=torch.int64)
    prompt = torch.empty(batch, dtype=torch.int64)
    masked = torch.zeros(batch, width, dtype=torch.bool)
    drop_semantic = torch.zeros(batch, dtype=torch.bool)
    weights = 1 + options.coarse_weight * torch.arange(num_quantizers - 1, -1, -1, dtype=torch.float64)
    weights = weights**options.coarse_exponent
    cumulative = weights.cumsum(0) / weights.sum()
    longest = math.inf if options.max_prompt_frames is None else options.max_prompt_frames
    for b, (length, seed) in enumerate(zip(lengths.tolist(), seeds.tolist(), strict=True)):
        if length < 1:
            raise ValueError(f"row {b} of the batch is empty: lengths must be at least 1, got {length}")
        stream = torch.Generator().manual_seed(seed)
        # One fixed number of uniforms comes first, so that no option shifts what another one draws.
        u_prompt, u_level, u_rate, u_guard, u_drop_prompt, u_drop_semantic = torch.rand(
            6, generator=stream, dtype=torch.float64
        ).tolist()
        if prompt_frames is not None:
            t = int(prompt_frames[b])
        elif u_drop_prompt < options.prompt_dropout:
            t = 0
        else:
            t = int(u_prompt * min(length, longest + 1))
        if not 0 <= t < length:
            raise ValueError(f"row {b} of the batch: a prompt of {t} frames leaves nothing of {length} to predict")
        p = math.cos(u_rate * math.pi / 2)
        spans = -(-length // options.span_length)
        hit = torch.rand(spans, generator=stream) < p
        hit = hit.repeat_interleave(options.span_length)[:length]
        hit[:t] = False
        if not hit.any():
            hit[t + int(u_guard * (length - t))] = True
        masked[b, :length] = hit
        prompt[b] = t
        level[b] = int(torch.searchsorted(cumulative, u_level, right=True).clamp(max=num_quantizers - 1))
        drop_semantic[b] = u_drop_semantic < options.semantic_dropout
    return Draw(level, prompt, masked, drop_semantic)


def apply_masks(codes: Tensor, draw: Draw, lengths: Tensor, mask_id: int) -> Tensor:
    """Hide from the network what it is to predict: ``draw.masked`` at level q, every target frame at finer levels.

    Levels below q and the prompt stay visible.

    Args:
        codes: Acoustic tokens, int64 ``[B, Q, T]``; not changed.
        draw: The draw, on the device of ``codes``.
        lengths: Real frames per row, int64 ``[B]``.
        mask_id: The id of a masked token.

    Returns:
        Masked tokens, int64 ``[B, Q, T]``.
    """
    levels = torch.arange(codes.shape[1], device=codes.device)[None, :, None]
    frames = torch.arange(codes.shape[2], device=codes.device)[None, :]
    target = (frames >= draw.prompt_frames[:, None]) & (frames < lengths[:, None])
    level = draw.level[:, None, None]
    hidden = ((levels == level) & draw.masked[:, None]) | ((levels > level) & target[:, None])
    return codes.masked_fill(hidden, mask_id)
