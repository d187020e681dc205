"""SoundStorm's network (Borsos et al. 2023, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.layers import Conformer, linear
from modules.token_network import TokenNetwork


class SoundStormNetwork(TokenNetwork):
    """Bidirectional Conformer over frames: summed token embeddings in, one dense head per RVQ level out.

    The semantic token and the Q acoustic tokens of a frame are embedded and summed to one vector, so that the sequence
    is as long as the audio has frames, whatever Q is. Each level has its own embedding table with one more entry than
    codes, :attr:`mask_id`, which stands for a token yet to be predicted. The defaults are the paper's model, 354 M
    parameters.

    Args:
        dim: Model width D.
        num_layers: Conformer blocks.
        num_heads: Attention heads per block.
        ffn_dim: Hidden width of the feed-forward layers.
        conv_kernel_size: Odd kernel of the depthwise convolutions, in frames.
        num_quantizers: RVQ levels Q.
        codebook_size: Codes C per level.
        semantic_vocab_size: Number of semantic tokens.
        conv_expansion: Inner width of the convolution modules, as a multiple of D.
        dropout: Dropout everywhere; the paper does not state it.
        activation_checkpointing: Recompute each block in the backward pass to save memory.
    """

    def __init__(
        self,
        dim: int = 1024,
        num_layers: int = 12,
        num_heads: int = 16,
        ffn_dim: int = 4096,
        conv_kernel_size: int = 5,
        num_quantizers: int = 12,
        codebook_size: int = 1024,
        semantic_vocab_size: int = 1024,
        conv_expansion: int = 2,
        dropout: float = 0.1,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"num_layers": num_layers, "num_quantizers": num_quantizers, "codebook_size": codebook_size}
        for name, size in (sizes | {"semantic_vocab_size": semantic_vocab_size}).items():
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        self.dim, self.num_layers, self.num_heads, self.ffn_dim = dim, num_layers, num_heads, ffn_dim
        self.conv_kernel_size, self.conv_expansion, self.dropout = conv_kernel_size, conv_expansion, dropout
        self.num_quantizers = num_quantizers
        self.codebook_size = codebook_size
        self.semantic_vocab_size = semantic_vocab_size
        # One id beyond the semantic tokens says "no condition", for classifier-free guidance.
        self.semantic_embedding = nn.Embedding(semantic_vocab_size + 1, dim)
        # All levels in one table, level q in rows q * (C + 1) onwards: a frame's sum is then one lookup.
        self.code_embedding = nn.Embedding(num_quantizers * (codebook_size + 1), dim)
        self.trunk = Conformer(
            dim, num_layers, num_heads, ffn_dim, conv_kernel_size, conv_expansion, dropout, activation_checkpointing
        )
        self.head_weight = nn.Parameter(torch.empty(num_quantizers, codebook_size, dim))
        self.head_bias = nn.Parameter(torch.zeros(num_quantizers, codebook_size))
        # Unit variance for the sum of Q + 1 embeddings, so that the first block sees what its layer norm expects.
        for parameter in (self.semantic_embedding.weight, self.code_embedding.weight):
            nn.init.normal_(parameter, std=(num_quantizers + 1) ** -0.5)
        nn.init.normal_(self.head_weight, std=dim**-0.5)

    def start_from(self, codes: Tensor, semantic: Tensor | None) -> None:
        """Start embeddings and heads from what tokens stand for, see :meth:`initialize_from_codebooks`.

        A head row points where the embedding of its code points. Masks start as zero: a masked token says nothing.
        """
        table = self.code_embedding.weight.view(self.num_quantizers, self.codebook_size + 1, self.dim)
        table[:, : self.codebook_size] = codes * (self.num_quantizers + 1) ** -0.5
        table[:, self.mask_id] = 0
        self.head_weight.copy_(codes * self.dim**-0.5)
        if semantic is not None:
            # As large as all acoustic tokens together: where those are masked, it is all there is.
            self.semantic_embedding.weight[: self.semantic_vocab_size] = semantic

    @property
    def mask_id(self) -> int:
        """The id that stands for a masked token, one per level: C."""
        return self.codebook_size

    @property
    def null_semantic_id(self) -> int:
        """The semantic id that stands for "no condition"."""
        return self.semantic_vocab_size

    def embed_codes(self, codes: Tensor, level: int) -> Tensor:
        """Embed the codes of one level.

        Args:
            codes: Ids in ``[0, C]`` (C is the mask), any shape.
            level: RVQ level, 0-based.

        Returns:
            Embeddings, the shape of ``codes`` with D added at the end.
        """
        return self.code_embedding(codes + level * (self.codebook_size + 1))

    def embed_semantic(self, semantic: Tensor) -> Tensor:
        """Embed semantic tokens, or what they may be.

        Args:
            semantic: Semantic tokens, int64 ``[B, T]``; or the probability of each, floats ``[B, T, V]``, of which what
                is lacking to 1 is the share of "no condition".

        Returns:
            Embeddings, or their means, ``[B, T, D]``.
        """
        if not semantic.is_floating_point():
            return self.semantic_embedding(semantic)
        table = self.semantic_embedding.weight
        unknown = 1 - semantic.sum(dim=-1, keepdim=True)
        # As exact as a lookup is.
        with torch.autocast(table.device.type, enabled=False):
            return torch.cat([semantic, unknown], dim=-1).to(table) @ table

    def hide_semantic(self, semantic: Tensor, rows: Tensor) -> Tensor:
        """Put "no condition" in the place of the semantic tokens of some rows.

        Args:
            semantic: Semantic tokens or probabilities, as in :meth:`embed_semantic`.
            rows: Rows to hide, bool ``[B]``.

        Returns:
            What :meth:`embed_semantic` takes, of the shape of ``semantic``.
        """
        nothing = 0.0 if semantic.is_floating_point() else self.null_semantic_id
        return torch.where(rows.view(-1, *[1] * (semantic.ndim - 1)), nothing, semantic)

    def embed(self, semantic: Tensor, codes: Tensor) -> Tensor:
        """Sum the embeddings of each frame's semantic token and Q acoustic tokens.

        Args:
            semantic: Semantic tokens, int64 ``[B, T]``, or probabilities, as in :meth:`embed_semantic`.
            codes: Acoustic tokens or masks, int64 ``[B, Q, T]``.

        Returns:
            Frames, shape ``[B, T, D]``.
        """
        offsets = torch.arange(self.num_quantizers, device=codes.device) * (self.codebook_size + 1)
        ids = (codes + offsets[:, None]).transpose(1, 2)
        acoustic = F.embedding_bag(ids.reshape(-1, self.num_quantizers), self.code_embedding.weight, mode="sum")
        return self.embed_semantic(semantic) + acoustic.view(*semantic.shape[:2], -1)

    def contextualize(self, frames: Tensor, valid: Tensor | None = None) -> Tensor:
        """Run the Conformer, ``[B, T, D] -> [B, T, D]``; ``valid`` (bool ``[B, T]``) marks the frames that exist."""
        return self.trunk(frames, valid)

    def head(self, hidden: Tensor, level: int) -> Tensor:
        """Predict the tokens of one level.

        Args:
            hidden: Trunk outputs, shape ``[..., D]``.
            level: RVQ level, 0-based.

        Returns:
            Logits, shape ``[..., C]``.
        """
        return linear(hidden, self.head_weight[level], self.head_bias[level])

    def forward(
        self, semantic: Tensor, codes: Tensor, level: Tensor, rows: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Predict the tokens asked for, each at its example's level; other heads and frames are not computed.

        Args:
            semantic: Semantic tokens, int64 ``[B, T]``, or probabilities, as in :meth:`embed_semantic`.
            codes: Acoustic tokens with masks, int64 ``[B, Q, T]``.
            level: RVQ level asked for, per example, int64 ``[B]``.
            rows: Frames asked for, bool ``[B, T]``.
            valid: Frames that exist, bool ``[B, T]``; None if all.

        Returns:
            Logits, shape ``[N, C]``: one row per True in ``rows``, in row-major order.
        """
        hidden = self.contextualize(self.embed(semantic, codes), valid)[rows]
        levels = level[:, None].expand_as(rows)[rows]
        order = levels.argsort(stable=True)
        counts = levels.bincount(minlength=self.num_quantizers).tolist()
        groups = hidden[order].split(counts)
        # Unbound once: the gradient of each head_weight[q] would be a tensor of the size of all heads.
        heads = zip(groups, self.head_weight.unbind(), self.head_bias.unbind(), strict=True)
        logits = torch.cat([linear(group, weight, bias) for group, weight, bias in heads])
        return torch.empty_like(logits).index_copy(0, order, logits)
