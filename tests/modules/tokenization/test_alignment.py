"""Semantic tokens at the rate of the codec."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modules.tokenization import align_tokens, aligned_indices

RATES = st.one_of(
    st.sampled_from([Fraction(25), Fraction(50), Fraction(75), Fraction(25, 2), Fraction(44_100, 512)]),
    st.fractions(min_value=1, max_value=200, max_denominator=50),
)


def aligned(num_tokens, num_frames, token_rate, frame_rate, **kwargs):
    return align_tokens(torch.arange(num_tokens), num_frames, token_rate, frame_rate, **kwargs).tolist()


def test_25_to_50_duplicates_every_token():
    assert aligned(4, 8, 25, 50) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert aligned(4, 7, 25, 50) == [0, 0, 1, 1, 2, 2, 3]


def test_equal_rates_are_the_identity():
    assert aligned(5, 5, 50, 50.0) == [0, 1, 2, 3, 4]


def test_50_to_75_takes_the_token_at_each_frames_middle():
    # Frame middles at 1/3, 1, 5/3, 7/3, 3, 11/3 tokens.
    assert aligned(4, 6, 50, 75) == [0, 1, 1, 2, 3, 3]


def test_50_to_12_5_takes_every_fourth():
    assert aligned(12, 3, 50, 12.5) == [2, 6, 10]


def test_last_token_fills_up_what_is_missing():
    assert aligned(3, 5, 50, 50) == [0, 1, 2, 2, 2]


@given(RATES, RATES, st.integers(1, 400))
def test_every_frame_takes_the_token_that_sounds_at_its_middle(token_rate, frame_rate, num_frames):
    num_tokens = int(num_frames * token_rate / frame_rate) + 1
    indices = aligned_indices(num_tokens, num_frames, token_rate, frame_rate)
    assert len(indices) == num_frames
    for frame, index in enumerate(indices):
        middle = Fraction(2 * frame + 1, 2) / frame_rate
        # Or the last one, where the tokens end before.
        assert Fraction(index) / token_rate <= middle
        assert middle < Fraction(index + 1) / token_rate or index == num_tokens - 1


@given(st.integers(1, 300), st.integers(1, 8))
def test_whole_multiples_repeat_every_token(num_tokens, factor):
    assert aligned(num_tokens, num_tokens * factor, 10, 10 * factor) == [
        i for i in range(num_tokens) for _ in range(factor)
    ]


@given(RATES, st.integers(1, 300))
def test_indices_never_go_back_or_out_of_range(token_rate, num_frames):
    indices = aligned_indices(20, num_frames, token_rate, 50)
    assert indices == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] < 20


def test_an_hour_is_exact():
    # In float32 the middle of a frame is no longer told from its end here.
    num_frames = 3600 * 86
    indices = aligned_indices(num_frames, num_frames, Fraction(50), Fraction(44_100, 512))
    assert indices[-1] == int(Fraction(2 * num_frames - 1, 2) * 50 * 512 / 44_100)


@pytest.mark.parametrize(("num_tokens", "fits"), [(97, False), (98, True), (100, True), (102, True), (103, False)])
def test_drift_of_more_than_two_frames_is_an_error(num_tokens, fits):
    if fits:
        assert len(aligned(num_tokens, 100, 50, 50)) == 100
    else:
        with pytest.raises(
            ValueError, match=rf"^book-7: {num_tokens} semantic tokens at 50/s and 100 codec frames at 50/s"
        ):
            aligned(num_tokens, 100, 50, 50, name="book-7")


def test_drift_is_measured_in_codec_frames():
    assert len(aligned(49, 100, 25, 50)) == 100
    with pytest.raises(ValueError, match="drift apart by 4 frames, more than 2"):
        aligned(48, 100, 25, 50)
    assert len(aligned(48, 100, 25, 50, max_drift=4)) == 100


def test_no_tokens_for_a_frame_is_an_error():
    with pytest.raises(ValueError, match="0 semantic tokens"):
        aligned(0, 1, 50, 50)
    assert aligned(0, 0, 50, 50) == []


def test_leading_dimensions_are_kept():
    tokens = torch.arange(12).view(2, 2, 3)
    assert torch.equal(align_tokens(tokens, 6, 25, 50), tokens.repeat_interleave(2, dim=2))


def test_time_may_be_another_axis():
    tokens = torch.arange(24).view(2, 4, 3)
    aligned = align_tokens(tokens, 8, 25, 50, dim=1)
    assert torch.equal(aligned, align_tokens(tokens.mT, 8, 25, 50).mT)
    assert torch.equal(aligned[:, ::2], tokens)
