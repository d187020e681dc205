"""A start from what the codes mean, instead of from noise."""

import torch
from torch import Tensor

from modules.soundstorm.network import SoundStormNetwork


@torch.no_grad()
def initialize_from_codebooks(
    network: SoundStormNetwork, code_vectors: Tensor, semantic_vectors: Tensor | None = None, seed: int = 0
) -> None:
    """Set embeddings and heads so that codes which sound alike begin alike.

    The paper says nothing about initialisation. Each table becomes the vectors it stands for, turned into the model's
    width and brought to the spread that the network's own random start has. A head row points where the embedding of
    its code points, so that the first thing to be learnt is a map between two spaces of sounds and not 2 Q C unrelated
    vectors. Masks start as zero: a masked token says nothing.

    Args:
        network: Changed in place.
        code_vectors: What each code stands for, ``[Q, C, d]``, see ``AudioCodec.code_vectors``.
        semantic_vectors: What each semantic token stands for, ``[K, d']``; None leaves the random start.
        seed: Seed of the rotations that spread the vectors over all dimensions.

    Raises:
        ValueError: The numbers of levels, codes or semantic tokens are not the network's.
    """
    wanted = (network.num_quantizers, network.codebook_size)
    if code_vectors.shape[:2] != wanted:
        raise ValueError(f"code vectors of {list(code_vectors.shape[:2])} levels and codes, the network has {wanted}")
    if semantic_vectors is not None and len(semantic_vectors) != network.semantic_vocab_size:
        raise ValueError(
            f"vectors of {len(semantic_vectors)} semantic tokens, the network has {network.semantic_vocab_size}"
        )
    dim = network.head_weight.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    # One rotation for all levels: the sum of a frame's embeddings then resembles the latent.
    rotation = _rotation(max(dim, code_vectors.shape[-1]), generator)
    table = network.code_embedding.weight.view(network.num_quantizers, network.codebook_size + 1, dim)
    embedding_std = (network.num_quantizers + 1) ** -0.5
    for level, vectors in enumerate(code_vectors.cpu().float()):
        spread = _spread(vectors, dim, rotation)
        table[level, : network.codebook_size] = embedding_std * spread
        table[level, network.mask_id] = 0
        network.head_weight[level] = dim**-0.5 * spread
    if semantic_vectors is not None:
        rotation = _rotation(max(dim, semantic_vectors.shape[-1]), generator)
        # As large as all acoustic tokens together: where those are masked, it is all there is.
        network.semantic_embedding.weight[: network.semantic_vocab_size] = _spread(
            semantic_vectors.cpu().float(), dim, rotation
        )


def _rotation(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator))[0]


def _spread(vectors: Tensor, dim: int, rotation: Tensor) -> Tensor:
    """Turn vectors ``[N, d]`` into ``[N, dim]`` of mean zero and variance one."""
    centred = vectors - vectors.mean(0)
    if centred.shape[1] > dim:
        principal = torch.linalg.svd(centred, full_matrices=False).Vh[:dim]
        turned = centred @ principal.T @ rotation[:dim, :dim]
    else:
        turned = centred @ rotation[: centred.shape[1], :dim]
    return turned / turned.std().clamp_min(1e-8)
