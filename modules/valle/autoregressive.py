"""VALL-E's autoregressive network for the first RVQ level (Wang et al. 2023), with VALL-E 2's groups of frames."""

import torch
from torch import Tensor, nn

from modules.layers import Linear, Transformer, pack, rotary_at, unpack
from modules.token_network import TokenNetwork


class AutoregressiveNetwork(TokenNetwork):
    """Decoder-only Transformer: semantic tokens, a begin vector, then the first level's codes in groups of frames.

    Groups are VALL-E 2's (Chen et al. 2024, section 3.2): the embeddings of G consecutive frames are concatenated and
    projected to one slot, and one slot predicts G codes at once. A group size of 1 is VALL-E. Where groups do not begin
    at the first frame, the first group is filled up in front with "nothing"; training sees every such offset, so that a
    prompt of any length can end with a whole group (VALL-E 2 cuts frames off instead).

    What the published systems do otherwise: phonemes (BPE in VALL-E 2) in the place of semantic tokens, sinusoidal
    positions, and an end token, since text does not say how long speech is; semantic tokens do. Here the slot that
    predicts frame t has the position of semantic token t.

    The defaults are the paper's shape.

    Args:
        dim: Model width D.
        num_layers: Transformer blocks.
        num_heads: Attention heads per block.
        ffn_dim: Hidden width of the feed-forward layers.
        num_quantizers: RVQ levels Q of the token set.
        codebook_size: Codes C per level.
        semantic_vocab_size: Number of semantic tokens.
        group_size: Frames per group G: 1, 2, 4 or 8 in VALL-E 2.
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
        codebook_size: int = 1024,
        semantic_vocab_size: int = 1024,
        group_size: int = 1,
        dropout: float = 0.1,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if group_size < 1:
            raise ValueError(f"group_size={group_size} must be at least 1")
        self.dim = dim
        self.num_quantizers = num_quantizers
        self.codebook_size = codebook_size
        self.semantic_vocab_size = semantic_vocab_size
        self.group_size = group_size
        self.semantic_embedding = nn.Embedding(semantic_vocab_size, dim)
        self.code_embedding = nn.Embedding(codebook_size + 1, dim)
        self.begin = nn.Parameter(torch.randn(dim))
        self.trunk = Transformer(
            dim, num_layers, num_heads, ffn_dim, dropout, activation_checkpointing=activation_checkpointing
        )
        grouped = group_size > 1
        self.group_in = Linear(group_size * dim, dim) if grouped else nn.Identity()
        self.group_out = Linear(dim, group_size * dim) if grouped else nn.Identity()
        self.head = Linear(dim, codebook_size)
        nn.init.normal_(self.head.weight, std=dim**-0.5)
        nn.init.zeros_(self.head.bias)

    def start_from(self, codes: Tensor, semantic: Tensor | None) -> None:
        """Copy vectors ``[Q, C, D]`` and ``[K, D]`` to where they belong."""
        self.code_embedding.weight[: self.codebook_size] = codes[0]
        self.head.weight.copy_(codes[0] * self.dim**-0.5)
        if semantic is not None:
            self.semantic_embedding.weight.copy_(semantic)

    @property
    def nothing_id(self) -> int:
        """The id that stands for no frame: C."""
        return self.codebook_size

    def embed_groups(self, codes: Tensor) -> Tensor:
        """Embed codes ``[B, N * G]`` group by group, ``[B, N, D]``."""
        return self.group_in(self.code_embedding(codes).unflatten(1, (-1, self.group_size)).flatten(2))

    def spread(self, hidden: Tensor) -> Tensor:
        """Turn slots ``[..., D]`` into what the heads of their G frames see, ``[..., G, D]``."""
        return self.group_out(hidden).unflatten(-1, (self.group_size, -1))

    def prefix(
        self, semantic: Tensor, codes: Tensor, lengths: Tensor, groups: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Lay out semantic tokens, begin vector and groups.

        Args:
            semantic: Semantic tokens, int64 ``[B, T]``.
            codes: Codes of the first level in groups, "nothing" in front included, int64 ``[B, N * G]``.
            lengths: Semantic tokens per row, ``[B]``.
            groups: Groups that exist per row, ``[B]``.
            offset: Frames of "nothing" in front of each row, ``[B]``.

        Returns:
            Slots ``[B, S, D]``, their positions ``[B, S]`` and which of them exist, bool ``[B, S]``.
        """
        batch, frames = semantic.shape
        device, embedded = semantic.device, self.semantic_embedding(semantic)
        begin = self.begin.expand(batch, 1, -1).to(embedded.dtype)
        x = torch.cat((embedded, begin, self.embed_groups(codes)), dim=1)
        frame, slot = torch.arange(frames, device=device), torch.arange(x.shape[1] - frames, device=device)
        positions = torch.cat((frame.expand(batch, -1), slot * self.group_size - offset[:, None]), dim=1)
        valid = torch.cat((frame < lengths[:, None], slot <= groups[:, None]), dim=1)
        return x, positions, valid

    def shift(self, codes: Tensor, lengths: Tensor, offset: Tensor, width: int) -> Tensor:
        """Put ``offset`` frames of "nothing" before each row ``[B, T]`` and behind its end, ``[B, width]``."""
        frame = torch.arange(width, device=codes.device) - offset[:, None]
        moved = codes.gather(1, frame.clamp(0, codes.shape[1] - 1))
        return moved.masked_fill((frame < 0) | (frame >= lengths[:, None]), self.nothing_id)

    def forward(self, semantic: Tensor, codes: Tensor, lengths: Tensor, offset: Tensor) -> Tensor:
        """Predict every code of the first level from the semantic tokens and the groups before its own.

        Args:
            semantic: Semantic tokens, int64 ``[B, T]``.
            codes: Codes of the first level, int64 ``[B, T]``.
            lengths: Real frames per row, int64 ``[B]``.
            offset: Frames of "nothing" in front of each row, below G, int64 ``[B]``.

        Returns:
            Logits, shape ``[N, C]``: N real frames, row after row.
        """
        width, size = semantic.shape[1], self.group_size
        count = -(-(width + size - 1) // size)
        groups = (lengths + offset + size - 1) // size
        shifted = self.shift(codes, lengths, offset, count * size)
        # The last group predicts nothing.
        x, positions, valid = (part[:, :-1] for part in self.prefix(semantic, shifted, lengths, groups - 1, offset))
        x, positions, order = pack(x, positions, valid)
        hidden = unpack(self.trunk(x, rotary_at(positions, self.trunk.head_dim)), order)
        per_frame = self.spread(hidden[:, width:]).flatten(1, 2)
        frame = torch.arange(count * size, device=codes.device) - offset[:, None]
        return self.head(per_frame[(frame >= 0) & (frame < lengths[:, None])])
