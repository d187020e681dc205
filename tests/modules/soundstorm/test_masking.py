import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modules.soundstorm import Draw, MaskingOptions, apply_masks, draw_masks


def draw_many(count=4000, length=40, num_quantizers=12, options=None):
    lengths = torch.full((count,), length)
    return draw_masks(lengths, length, num_quantizers, torch.arange(count), options)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    extra=st.integers(0, 10),
    seed=st.integers(0, 2**62),
    span=st.integers(1, 4),
)
def test_masks_lie_in_the_target_and_are_never_empty(lengths, extra, seed, span):
    lengths = torch.tensor(lengths)
    width = int(lengths.max()) + extra
    draw = draw_masks(lengths, width, 12, seed + torch.arange(len(lengths)), MaskingOptions(span_length=span))
    frame = torch.arange(width)
    target = (frame >= draw.prompt_frames[:, None]) & (frame < lengths[:, None])
    assert not (draw.masked & ~target).any()
    assert draw.masked.any(dim=1).all()
    assert ((draw.prompt_frames >= 0) & (draw.prompt_frames < lengths)).all()
    assert ((draw.level >= 0) & (draw.level < 12)).all()


def test_prompt_lengths_and_levels_are_uniform():
    draw = draw_many()
    prompt = draw.prompt_frames.bincount(minlength=40) / 4000
    level = draw.level.bincount(minlength=12) / 4000
    assert (prompt - 1 / 40).abs().max() < 4 * math.sqrt(1 / 40 / 4000)
    assert (level - 1 / 12).abs().max() < 4 * math.sqrt(1 / 12 / 4000)


def test_mask_rates_are_cosines_of_uniform_angles():
    draw = draw_many(length=400)
    long = draw.prompt_frames < 200
    rate = draw.masked[long].sum(1) / (400 - draw.prompt_frames[long])
    assert rate.mean() == pytest.approx(2 / math.pi, abs=0.02)
    # P(cos u < x) = 1 - 2/pi arccos x
    for x in (0.25, 0.5, 0.9):
        assert (rate < x).double().mean() == pytest.approx(1 - 2 / math.pi * math.acos(x), abs=0.03)


def test_a_row_depends_on_its_own_seed_and_length_alone():
    together = draw_masks(torch.tensor([30, 50, 20]), 64, 4, torch.tensor([7, 8, 9]))
    alone = draw_masks(torch.tensor([50]), 50, 4, torch.tensor([8]))
    assert torch.equal(together.masked[1, :50], alone.masked[0])
    assert together.prompt_frames[1] == alone.prompt_frames[0]
    assert together.level[1] == alone.level[0]
    other = draw_masks(torch.tensor([50]), 50, 4, torch.tensor([9]))
    assert not torch.equal(other.masked, alone.masked)


def test_levels_below_stay_visible_and_levels_above_are_hidden_in_the_target():
    codes = torch.arange(3 * 6).reshape(1, 3, 6)
    draw = Draw(torch.tensor([1]), torch.tensor([2]), torch.tensor([[0, 0, 1, 0, 1, 0]]).bool(), torch.tensor([False]))
    masked = apply_masks(codes, draw, torch.tensor([5]), mask_id=99)
    assert masked[0].tolist() == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 99, 9, 99, 11],
        [12, 13, 99, 99, 99, 17],
    ]
    assert codes.max() == 17, "the batch itself must not change"


def test_the_papers_figure_1():
    """T = 4, Q = 3, no prompt, second level."""
    codes = torch.zeros(1, 3, 4, dtype=torch.int64)
    draw = Draw(torch.tensor([1]), torch.tensor([0]), torch.tensor([[1, 0, 1, 0]]).bool(), torch.tensor([False]))
    hidden = apply_masks(codes, draw, torch.tensor([4]), mask_id=1)[0]
    assert hidden.tolist() == [[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]]


def test_prompt_dropout_trains_without_a_prompt():
    rate = (draw_many(options=MaskingOptions(prompt_dropout=0.5)).prompt_frames == 0).double().mean()
    assert rate == pytest.approx(0.5 + 0.5 / 40, abs=0.03)


def test_semantic_dropout_has_its_rate():
    dropped = draw_many(options=MaskingOptions(semantic_dropout=0.2)).drop_semantic.double().mean()
    assert dropped == pytest.approx(0.2, abs=0.03)
    assert not draw_many().drop_semantic.any()


def test_an_option_does_not_shift_what_else_is_drawn():
    plain, other = draw_many(100), draw_many(100, options=MaskingOptions(semantic_dropout=0.5))
    assert torch.equal(plain.masked, other.masked)


def test_coarse_weight_draws_coarse_levels_more_often():
    level = draw_many(options=MaskingOptions(coarse_weight=1.0)).level
    expected = torch.arange(12, 0, -1) / 78
    assert (level.bincount(minlength=12) / 4000 - expected).abs().max() < 0.025


def test_coarse_exponent_makes_the_fall_steeper():
    level = draw_many(options=MaskingOptions(coarse_weight=1.0, coarse_exponent=3.0)).level
    weights = torch.arange(12, 0, -1) ** 3
    assert (level.bincount(minlength=12) / 4000 - weights / weights.sum()).abs().max() < 0.025


def test_prompts_have_the_greatest_length_asked_for_and_are_uniform_below():
    prompt = draw_many(options=MaskingOptions(max_prompt_frames=9)).prompt_frames.bincount(minlength=40) / 4000
    assert (prompt[:10] - 1 / 10).abs().max() < 4 * math.sqrt(1 / 10 / 4000)
    assert prompt[10:].sum() == 0
    short = draw_many(length=5, options=MaskingOptions(max_prompt_frames=9)).prompt_frames
    assert short.unique().tolist() == [0, 1, 2, 3, 4]


def test_spans_are_masked_whole():
    draw = draw_masks(torch.full((50,), 30), 30, 4, torch.arange(50), MaskingOptions(span_length=3), torch.zeros(50))
    spans = draw.masked.view(50, 10, 3)
    whole = (spans.all(-1) | ~spans.any(-1)).all(-1)
    # The guard against an empty mask hides one frame alone.
    assert (whole | (draw.masked.sum(1) == 1)).all()


@pytest.mark.parametrize(
    ("lengths", "prompt", "named"),
    [([0], None, "row 0 of the batch is empty"), ([5, 5], [0, 5], "row 1 .* prompt of 5 frames leaves nothing of 5")],
)
def test_impossible_batches_are_named(lengths, prompt, named):
    prompt = None if prompt is None else torch.tensor(prompt)
    with pytest.raises(ValueError, match=named):
        draw_masks(torch.tensor(lengths), 8, 4, torch.arange(len(lengths)), None, prompt)


@pytest.mark.parametrize(
    "option",
    [
        {"prompt_dropout": 1.5},
        {"span_length": 0},
        {"coarse_weight": -1},
        {"coarse_exponent": -1},
        {"max_prompt_frames": -1},
    ],
)
def test_impossible_options_are_named(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        MaskingOptions(**option)
