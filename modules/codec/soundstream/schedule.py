"""Learning rate over a run."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Rise linearly from 0 to the optimiser's rate, then fall along half a cosine.

    A resumed run follows the numbers it is given, not those of the run before: training can be made longer or shorter.

    Args:
        optimizer: The optimiser.
        warmup_steps: Steps of the rise.
        total_steps: Steps of the whole run; the rate stays at its end value afterwards.
        final_share: Rate at the end, as a share of the full one.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int = 500, total_steps: int = 100_000, final_share: float = 0.0
    ) -> None:
        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
            return final_share + (1 - final_share) * (1 + math.cos(math.pi * progress)) / 2

        super().__init__(optimizer, factor)
