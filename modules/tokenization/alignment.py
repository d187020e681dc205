"""Semantic tokens at the frame rate of the codec."""

from fractions import Fraction

import torch
from torch import Tensor

Rate = Fraction | float | int


def aligned_indices(num_tokens: int, num_frames: int, token_rate: Rate, frame_rate: Rate) -> list[int]:
    """For every frame, find the token that sounds at its middle.

    Frame t takes token ``floor((t + 1/2) * token_rate / frame_rate)``, or the last one where there are fewer. From 25
    to 50 per second every token is repeated twice, as in SoundStorm (section 3.1); equal rates are left alone. The
    arithmetic is exact, for however many frames.

    Args:
        num_tokens: Number of tokens, at least 1 unless there are no frames.
        num_frames: Number of frames T.
        token_rate: Tokens per second.
        frame_rate: Frames per second.

    Returns:
        T indices below ``num_tokens``, in ascending order.
    """
    tokens_per_frame = Fraction(token_rate) / Fraction(frame_rate)
    numerator, denominator = tokens_per_frame.numerator, 2 * tokens_per_frame.denominator
    return [min((2 * frame + 1) * numerator // denominator, num_tokens - 1) for frame in range(num_frames)]


def align_tokens(
    tokens: Tensor,
    num_frames: int,
    token_rate: Rate,
    frame_rate: Rate,
    *,
    name: str = "",
    max_drift: Rate = 2,
    dim: int = -1,
) -> Tensor:
    """Bring tokens to another frame rate by index, see :func:`aligned_indices`.

    Args:
        tokens: Shape ``[..., S]``, or with S at ``dim``.
        num_frames: Number of frames T wanted.
        token_rate: Rate of ``tokens``, per second.
        frame_rate: Rate of the frames, per second.
        name: What the tokens belong to, to begin the error with.
        max_drift: By how many frames the S tokens may be longer or shorter than the T frames.
        dim: Axis of time.

    Returns:
        Tokens at the rate of the frames, shape ``[..., T]``, or with T at ``dim``.

    Raises:
        ValueError: The lengths do not belong together.
    """
    num_tokens = tokens.shape[dim]
    drift = num_tokens * Fraction(frame_rate) / Fraction(token_rate) - num_frames
    if abs(drift) > max_drift or (num_frames > 0 and num_tokens == 0):
        raise ValueError(
            f"{name + ': ' if name else ''}{num_tokens} semantic tokens at {float(token_rate):g}/s and {num_frames} "
            f"codec frames at {float(frame_rate):g}/s drift apart by {abs(float(drift)):g} frames, more than "
            f"{float(max_drift):g}"
        )
    indices = aligned_indices(num_tokens, num_frames, token_rate, frame_rate)
    return tokens.index_select(dim, torch.tensor(indices, dtype=torch.int64, device=tokens.device))
