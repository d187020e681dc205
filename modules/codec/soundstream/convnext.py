"""The ConvNeXt block of the light encoder and decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.layers import Linear


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a pointwise two-layer network, added to the input.

    Source: ConvNeXt (2201.03545), section 2.6, in one dimension as in Vocos (2306.00814), section 3.3.

    Args:
        dim: Channels.
        expansion: Width of the hidden layer as a multiple of ``dim``.
        kernel_size: Frames the depthwise convolution sees; odd.
        layer_scale: Starting value of the gain on the block's contribution.
    """

    def __init__(self, dim: int, expansion: int = 4, kernel_size: int = 7, layer_scale: float = 0.125) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.up = Linear(dim, expansion * dim)
        self.down = Linear(expansion * dim, dim)
        self.gain = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: ``[B, T, dim]``.

        Returns:
            ``[B, T, dim]``.
        """
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.gain * self.down(F.gelu(self.up(self.norm(y))))
