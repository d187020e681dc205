"""Residual vector quantisation with codebooks kept by moving averages."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F


class Quantized(NamedTuple):
    """What the quantiser makes of a batch of latents during training."""

    latent: Tensor  # [B, T, D] quantised; gradients pass straight through to the input
    codes: Tensor  # [B, Q, T] int64; levels that were dropped for a row hold its choice all the same
    commitment: Tensor  # [] mean squared distance of each level's input from its choice
    num_levels: Tensor  # [B] int64, levels in use per row


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest codebook entry by Euclidean distance.

    Args:
        vectors: ``[..., D]``.
        codebook: ``[C, D]``.

    Returns:
        int64, ``[...]``.
    """
    # Half precision, as autocast would have it, confuses neighbours. |v|^2 is left out, the same for every entry.
    with torch.autocast(vectors.device.type, enabled=False):
        return (
            torch.addmm(codebook.square().sum(-1), vectors.float().flatten(0, -2), codebook.T, alpha=-2)
            .argmin(-1)
            .view(vectors.shape[:-1])
        )


def k_means(vectors: Tensor, num_clusters: int, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means from randomly picked starting points.

    An empty cluster restarts at a random vector.

    Args:
        vectors: ``[N, D]``; entries repeat where N is smaller than ``num_clusters``.
        num_clusters: C.
        iterations: Rounds of assignment and averaging.

    Returns:
        Centres ``[C, D]`` and the number of vectors of each, float, ``[C]``.
    """

    def pick(count: int) -> Tensor:
        if len(vectors) >= count:
            return vectors[torch.randperm(len(vectors), device=vectors.device)[:count]]
        return vectors[torch.randint(len(vectors), (count,), device=vectors.device)]

    centres = pick(num_clusters).clone()
    counts = torch.zeros(num_clusters, device=vectors.device)
    for _ in range(iterations):
        counts, sums = assignment_sums(vectors, nearest(vectors, centres), num_clusters)
        empty = counts == 0
        centres = torch.where(empty[:, None], pick(num_clusters), sums / counts.clamp_min(1)[:, None])
    return centres, counts


def assignment_sums(vectors: Tensor, indices: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Count and add up the vectors of each cluster.

    Args:
        vectors: ``[N, D]``.
        indices: int64, ``[N]``.
        num_clusters: C.

    Returns:
        Counts, float, ``[C]``, and sums ``[C, D]``.
    """
    counts = torch.bincount(indices, minlength=num_clusters).to(vectors.dtype)
    return counts, vectors.new_zeros(num_clusters, vectors.shape[1]).index_add_(0, indices, vectors)


class ResidualVectorQuantizer(nn.Module):
    """Q codebooks in a row, each quantising what the ones before it left over.

    Source: SoundStream (2107.03312), section III-C: codebooks follow moving averages of the vectors that choose them,
    start from k-means, entries that fall out of use restart at a random input, and levels are dropped at random so
    that leading levels alone decode well.

    In training, the first batches pass unquantised until ``init_frames`` vectors are gathered; then the codebooks
    start from residual k-means. Under DDP the statistics are those of all ranks and the codebooks stay equal.

    Args:
        dim: Channels D of the latent.
        num_quantizers: Levels Q.
        codebook_size: Entries C per level.
        decay: Of the moving averages, per step.
        dead_code_threshold: Moving count per step below which an entry restarts. The paper's 2 fits batches of many
            thousand vectors; it should lie well below vectors per step / C.
        init_frames: Vectors gathered for k-means.
        dropout: Probability that a row's number of levels is drawn from 1..Q instead of being Q.
    """

    codebooks: Tensor
    counts: Tensor
    sums: Tensor
    started: Tensor

    def __init__(
        self,
        dim: int = 64,
        num_quantizers: int = 12,
        codebook_size: int = 1024,
        decay: float = 0.99,
        dead_code_threshold: float = 2.0,
        init_frames: int = 16384,
        dropout: float = 1.0,
    ) -> None:
        super().__init__()
        self.dim, self.num_quantizers, self.codebook_size = dim, num_quantizers, codebook_size
        self.decay, self.dead_code_threshold = decay, dead_code_threshold
        self.init_frames, self.dropout = init_frames, dropout
        codebooks = torch.randn(num_quantizers, codebook_size, dim)
        # Each level of an untrained quantiser covers half the range of the one before.
        codebooks *= 0.5 ** torch.arange(num_quantizers)[:, None, None]
        self.register_buffer("codebooks", codebooks)
        self.register_buffer("counts", torch.ones(num_quantizers, codebook_size))
        self.register_buffer("sums", codebooks.clone())
        self.register_buffer("started", torch.tensor(False))
        self._gathered: list[Tensor] = []

    def encode(self, latent: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Choose codes greedily, level by level.

        Args:
            latent: ``[B, T, dim]``.
            num_quantizers: Leading levels to use; all by default.

        Returns:
            Codes, int64, ``[B, Q', T]``.
        """
        residual = latent
        codes = []
        for codebook in self.codebooks[:num_quantizers]:
            codes.append(nearest(residual, codebook))
            residual = residual - F.embedding(codes[-1], codebook)
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Add up the entries the codes name.

        Args:
            codes: int64, ``[B, Q', T]`` with ``Q' <= num_quantizers``.

        Returns:
            Latent, ``[B, T, dim]``.
        """
        levels = zip(codes.unbind(1), self.codebooks, strict=False)
        return sum(
            (F.embedding(code, codebook) for code, codebook in levels), start=torch.zeros((), device=codes.device)
        )

    @torch.no_grad()
    def quantize(self, latent: Tensor) -> Tensor:
        """Quantise without gradients and without moving anything; in training mode drop levels.

        Args:
            latent: ``[B, T, dim]``.

        Returns:
            The quantised latent, ``[B, T, dim]``.
        """
        codes = self.encode(latent.float())
        num_levels = self._draw_levels(len(codes), codes.device)
        active = torch.arange(self.num_quantizers, device=codes.device) < num_levels[:, None]
        return sum(
            (active[:, level, None, None] * F.embedding(codes[:, level], self.codebooks[level])
             for level in range(self.num_quantizers)),
            start=torch.zeros_like(latent),
        )  # fmt: skip

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise with gradients; in training mode also drop levels and move the codebooks.

        Args:
            latent: ``[B, T, dim]``.

        Returns:
            The quantised latent, its codes and the commitment loss.
        """
        latent = latent.float()
        batch, frames, _ = latent.shape
        num_levels = self._draw_levels(batch, latent.device)
        if self.training and not self.started:
            self._gather(latent)
            if not self.started:
                codes = latent.new_zeros(batch, self.num_quantizers, frames, dtype=torch.long)
                return Quantized(latent, codes, latent.new_zeros(()), num_levels)
        residual = latent
        quantized = torch.zeros_like(latent)
        commitment = latent.new_zeros(())
        codes, inputs = [], []
        for level, codebook in enumerate(self.codebooks):
            inputs.append(residual.detach())
            code = nearest(inputs[-1], codebook)
            chosen = F.embedding(code, codebook)
            active = (num_levels > level)[:, None, None].to(latent.dtype)
            commitment = commitment + (active * (residual - chosen).square()).sum() / (active.sum() * frames).clamp_min(
                1
            )
            quantized = quantized + active * chosen
            residual = residual - chosen
            codes.append(code)
        if self.training:
            self._update(inputs, codes, num_levels)
        straight_through = latent + (quantized - latent).detach()
        commitment = commitment / (self.num_quantizers * self.dim)
        return Quantized(straight_through, torch.stack(codes, dim=1), commitment, num_levels)

    def _draw_levels(self, batch: int, device: torch.device) -> Tensor:
        full = torch.full((batch,), self.num_quantizers, device=device)
        if not self.training:
            return full
        drawn = torch.randint(1, self.num_quantizers + 1, (batch,), device=device)
        return torch.where(torch.rand(batch, device=device) < self.dropout, drawn, full)

    @torch.no_grad()
    def _gather(self, latent: Tensor) -> None:
        """Keep vectors for k-means and start the codebooks when there are enough of them."""
        self._gathered.append(latent.detach().flatten(0, 1))
        if sum(map(len, self._gathered)) < self.init_frames:
            return
        self.start(torch.cat(self._gathered))
        self._gathered.clear()

    @torch.no_grad()
    def start(self, vectors: Tensor) -> None:
        """Start the codebooks by residual k-means; under DDP all ranks take those of rank 0.

        Args:
            vectors: ``[N, dim]``.
        """
        residual = vectors.float()
        for level in range(self.num_quantizers):
            centres, counts = k_means(residual, self.codebook_size)
            residual = residual - F.embedding(nearest(residual, centres), centres)
            self.codebooks[level] = centres
            self.counts[level] = counts / counts.mean().clamp_min(1e-8)
        if _distributed():
            dist.broadcast(self.codebooks, 0)
            dist.broadcast(self.counts, 0)
        self.sums.copy_(self.codebooks * self.counts[..., None])
        self.started.fill_(True)

    @torch.no_grad()
    def _update(self, inputs: list[Tensor], codes: list[Tensor], num_levels: Tensor) -> None:
        """Move the codebooks towards this step's vectors and restart entries that nobody chooses."""
        statistics = self.codebooks.new_zeros(self.num_quantizers, self.codebook_size, self.dim + 1)
        candidates = torch.zeros_like(self.codebooks)
        available = self.codebooks.new_zeros(self.num_quantizers)
        for level, (vectors, code) in enumerate(zip(inputs, codes, strict=True)):
            used = num_levels > level
            rows = vectors[used].flatten(0, 1)
            if not len(rows):
                continue
            counts, sums = assignment_sums(rows, code[used].flatten(), self.codebook_size)
            statistics[level] = torch.cat([counts[:, None], sums], dim=1)
            candidates[level] = rows[torch.randint(len(rows), (self.codebook_size,), device=rows.device)]
            available[level] = 1
        if _distributed():
            dist.all_reduce(statistics)
            dist.broadcast(candidates, 0)
            dist.broadcast(available, 0)
        self.counts.lerp_(statistics[..., 0], 1 - self.decay)
        self.sums.lerp_(statistics[..., 1:], 1 - self.decay)
        dead = (self.counts < self.dead_code_threshold) & (available > 0)[:, None]
        # A restarted entry begins with the level's mean count, so that it has time to be chosen before it is judged.
        fresh = self.counts.mean(dim=1, keepdim=True).clamp_min(self.dead_code_threshold).expand_as(self.counts)
        self.counts.copy_(torch.where(dead, fresh, self.counts))
        self.sums.copy_(torch.where(dead[..., None], candidates * fresh[..., None], self.sums))
        self.codebooks.copy_(self.sums / self.counts.clamp_min(1e-5)[..., None])


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
