import pytest
import torch

from modules.valle import RepetitionAwareSampling, repetition_aware_sample

PEAKED = torch.tensor([[0.9, 0.06, 0.04]]).log()
LATE = torch.tensor([[0.0, 0.95]], dtype=torch.float64)  # the second draw from the whole distribution gives token 1


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([1, 2] * 5, 0),
        ([1, 2] * 4 + [2, 0], 0),  # one repeat in ten: 0.1 is not more than 0.1
        ([0] + [1, 2] * 4 + [0], 1),  # two
        ([0] * 10, 1),
        ([-1] * 8 + [0, 0], 1),
        ([-1] * 10, 0),
    ],
)
def test_two_repeats_in_ten_are_drawn_again_from_the_whole_distribution(history, expected):
    token = repetition_aware_sample(PEAKED, LATE, torch.tensor([history]), top_p=0.5)
    assert token.tolist() == [expected]


def test_rows_are_judged_each_by_its_own_history():
    history = torch.tensor([[0] * 10, [2] * 10])
    tokens = repetition_aware_sample(PEAKED.expand(2, -1), LATE.expand(2, -1), history, top_p=0.5)
    assert tokens.tolist() == [1, 0]


def test_the_second_draw_may_repeat_the_token_again():
    uniform = torch.tensor([[0.0, 0.1]], dtype=torch.float64)
    assert repetition_aware_sample(PEAKED, uniform, torch.tensor([[0] * 10]), top_p=0.5).tolist() == [0]


def test_a_window_of_k_looks_at_the_last_k():
    sampling = RepetitionAwareSampling(top_p=0.5, window=4, threshold=0.3)
    assert sampling.window == 4
    assert sampling(PEAKED, LATE, torch.tensor([[1, 1, 0, 1]])).tolist() == [0]
    assert sampling(PEAKED, LATE, torch.tensor([[1, 0, 0, 1]])).tolist() == [1]


@pytest.mark.parametrize("values", [{"top_p": 1.1}, {"window": 0}, {"threshold": -0.1}, {"temperature": 0.0}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=r"window \("):
        RepetitionAwareSampling(**values)
