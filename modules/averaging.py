"""Averages of the weights along a training."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def warmed_up_ema(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Exponential moving average whose decay rises to its final value: ``min(decay, (1 + n) / (10 + n))`` at update n.

    With one decay from the beginning, the weights of the first step are most of the average of a short training: two
    thirds of it after 200 updates of 0.998. The rise is the one of ``num_updates`` in TensorFlow's
    ``ExponentialMovingAverage``.

    Args:
        decay: What the average keeps of itself in the long run, per update; in [0, 1].

    Returns:
        ``multi_avg_fn`` of ``lightning.pytorch.callbacks.WeightAveraging``.

    Raises:
        ValueError: ``decay`` lies outside of [0, 1].
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay={decay} of the average of the weights must lie in [0, 1]")

    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        count = int(num_averaged)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averages, weights, count)

    return update
