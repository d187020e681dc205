"""VALL-E's non-autoregressive network for all RVQ levels but the first (Wang et al. 2023, section 4.2.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.layers import Transformer, linear, rotary_at
from modules.token_network import TokenNetwork


class NonAutoregressiveNetwork(TokenNetwork):
    """Bidirectional Transformer over semantic tokens and frames that predicts a whole level from those above it.

    A frame is the sum of the embeddings of its codes: of all levels in the prompt, of the levels above the one asked
    for elsewhere. Norms adapt to the level. Each level has its own embedding table, which is also its output layer.

    What the published system does otherwise: phonemes in the place of semantic tokens; sinusoidal positions; no mark
    on the frames of the prompt. Here semantic token t has the position of frame t.

    The defaults are the paper's shape.

    Args:
        dim: Model width D.
        num_layers: Transformer blocks.
        num_heads: Attention heads per block.
        ffn_dim: Hidden width of the feed-forward layers.
        num_quantizers: RVQ levels Q.
        codebook_size: Codes C per level.
        semantic_vocab_size: Number of semantic tokens.
        dropout: Dropout everywhere.
        activation_checkpointing: Recompute each block in the backward pass to save memory.

    Raises:
        ValueError: There is but one level.
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
        dropout: float = 0.1,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if num_quantizers < 2:
            raise ValueError(f"num_quantizers={num_quantizers}: there is no level beyond the first to predict")
        self.dim = dim
        self.num_quantizers = num_quantizers
        self.codebook_size = codebook_size
        self.semantic_vocab_size = semantic_vocab_size
        self.semantic_embedding = nn.Embedding(semantic_vocab_size, dim)
        # Level q in rows q * C onwards; one more row for what is not to be seen.
        self.code_embedding = nn.Embedding(num_quantizers * codebook_size + 1, dim)
        # As an output layer a table has to be small; as an input it is scaled up to a sum of unit variance.
        nn.init.normal_(self.code_embedding.weight, std=dim**-0.5)
        self.input_scale = (dim / num_quantizers) ** 0.5
        self.head_bias = nn.Parameter(torch.zeros(num_quantizers, codebook_size))
        self.part_embedding = nn.Embedding(2, dim)  # target and prompt
        self.trunk = Transformer(
            dim, num_layers, num_heads, ffn_dim, dropout, causal=False, num_levels=num_quantizers - 1,
            activation_checkpointing=activation_checkpointing,
        )  # fmt: skip

    def start_from(self, codes: Tensor, semantic: Tensor | None) -> None:
        """Copy vectors ``[Q, C, D]`` and ``[K, D]`` to where they belong."""
        self.code_embedding.weight[:-1] = codes.flatten(0, 1) * self.dim**-0.5
        if semantic is not None:
            self.semantic_embedding.weight.copy_(semantic)

    def contextualize(
        self, semantic: Tensor, codes: Tensor, lengths: Tensor, prompt_frames: Tensor, level: Tensor
    ) -> Tensor:
        """Run the Transformer with what may be seen to predict a level of each row.

        Args:
            semantic: Semantic tokens, int64 ``[B, T]``.
            codes: Codes, int64 ``[B, Q, T]``; at target frames only the levels above ``level`` are read.
            lengths: Real frames per row, ``[B]``.
            prompt_frames: Leading frames that are given at every level, ``[B]``.
            level: Level to be predicted per row, 1 to Q - 1 (0 is the first), int64 ``[B]``.

        Returns:
            Outputs at the frames, shape ``[B, T, D]``.
        """
        width, device = semantic.shape[1], semantic.device
        frame, levels = torch.arange(width, device=device), torch.arange(self.num_quantizers, device=device)
        in_prompt = frame < prompt_frames[:, None]
        seen = in_prompt[:, None] | (levels[:, None] < level[:, None, None])
        nothing = self.num_quantizers * self.codebook_size
        ids = torch.where(seen, codes + levels[:, None] * self.codebook_size, nothing)
        bags = ids.transpose(1, 2).reshape(-1, self.num_quantizers)
        summed = F.embedding_bag(bags, self.code_embedding.weight, mode="sum", padding_idx=nothing)
        frames = self.input_scale * summed.view(*semantic.shape, -1) + self.part_embedding(in_prompt.long())
        x = torch.cat((self.semantic_embedding(semantic), frames), dim=1)
        rotary = rotary_at(frame.repeat(2)[None], self.trunk.head_dim)
        # Attention without a mask is faster.
        valid = None if int(lengths.min()) == width else (frame < lengths[:, None]).repeat(1, 2)
        return self.trunk(x, rotary, valid, level - 1)[:, width:]

    def head(self, hidden: Tensor, level: int) -> Tensor:
        """Predict the codes of one level, ``[..., D] -> [..., C]``."""
        first = level * self.codebook_size
        return linear(hidden, self.code_embedding.weight[first : first + self.codebook_size], self.head_bias[level])

    def forward(
        self, semantic: Tensor, codes: Tensor, lengths: Tensor, prompt_frames: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the target frames of each row at its level; other heads and frames are not computed.

        Args:
            semantic: See :meth:`contextualize`.
            codes: See :meth:`contextualize`.
            lengths: See :meth:`contextualize`.
            prompt_frames: See :meth:`contextualize`.
            level: See :meth:`contextualize`.

        Returns:
            Logits ``[N, C]``, the true codes ``[N]`` and their levels ``[N]``: all target frames, level after level.
        """
        hidden = self.contextualize(semantic, codes, lengths, prompt_frames, level)
        frame = torch.arange(semantic.shape[1], device=semantic.device)
        target = (frame >= prompt_frames[:, None]) & (frame < lengths[:, None])
        logits, true, levels = [], [], []
        for q in level.unique().tolist():
            rows = target & (level == q)[:, None]
            logits.append(self.head(hidden[rows], q))
            true.append(codes[:, q][rows])
            levels.append(torch.full_like(true[-1], q))
        return torch.cat(logits), torch.cat(true), torch.cat(levels)
