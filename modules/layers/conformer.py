"""Bidirectional Conformer (Gulati et al. 2020) with rotary positions, safe for padded batches.

Two choices follow from SoundStorm's published size (350 M parameters; 354 M counted with them): half-step feed-forward
layers on both sides of each block (macaron), and a convolution module that widens to twice the model width. The batch
norm of the original is a layer norm here, because batch statistics would let a row's result depend on its neighbours
and on padding.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modules.layers.matmul import Linear
from modules.layers.rotary import apply_rotary, rotary_angles


class FeedForward(nn.Sequential):
    """Pre-norm feed-forward layer, ``[..., D] -> [..., D]``."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(dim),
            Linear(dim, hidden_dim),
            nn.SiLU(),
            nn.Dropout(dropout),
            Linear(hidden_dim, dim),
            nn.Dropout(dropout),
        )


class SelfAttention(nn.Module):
    """Pre-norm bidirectional self-attention with rotary positions.

    Args:
        dim: Model width D.
        num_heads: Attention heads; the head width ``dim / num_heads`` must be even.
        dropout: Dropout on the output.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % (2 * num_heads):
            raise ValueError(f"dim={dim} does not split into num_heads={num_heads} heads of even width")
        self.num_heads = num_heads
        self.dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = Linear(dim, 3 * dim, bias=False)
        self.to_out = Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], valid: Tensor | None) -> Tensor:
        """Attend over all valid frames.

        Args:
            x: Frames, shape ``[B, T, D]``.
            rotary: Cosines and sines of :func:`rotary_angles`.
            valid: Frames that may be attended to, bool ``[B, T]``; None if all.

        Returns:
            Shape ``[B, T, D]``; values at invalid frames are meaningless.
        """
        q, k, v = rearrange(self.to_qkv(self.norm(x)), "b t (n h d) -> n b h t d", n=3, h=self.num_heads)
        q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        mask = None if valid is None else valid[:, None, None, :]
        # No dropout of attention weights: on a CPU it would rule out the kernels that never hold all weights at once.
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = self.to_out(rearrange(out, "b h t d -> b t (h d)"))
        return F.dropout(out, self.dropout, self.training)


class ConvolutionModule(nn.Module):
    """Pre-norm gated depthwise convolution over time.

    Args:
        dim: Model width D.
        kernel_size: Odd number of frames the depthwise convolution sees.
        expansion: Width inside the module, as a multiple of D.
        dropout: Dropout on the output.
    """

    def __init__(self, dim: int, kernel_size: int, expansion: int, dropout: float) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size={kernel_size} must be odd, so that the padding is symmetric")
        inner = expansion * dim
        self.norm = nn.LayerNorm(dim)
        self.expand = Linear(dim, 2 * inner)
        self.depthwise = nn.Conv1d(inner, inner, kernel_size, padding=kernel_size // 2, groups=inner)
        self.inner_norm = nn.LayerNorm(inner)
        self.project = Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Convolve over time; frames that are not valid count as the zeros beyond the end.

        Args:
            x: Frames, shape ``[B, T, D]``.
            valid: Frames that belong to the sequence, bool ``[B, T]``; None if all.

        Returns:
            Shape ``[B, T, D]``.
        """
        x = F.glu(self.expand(self.norm(x)), dim=-1)
        if valid is not None:
            x = x * valid.unsqueeze(-1).to(x.dtype)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.project(F.silu(self.inner_norm(x))))


class ConformerBlock(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, layer norm."""

    def __init__(
        self, dim: int, num_heads: int, ffn_dim: int, conv_kernel_size: int, conv_expansion: int, dropout: float
    ) -> None:
        super().__init__()
        self.ffn_in = FeedForward(dim, ffn_dim, dropout)
        self.attention = SelfAttention(dim, num_heads, dropout)
        self.convolution = ConvolutionModule(dim, conv_kernel_size, conv_expansion, dropout)
        self.ffn_out = FeedForward(dim, ffn_dim, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], valid: Tensor | None) -> Tensor:
        """Map frames to frames, ``[B, T, D] -> [B, T, D]``."""
        x = torch.add(x, self.ffn_in(x), alpha=0.5)
        x = x + self.attention(x, rotary, valid)
        x = x + self.convolution(x, valid)
        x = torch.add(x, self.ffn_out(x), alpha=0.5)
        return self.norm(x)


class Conformer(nn.Module):
    """A stack of Conformer blocks.

    Args:
        dim: Model width D.
        num_layers: Number of blocks.
        num_heads: Attention heads per block.
        ffn_dim: Hidden width of each feed-forward layer.
        conv_kernel_size: Odd kernel of the depthwise convolution, in frames.
        conv_expansion: Inner width of the convolution module, as a multiple of D.
        dropout: Dropout everywhere.
        activation_checkpointing: Recompute each block in the backward pass: less memory, a third more time.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
        conv_kernel_size: int = 5,
        conv_expansion: int = 2,
        dropout: float = 0.1,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        self.activation_checkpointing = activation_checkpointing
        self.blocks = nn.ModuleList(
            ConformerBlock(dim, num_heads, ffn_dim, conv_kernel_size, conv_expansion, dropout)
            for _ in range(num_layers)
        )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map frames to frames; what stands at invalid frames never reaches a valid one.

        Args:
            x: Frames, shape ``[B, T, D]``.
            valid: Frames that belong to the sequence, bool ``[B, T]``; None if all.

        Returns:
            Shape ``[B, T, D]``.
        """
        rotary = rotary_angles(x.shape[1], self.head_dim, x.device)
        for block in self.blocks:
            if self.activation_checkpointing and self.training:
                x = checkpoint(block, x, rotary, valid, use_reentrant=False)
            else:
                x = block(x, rotary, valid)
        return x
