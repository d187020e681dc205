"""Averages of the weights."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from modules.averaging import warmed_up_ema


def averaged(decay, updates):
    """The average of a weight that is 0 at first and 1 from the second update on."""
    model = torch.nn.Linear(1, 1, bias=False)
    average = AveragedModel(model, multi_avg_fn=warmed_up_ema(decay))
    for update in range(updates):
        torch.nn.init.constant_(model.weight, float(update > 0))
        average.update_parameters(model)
    return average.module.weight.item()


def test_a_short_training_forgets_its_first_weights():
    assert averaged(0.998, 2) == pytest.approx(1 - 2 / 11)
    assert averaged(0.998, 201) > 0.999


def test_the_decay_rises_to_its_final_value():
    after_many = warmed_up_ema(0.998)
    average, weight = torch.zeros(1), torch.ones(1)
    after_many([average], [weight], torch.tensor(10_000))
    assert average.item() == pytest.approx(0.002)
    assert averaged(0.1, 3) == pytest.approx(1 - 0.1 * 0.1)


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"decay=1\.5"):
        warmed_up_ema(1.5)
