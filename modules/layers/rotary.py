"""Rotary position embedding (Su et al. 2021, RoFormer)."""

import torch
from torch import Tensor


def rotary_angles(
    num_frames: int, head_dim: int, device: torch.device, base: float = 10_000.0
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines that :func:`apply_rotary` turns queries and keys by.

    Args:
        num_frames: Number of positions T.
        head_dim: Width of one attention head, even.
        device: Where the angles are needed.
        base: Wavelength base of RoFormer.

    Returns:
        Cosines and sines, float32, each of shape ``[T, head_dim / 2]``.
    """
    frequencies = base ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angles = torch.arange(num_frames, device=device, dtype=torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the two halves of each head by the angle of its position.

    Args:
        x: Queries or keys, shape ``[..., T, head_dim]``.
        cos: Cosines, shape ``[T, head_dim / 2]``.
        sin: Sines, shape ``[T, head_dim / 2]``.

    Returns:
        The rotated tensor, shape and dtype of ``x``.
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
