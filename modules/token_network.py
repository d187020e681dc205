"""What every network over tokens has in common, free of what training needs: who only speaks does not load that."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modules.codebook_start import spread_codebooks


class TokenNetwork(nn.Module, ABC):
    """A network over tokens: a trunk between embeddings and heads, and how many tokens of which kind there are."""

    num_quantizers: int
    codebook_size: int
    semantic_vocab_size: int
    dim: int
    # Identities of the codec and the semantic tokenizer of the tokens it was trained on; None for random weights.
    trained_on: dict[str, Any] | None = None
    trunk: Any  # what lies between: a Conformer, or a Transformer

    @torch.no_grad()
    def initialize_from_codebooks(
        self, code_vectors: Tensor, semantic_vectors: Tensor | None = None, seed: int = 0
    ) -> None:
        """Set embeddings and heads so that tokens which sound alike begin alike.

        The papers say nothing of how they begin. From noise, each of some 12 000 codes has to be learnt by itself; from
        here, the first thing to learn is a map between two spaces of sounds.

        Args:
            code_vectors: What each code stands for, ``[Q, C, d]``, see ``AudioCodec.code_vectors``.
            semantic_vectors: What each semantic token stands for, ``[K, d']``; None leaves the random start.
            seed: Seed of the rotations that spread the vectors over all dimensions.

        Raises:
            ValueError: The numbers of levels, codes or semantic tokens are not the network's.
        """
        wanted = (self.num_quantizers, self.codebook_size)
        if tuple(code_vectors.shape[:2]) != wanted:
            raise ValueError(
                f"code vectors of {list(code_vectors.shape[:2])} levels and codes, the network has {wanted}"
            )
        if semantic_vectors is not None and len(semantic_vectors) != self.semantic_vocab_size:
            raise ValueError(
                f"vectors of {len(semantic_vectors)} semantic tokens, the network has {self.semantic_vocab_size}"
            )
        self.start_from(*spread_codebooks(code_vectors, semantic_vectors, self.dim, seed))

    @abstractmethod
    def start_from(self, codes: Tensor, semantic: Tensor | None) -> None:
        """Copy vectors of variance one to where they belong.

        Args:
            codes: Of the codes, ``[Q, C, D]``.
            semantic: Of the semantic tokens, ``[K, D]``, or None.
        """


@contextmanager
def evaluating(*networks: nn.Module) -> Generator[None]:
    """Run networks in evaluation mode, and leave each in the mode it was in."""
    modes = [network.training for network in networks]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
