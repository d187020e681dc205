"""Ratios of sums."""

import torch

from modules.evaluation import GroupedRatio


def test_sums_before_it_divides():
    ratio = GroupedRatio(2)
    for errors, words in ((1, 1), (1, 9)):
        ratio.update(0, errors, words)
    assert ratio.compute()[0] == 0.2
    assert torch.isnan(ratio.compute()[1])


def test_nan_is_counted_and_left_out():
    ratio = GroupedRatio(2)
    ratio.update(0, 0.5)
    ratio.update(0, float("nan"))
    ratio.update(0, 1.0, float("inf"))
    assert ratio.compute()[0] == 0.5
    assert (ratio.scored[0], ratio.missing[0]) == (1, 2)


def test_the_sums_of_ranks_add_up():
    ranks = [GroupedRatio(2), GroupedRatio(2)]
    ranks[0].update(0, 1, 4)
    ranks[1].update(0, 3, 4)
    both = GroupedRatio(2)
    for name, reduce in both._reductions.items():
        setattr(both, name, reduce(torch.stack([getattr(rank, name) for rank in ranks])))
    both._update_count = 1
    assert both.compute()[0] == 0.5
