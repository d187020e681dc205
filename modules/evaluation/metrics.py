"""Ratios of sums over groups of utterances, as a torchmetric."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class GroupedRatio(Metric):
    """Sum of numerators over sum of denominators, separately for each of G groups.

    One class serves corpus-level rates (errors over words) and means over utterances (score over 1). Every state is a
    sum, so ranks that saw different utterances add up to the result of one process.

    Args:
        num_groups: Number of groups G.
    """

    full_state_update = False
    numerator: Tensor
    denominator: Tensor
    scored: Tensor
    missing: Tensor

    def __init__(self, num_groups: int) -> None:
        super().__init__()
        for name in ("numerator", "denominator"):
            self.add_state(name, torch.zeros(num_groups), dist_reduce_fx="sum")
        for name in ("scored", "missing"):
            self.add_state(name, torch.zeros(num_groups, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, group: int, numerator: float, denominator: float = 1.0) -> None:
        """Add one utterance.

        Args:
            group: Index of its group.
            numerator: Its summand above; the utterance counts as missing, and is left out, if this is not finite.
            denominator: Its summand below; likewise.
        """
        if not (math.isfinite(numerator) and math.isfinite(denominator)):
            self.missing[group] += 1
            return
        self.numerator[group] += numerator
        self.denominator[group] += denominator
        self.scored[group] += 1

    def compute(self) -> Tensor:
        """Return the ratios, ``[G]`` (no dimension where G is 1); NaN for a group without a scored utterance."""
        return self.numerator / self.denominator
