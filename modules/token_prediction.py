"""How well tokens are predicted, level by level."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class TokenPrediction(Metric):
    """Cross-entropy, accuracy and top-10 accuracy of tokens, per RVQ level and over all.

    The mixture over levels hides regressions, because finer levels are much harder to predict than coarse ones: look at
    one level over time, not at the mean over levels. Chance is a loss of ``ln C`` (6.93 for 1024 codes).

    Args:
        num_quantizers: RVQ levels Q.
    """

    full_state_update = False
    loss: Tensor
    correct: Tensor
    among_ten: Tensor
    count: Tensor

    def __init__(self, num_quantizers: int) -> None:
        super().__init__()
        for name in ("loss", "correct", "among_ten", "count"):
            self.add_state(name, torch.zeros(num_quantizers, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor, level: Tensor) -> None:
        """Count predictions.

        Args:
            logits: Shape ``[N, C]``.
            target: True tokens, int64 ``[N]``.
            level: RVQ level of each, int64 ``[N]``.
        """
        logits = logits.detach().float()
        of_target = logits.gather(1, target[:, None])
        rank = (logits > of_target).sum(dim=1)
        loss = F.cross_entropy(logits, target, reduction="none")
        for state, values in (
            (self.loss, loss),
            (self.correct, rank == 0),
            (self.among_ten, rank < 10),
            (self.count, torch.ones_like(loss)),
        ):
            state.index_add_(0, level, values.to(state.dtype))

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name, such as ``loss`` and ``level_00/accuracy``; levels not seen are left out."""
        seen = self.count.nonzero().flatten().tolist()
        values = {}
        for prefix, rows in [("", seen), *((f"level_{q:02d}/", [q]) for q in seen)]:
            count = self.count[rows].sum()
            values[f"{prefix}loss"] = (self.loss[rows].sum() / count).float()
            values[f"{prefix}accuracy"] = (self.correct[rows].sum() / count).float()
            values[f"{prefix}top10_accuracy"] = (self.among_ten[rows].sum() / count).float()
        return values if seen else {}
