"""Learning-rate schedules with a linear warm-up, stepped once per optimizer step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Rise linearly to the optimizer's rate, then fall along half a cosine.

    A resumed run follows the numbers it is given, not those of the run before: training can be made longer or shorter.

    Args:
        optimizer: The optimizer.
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


class WarmupInverseSqrt(LambdaLR):
    """Rise linearly to the optimizer's rate, then fall with the inverse square root of the step.

    Args:
        optimizer: The optimizer.
        warmup_steps: Steps of the rise.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 32_000) -> None:
        def factor(step: int) -> float:
            return min((step + 1) / warmup_steps, math.sqrt(warmup_steps / (step + 1)))

        super().__init__(optimizer, factor)
