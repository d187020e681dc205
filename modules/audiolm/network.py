"""AudioLM's decoder-only networks over flattened acoustic tokens (Borsos et al. 2022, sections III-C and IV-B)."""

import torch
from torch import Tensor, nn

from modules.layers import Transformer, linear, pack, rotary_at, unpack
from modules.token_network import TokenNetwork


class FlatTokenNetwork(TokenNetwork):
    """Decoder-only Transformer: condition tokens, a begin vector, then target tokens flattened frame by frame.

    The slot that predicts level q of frame t has position ``t * levels + q``, and the condition tokens of frame t are
    spread over the same positions: what belongs to one frame lies at a constant distance, so that alignment need not
    be learnt. Heads are computed for real target tokens only.

    The published networks use T5's relative positions and count 0.3 B parameters each; the width, depth and
    feed-forward size that the paper states make half of that.

    Args:
        dim: Model width D.
        num_layers: Transformer blocks.
        num_heads: Attention heads per block.
        ffn_dim: Hidden width of the feed-forward layers.
        condition_levels: Condition tokens per frame c.
        condition_size: Ids of each of them.
        levels: Target tokens per frame L.
        codebook_size: Codes C per level.
        dropout: Dropout everywhere.
        activation_checkpointing: Recompute each block in the backward pass to save memory.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
        condition_levels: int,
        condition_size: int,
        levels: int,
        codebook_size: int,
        dropout: float,
        activation_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.condition_levels = condition_levels
        self.condition_size = condition_size
        self.levels = levels
        self.codebook_size = codebook_size
        # Level by level one after the other: the published offset of (level index) * C.
        self.condition_embedding = nn.Embedding(condition_levels * condition_size, dim)
        self.code_embedding = nn.Embedding(levels * codebook_size, dim)
        self.begin = nn.Parameter(torch.randn(dim))
        self.trunk = Transformer(
            dim, num_layers, num_heads, ffn_dim, dropout, activation_checkpointing=activation_checkpointing
        )
        self.head_weight = nn.Parameter(torch.randn(levels, codebook_size, dim) * dim**-0.5)
        self.head_bias = nn.Parameter(torch.zeros(levels, codebook_size))

    def copy_start(self, condition: Tensor | None, codes: Tensor) -> None:
        """Start from vectors of variance one.

        Args:
            condition: Of the condition tokens, one level after the other, ``[c * ids, D]``; None leaves them.
            codes: Of the target codes, ``[L, C, D]``.
        """
        if condition is not None:
            self.condition_embedding.weight.copy_(condition)
        self.code_embedding.weight.copy_(codes.flatten(0, 1))
        self.head_weight.copy_(codes * self.dim**-0.5)

    def embed_condition(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Embed condition tokens ``[B, c, T]`` frame by frame.

        Returns:
            Slots ``[B, T * c, D]`` and their positions ``[T * c]``.
        """
        offsets = torch.arange(self.condition_levels, device=condition.device) * self.condition_size
        ids = (condition + offsets[:, None]).transpose(1, 2).flatten(1)
        slots = torch.arange(ids.shape[1], device=ids.device)
        return self.condition_embedding(ids), slots * (self.levels / self.condition_levels)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Embed target tokens ``[B, L, T]`` frame by frame, ``[B, T * L, D]``."""
        offsets = torch.arange(self.levels, device=codes.device) * self.codebook_size
        return self.code_embedding((codes + offsets[:, None]).transpose(1, 2).flatten(1))

    def embed_code(self, code: Tensor, level: int) -> Tensor:
        """Embed one token per row, ``[B] -> [B, D]``."""
        return self.code_embedding(code + level * self.codebook_size)

    def head(self, hidden: Tensor, level: int) -> Tensor:
        """Predict one token per row, ``[B, D] -> [B, C]``."""
        return linear(hidden, self.head_weight[level], self.head_bias[level])

    def prefix(self, condition: Tensor, codes: Tensor, lengths: Tensor, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lay out condition, begin vector and given codes.

        Args:
            condition: Condition tokens, int64 ``[B, c, T]``.
            codes: Target tokens, int64 ``[B, L, P]``.
            lengths: Frames with a condition per row, ``[B]``.
            given: Tokens of ``codes`` that exist per row, flattened, ``[B]``.

        Returns:
            Slots ``[B, S, D]``, their positions ``[B, S]`` and which of them exist, bool ``[B, S]``.
        """
        batch, device = len(condition), condition.device
        condition_slots, condition_positions = self.embed_condition(condition)
        begin = self.begin.expand(batch, 1, -1).to(condition_slots.dtype)
        x = torch.cat((condition_slots, begin, self.embed_codes(codes)), dim=1)
        slots = torch.arange(1 + codes.shape[2] * self.levels, device=device)
        positions = torch.cat((condition_positions, slots)).expand(batch, -1)
        conditions = torch.arange(condition_slots.shape[1], device=device)
        valid = torch.cat(
            (conditions < lengths[:, None] * self.condition_levels, slots <= given[:, None]),
            dim=1,
        )
        return x, positions, valid

    def forward(self, condition: Tensor, codes: Tensor, lengths: Tensor) -> Tensor:
        """Predict every target token from the condition and the target tokens before it.

        Args:
            condition: Condition tokens, int64 ``[B, c, T]``.
            codes: Target tokens, int64 ``[B, L, T]``.
            lengths: Real frames per row, int64 ``[B]``.

        Returns:
            Logits, shape ``[L, N, C]``: N real frames, row after row.
        """
        width = codes.shape[2]
        # The last token predicts nothing.
        x, positions, valid = (
            part[:, :-1] for part in self.prefix(condition, codes, lengths, lengths * self.levels - 1)
        )
        x, positions, order = pack(x, positions, valid)
        hidden = unpack(self.trunk(x, rotary_at(positions, self.trunk.head_dim)), order)
        hidden = hidden[:, -width * self.levels :].unflatten(1, (width, self.levels))
        real = torch.arange(width, device=lengths.device) < lengths[:, None]
        return torch.baddbmm(
            self.head_bias[:, None], hidden[real].transpose(0, 1).to(self.head_weight.dtype), self.head_weight.mT
        )


class CoarseNetwork(FlatTokenNetwork):
    """Coarse levels from semantic tokens; the defaults are the paper's shape.

    Semantic tokens come at the codec's frame rate, one per frame, each of the published 25 per second twice: the
    token sets of this project hold them so, and nothing is de-duplicated (as in SoundStorm's comparison).

    Args:
        dim: Model width D.
        num_layers: Transformer blocks.
        num_heads: Attention heads per block.
        ffn_dim: Hidden width of the feed-forward layers.
        num_quantizers: RVQ levels Q of the token set.
        coarse_levels: Levels that this stage generates.
        codebook_size: Codes C per level.
        semantic_vocab_size: Number of semantic tokens.
        dropout: Dropout everywhere.
        activation_checkpointing: Recompute each block in the backward pass to save memory.
    """

    def __init__(
        self,
        dim: int = 1024,
        num_layers: int = 12,
        num_heads: int = 16,
        ffn_dim: int = 4096,
        num_quantizers: int = 12,
        coarse_levels: int = 4,
        codebook_size: int = 1024,
        semantic_vocab_size: int = 1024,
        dropout: float = 0.1,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            dim, num_layers, num_heads, ffn_dim, 1, semantic_vocab_size, coarse_levels, codebook_size, dropout,
            activation_checkpointing,
        )  # fmt: skip
        if not 1 <= coarse_levels < num_quantizers:
            raise ValueError(f"coarse_levels={coarse_levels} must lie between 1 and num_quantizers - 1")
        self.num_quantizers = num_quantizers
        self.semantic_vocab_size = semantic_vocab_size

    def start_from(self, codes: Tensor, semantic: Tensor | None) -> None:
        """Copy vectors ``[Q, C, D]`` and ``[K, D]`` to where they belong."""
        self.copy_start(semantic, codes[: self.levels])


class FineNetwork(FlatTokenNetwork):
    """Fine levels from the coarse ones, without semantic tokens; the defaults are the paper's shape.

    Args:
        dim: Model width D.
        num_layers: Transformer blocks.
        num_heads: Attention heads per block.
        ffn_dim: Hidden width of the feed-forward layers.
        num_quantizers: RVQ levels Q of the token set.
        coarse_levels: Levels that are given; this stage generates the others.
        codebook_size: Codes C per level.
        semantic_vocab_size: Number of semantic tokens of the token set; not used.
        dropout: Dropout everywhere.
        activation_checkpointing: Recompute each block in the backward pass to save memory.
    """

    def __init__(
        self,
        dim: int = 1024,
        num_layers: int = 12,
        num_heads: int = 16,
        ffn_dim: int = 4096,
        num_quantizers: int = 12,
        coarse_levels: int = 4,
        codebook_size: int = 1024,
        semantic_vocab_size: int = 1024,
        dropout: float = 0.1,
        activation_checkpointing: bool = False,
    ) -> None:
        if not 1 <= coarse_levels < num_quantizers:
            raise ValueError(f"coarse_levels={coarse_levels} must lie between 1 and num_quantizers - 1")
        super().__init__(
            dim, num_layers, num_heads, ffn_dim, coarse_levels, codebook_size, num_quantizers - coarse_levels,
            codebook_size, dropout, activation_checkpointing,
        )  # fmt: skip
        self.num_quantizers = num_quantizers
        self.semantic_vocab_size = semantic_vocab_size

    def start_from(self, codes: Tensor, semantic: Tensor | None) -> None:
        """Copy vectors ``[Q, C, D]`` to where they belong."""
        self.copy_start(codes[: self.condition_levels].flatten(0, 1), codes[self.condition_levels :])
