"""Residual vector quantisation with fixed codebooks, fitted by residual k-means.

For codecs whose networks are given and whose quantiser is to have another shape; a codec that is trained end to end
learns its codebooks with the rest.
"""

import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

# Vectors compared with a codebook at once: their distances to 1024 entries stay in a processor's cache.
_CHUNK = 4096


class ResidualVQ(nn.Module):
    """Q codebooks in a row, each quantising what the ones before it left over.

    Source: SoundStream (Zeghidour et al. 2021), algorithm 1.

    Args:
        codebooks: Float, ``[Q, C, D]``, coarse first.

    Raises:
        ValueError: If the codebooks have another shape or hold values that are not finite.
    """

    codebooks: Tensor

    def __init__(self, codebooks: Tensor) -> None:
        super().__init__()
        if codebooks.ndim != 3 or not codebooks.is_floating_point() or not codebooks.isfinite().all():
            raise ValueError(
                f"codebooks must be finite floats [Q, C, D], not {codebooks.dtype} {list(codebooks.shape)}"
            )
        self.register_buffer("codebooks", codebooks.float().contiguous())

    def encode(self, latents: Tensor) -> Tensor:
        """Quantise greedily, level by level.

        Args:
            latents: ``[..., T, D]``.

        Returns:
            Codes, int64, ``[..., Q, T]``.
        """
        residual, codes = latents, []
        for codebook in self.codebooks:
            codes.append(nearest(residual, codebook))
            residual = residual - codebook[codes[-1]]
        return torch.stack(codes, dim=-2)

    def decode(self, codes: Tensor) -> Tensor:
        """Add up the entries the codes name.

        Args:
            codes: int64, ``[..., Q', T]`` with ``Q' <= Q``: leading levels alone are a coarser decoding.

        Returns:
            Latents, ``[..., T, D]``.
        """
        return sum(
            (F.embedding(level, codebook) for level, codebook in zip(codes.unbind(-2), self.codebooks, strict=False)),
            start=self.codebooks.new_zeros(()),
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the codebooks as safetensors, complete or not at all.

        Args:
            path: File to write; its folder is made where it does not exist.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.tmp")
        save_file({"codebooks": self.codebooks.cpu()}, unfinished)
        os.replace(unfinished, target)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what :meth:`save` wrote, or a NumPy archive (``.npz``) with an array ``codebooks``.

        Args:
            path: File to read.

        Returns:
            The quantiser.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no array ``codebooks`` of shape ``[Q, C, D]``.
        """
        source = Path(path)
        if not source.is_file():
            raise FileNotFoundError(f"no codebooks at {str(path)!r}: fit them first (configs/codec/lyra_rvq.yaml)")
        try:
            if source.suffix == ".npz":
                with np.load(source, allow_pickle=False) as archive:
                    arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
            else:
                arrays = load_file(source)
        except (SafetensorError, BadZipFile, EOFError, TypeError, ValueError) as error:
            raise ValueError(f"{source} is damaged or holds no codebooks ({error}); fit them again") from None
        if "codebooks" not in arrays:
            raise ValueError(f"{str(path)!r} holds no array 'codebooks', only {sorted(arrays)}")
        try:
            return cls(arrays["codebooks"])
        except ValueError as error:
            raise ValueError(f"{source}: {error}; fit them again") from None


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Find the nearest codebook entry by Euclidean distance.

    Args:
        vectors: ``[..., D]``.
        codebook: ``[C, D]``.

    Returns:
        Indices, int64, ``[...]``.
    """
    # |v - c|^2 without |v|^2, which is the same for every entry.
    squares = codebook.square().sum(-1)
    flat = vectors.reshape(-1, vectors.shape[-1])
    indices = [torch.addmm(squares, chunk, codebook.T, alpha=-2).argmin(-1) for chunk in flat.split(_CHUNK)]
    return torch.cat(indices).reshape(vectors.shape[:-1])


def fit_residual_vq(
    latents: Tensor,
    num_quantizers: int,
    codebook_size: int,
    iterations: int = 10,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> ResidualVQ:
    """Fit codebooks to latents: k-means on the latents, then on what it leaves over, level after level.

    Args:
        latents: Vectors of many recordings, float, ``[N, D]``; N at least ``codebook_size``, better 100 times that. The
            work is done on their device.
        num_quantizers: Levels Q.
        codebook_size: Entries C per level.
        iterations: Rounds of Lloyd's algorithm per level.
        seed: Seed of the starting points.
        report: Called after each level with its number and the signal-to-noise ratio reached, in dB.

    Returns:
        The quantiser, on the device of the latents.

    Raises:
        ValueError: If there are fewer vectors than entries.
    """
    if len(latents) < codebook_size:
        raise ValueError(f"{len(latents)} latents are too few to fit a codebook of {codebook_size}: use more audio")
    generator = torch.Generator().manual_seed(seed)
    residual = latents.float()
    power = (residual - residual.mean(0)).square().sum()
    codebooks = []
    for level in range(num_quantizers):
        codebook = k_means(residual, codebook_size, iterations, generator)
        residual = residual - codebook[nearest(residual, codebook)]
        codebooks.append(codebook)
        if report is not None:
            report(level, 10 * float(torch.log10(power / residual.square().sum())))
    return ResidualVQ(torch.stack(codebooks))


def k_means(vectors: Tensor, num_clusters: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Cluster vectors by Lloyd's algorithm, starting from some of them; an empty cluster restarts at another.

    Args:
        vectors: Float, ``[N, D]`` with ``N >= num_clusters``.
        num_clusters: C.
        iterations: Rounds of assignment and averaging.
        generator: Randomness, on the CPU whatever the device, so that the start does not depend on it.

    Returns:
        Centres, ``[C, D]``.
    """

    def pick() -> Tensor:
        chosen = torch.randperm(len(vectors), generator=generator)[:num_clusters]
        return vectors[chosen.to(vectors.device)]

    centres = pick()
    for _ in range(iterations):
        indices = nearest(vectors, centres)
        counts = torch.bincount(indices, minlength=num_clusters)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, indices, vectors)
        centres = torch.where(counts == 0, pick(), sums / counts.clamp_min(1))
    return centres
