"""Pre-norm Transformer (Vaswani et al. 2017) with rotary positions: causal with a key-value cache, or bidirectional."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modules.layers.matmul import Linear
from modules.layers.rotary import apply_rotary

Rotary = tuple[Tensor, Tensor]


def rotary_at(positions: Tensor, head_dim: int, base: float = 10_000.0) -> Rotary:
    """Return cosines and sines for positions that differ from row to row.

    Args:
        positions: Position of each slot, any real numbers, ``[B, L]`` (or ``[1, L]``).
        head_dim: Width of one attention head, even.
        base: Wavelength base of RoFormer.

    Returns:
        Cosines and sines, float32, each ``[B, 1, L, head_dim / 2]``: ready for queries ``[B, H, L, head_dim]``.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions.float()[:, None, :, None] * base**-exponents
    return angles.cos(), angles.sin()


class KeyValueCache:
    """Keys and values of all slots so far, in memory taken once.

    Args:
        capacity: Most slots that a row will ever have.

    Attributes:
        slot: Where the next slot goes, int64 ``[1]``. While it is set, keys and values of all slots, also of those to
            come, are handed out, so that shapes never change; what may be seen is for the caller to say.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.slot: Tensor | None = None
        self._layers: list[tuple[Tensor, Tensor]] = []

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add a layer's new keys and values ``[B, H, L, d]``; return those of all slots so far, without a copy.

        Raises:
            ValueError: There is no room left.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"{end} slots do not fit into a key-value cache of {self.capacity}")
        if layer == len(self._layers):
            shape = (*keys.shape[:2], self.capacity, keys.shape[3])
            # Zeros: what is not seen is multiplied by 0, which does not make a number of what is none.
            self._layers.append((keys.new_zeros(shape), values.new_zeros(shape)))
        all_keys, all_values = self._layers[layer]
        if self.slot is not None:
            return all_keys.index_copy_(2, self.slot, keys), all_values.index_copy_(2, self.slot, values)
        all_keys[:, :, self.length : end] = keys
        all_values[:, :, self.length : end] = values
        return all_keys[:, :, :end], all_values[:, :, :end]


class LevelNorm(nn.Module):
    """Layer norm whose scale and shift may depend on an RVQ level: VALL-E's adaptive layer norm.

    VALL-E projects a level embedding to scale and shift; for a handful of levels a table of both says the same.

    Args:
        dim: Model width D.
        num_levels: Levels with a scale and shift of their own; 0 for a plain layer norm.
    """

    def __init__(self, dim: int, num_levels: int = 0) -> None:
        super().__init__()
        self.dim = dim
        self.plain = None if num_levels else nn.LayerNorm(dim)
        self.by_level = nn.Embedding(num_levels, 2 * dim) if num_levels else None
        if self.by_level is not None:
            nn.init.ones_(self.by_level.weight[:, :dim])
            nn.init.zeros_(self.by_level.weight[:, dim:])

    def forward(self, x: Tensor, level: Tensor | None) -> Tensor:
        """Normalise ``[B, L, D]``, each row for its level ``[B]``."""
        if self.plain is not None:
            return self.plain(x)
        assert self.by_level is not None
        assert level is not None, "a norm with levels needs to know each row's"
        scale, shift = self.by_level(level)[:, None].chunk(2, dim=-1)
        return F.layer_norm(x, (self.dim,)) * scale + shift


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward layer, each behind a norm and beside a residual path."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, dropout: float, num_levels: int) -> None:
        super().__init__()
        if dim % (2 * num_heads):
            raise ValueError(f"dim={dim} does not split into num_heads={num_heads} heads of even width")
        self.num_heads = num_heads
        self.dropout = dropout
        self.attention_norm = LevelNorm(dim, num_levels)
        self.to_qkv = Linear(dim, 3 * dim, bias=False)
        self.to_out = Linear(dim, dim, bias=False)
        self.ffn_norm = LevelNorm(dim, num_levels)
        self.ffn = nn.Sequential(Linear(dim, ffn_dim), nn.GELU(), nn.Dropout(dropout), Linear(ffn_dim, dim))

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        mask: Tensor | None,
        is_causal: bool,
        level: Tensor | None,
        cache: tuple[KeyValueCache, int] | None,
    ) -> Tensor:
        """Map slots to slots, ``[B, L, D] -> [B, L, D]``."""
        qkv = self.to_qkv(self.attention_norm(x, level)).unflatten(-1, (3, self.num_heads, -1))
        queries_keys, v = qkv.permute(2, 0, 3, 1, 4).split((2, 1))
        (q, k), v = apply_rotary(queries_keys, *rotary), v[0]
        if cache is not None:
            k, v = cache[0].extend(cache[1], k, v)
        # No dropout of attention weights: on a CPU it would rule out the kernels that never hold all weights at once.
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
        x = x + F.dropout(self.to_out(out.transpose(1, 2).flatten(2)), self.dropout, self.training)
        return x + F.dropout(self.ffn(self.ffn_norm(x, level)), self.dropout, self.training)


class Transformer(nn.Module):
    """A stack of Transformer blocks and a last norm.

    Args:
        dim: Model width D.
        num_layers: Number of blocks.
        num_heads: Attention heads per block.
        ffn_dim: Hidden width of each feed-forward layer.
        dropout: Dropout of what attention and feed-forward layers add, and inside the latter.
        causal: Whether a slot sees only itself and earlier ones.
        num_levels: RVQ levels that norms adapt to; 0 for plain norms.
        activation_checkpointing: Recompute each block in the backward pass: less memory, a third more time.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
        dropout: float = 0.1,
        causal: bool = True,
        num_levels: int = 0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        self.causal = causal
        self.activation_checkpointing = activation_checkpointing
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, num_heads, ffn_dim, dropout, num_levels) for _ in range(num_layers)
        )
        self.norm = LevelNorm(dim, num_levels)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        valid: Tensor | None = None,
        level: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Map slots to slots; what stands in slots that are not valid never reaches a valid one.

        A causal Transformer needs no ``valid`` where only the end of a row is padding: nothing looks there.

        Args:
            x: New slots, shape ``[B, L, D]``.
            rotary: Angles of the new slots, see :func:`rotary_at`.
            valid: Slots that may be attended to, those in the cache first, bool ``[B, S]``; None if all.
            level: RVQ level of each row, int64 ``[B]``, where norms adapt to it.
            cache: Slots before the new ones; the new ones are added.

        Returns:
            Shape ``[B, L, D]``; values at slots that are not valid are meaningless.
        """
        past, new = cache.length if cache is not None else 0, x.shape[1]
        # Without padding, torch's own causal flag is the fastest; a single last slot sees all there is.
        is_causal = self.causal and valid is None and past == 0 and new > 1
        mask = None if is_causal or (valid is None and new == 1) else self._mask(valid, past, new, x.device)
        for i, block in enumerate(self.blocks):
            if self.activation_checkpointing and self.training:
                x = checkpoint(block, x, rotary, mask, is_causal, level, None, use_reentrant=False)
            else:
                x = block(x, rotary, mask, is_causal, level, None if cache is None else (cache, i))
        if cache is not None:
            cache.length += new
        return self.norm(x, level)

    def _mask(self, valid: Tensor | None, past: int, new: int, device: torch.device) -> Tensor | None:
        """Say which slot sees which, bool ``[B, 1, L or 1, S]``; None if each sees all."""
        seen = None if valid is None else valid[:, None, None, : past + new]
        if not self.causal or new == 1:
            return seen
        own = torch.arange(past, past + new, device=device)[:, None]
        slots = torch.arange(past + new, device=device)
        if seen is None:
            return (slots <= own)[None, None]
        # A slot always sees itself: attention over no slot at all would be not a number, and spread.
        return (seen & (slots <= own)) | (slots == own)
