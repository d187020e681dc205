"""Splits."""

import pytest

from modules.evaluation import split_of


@pytest.mark.parametrize(
    ("seconds", "split"),
    [(3.99, "other"), (4, "short"), (9.99, "short"), (10, "mid"), (19.99, "mid"), (20, "long"), (30, "long")],
)
def test_splits_are_half_open(seconds, split):
    assert split_of(seconds) == split


def test_longer_than_the_paper_is_in_no_split():
    assert split_of(30.01) == "other"
