"""How evenly codes are used."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


class CodebookUsage(Metric):
    """Perplexity of the codes of every level: C where all entries are equally frequent, 1 where one is.

    Args:
        num_quantizers: Levels Q.
        codebook_size: Entries C per level.
    """

    counts: Tensor

    def __init__(self, num_quantizers: int, codebook_size: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.add_state("counts", torch.zeros(num_quantizers, codebook_size), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Count.

        Args:
            codes: int64, ``[B, Q', T]``; levels beyond Q' count nothing.
        """
        for level, code in enumerate(codes.unbind(1)):
            self.counts[level] += F.one_hot(code.flatten(), self.codebook_size).sum(0)

    def compute(self) -> Tensor:
        """Return the perplexity per level, ``[Q]``; 1 for a level without codes."""
        share = self.counts / self.counts.sum(1, keepdim=True).clamp_min(1)
        return torch.special.entr(share).sum(1).exp()
