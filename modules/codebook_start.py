"""What tokens stand for, in the width of a model: where its embeddings and heads can start from."""

import torch
from torch import Tensor


def spread_codebooks(
    code_vectors: Tensor, semantic_vectors: Tensor | None, dim: int, seed: int = 0
) -> tuple[Tensor, Tensor | None]:
    """Turn the vectors that tokens stand for into a model's width, so that tokens which sound alike begin alike.

    Args:
        code_vectors: What each code stands for, ``[Q, C, d]``, see ``AudioCodec.code_vectors``.
        semantic_vectors: What each semantic token stands for, ``[K, d']``, or None.
        dim: Model width D.
        seed: Seed of the rotations that spread the vectors over all dimensions.

    Returns:
        Vectors of the codes ``[Q, C, D]`` and of the semantic tokens ``[K, D]``, each table with mean zero and variance
        one.
    """
    generator = torch.Generator().manual_seed(seed)
    # One rotation for all levels: the sum of a frame's vectors then resembles the latent.
    rotation = _rotation(dim, generator)
    codes = torch.stack([_spread(vectors, dim, rotation) for vectors in code_vectors.cpu().float()])
    if semantic_vectors is None:
        return codes, None
    rotation = _rotation(dim, generator)
    return codes, _spread(semantic_vectors.cpu().float(), dim, rotation)


def _rotation(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator))[0]


def _spread(vectors: Tensor, dim: int, rotation: Tensor) -> Tensor:
    centred = vectors - vectors.mean(0)
    if centred.shape[1] > dim:
        centred = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:dim].T
    turned = centred @ rotation[: centred.shape[1]]
    return turned / turned.std().clamp_min(1e-8)
