import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.soundstorm import DecodingSchedule, Pass


def test_the_paper_fixes_these_16_counts_for_1500_frames():
    counts = [p.num_fixed for p in DecodingSchedule().plan(1500, level=0)]
    assert counts == [8, 21, 36, 50, 63, 75, 88, 99, 109, 118, 126, 133, 139, 143, 145, 147]


def test_masked_on_entry_for_500_frames():
    counts = [p.num_masked for p in DecodingSchedule().plan(500, level=0)]
    assert counts == [500, 497, 490, 478, 461, 440, 415, 386, 353, 317, 277, 235, 191, 145, 97, 49]


def test_the_paper_needs_27_passes():
    schedule = DecodingSchedule()
    assert schedule.num_passes == 27
    assert sum(len(schedule.plan(1500, level)) for level in range(12)) == 27


def test_finer_levels_are_one_greedy_pass():
    assert DecodingSchedule().plan(1500, level=5) == [Pass(1500, 1500, greedy=True)]


def test_the_finest_levels_may_be_left_out():
    schedule = DecodingSchedule(iterations=(16, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0))
    assert schedule.num_levels == 6
    assert schedule.num_passes == schedule.count_passes(1500) == 21


@given(n=st.integers(0, 3000), iterations=st.integers(1, 64))
def test_every_token_is_fixed_once_and_the_last_pass_is_greedy(n, iterations):
    passes = DecodingSchedule(iterations=(iterations,)).plan(n, level=0)
    assert sum(p.num_fixed for p in passes) == n
    assert len(passes) <= iterations
    assert all(p.num_fixed >= 1 for p in passes)
    left = n
    for p in passes:
        assert p.num_masked == left
        left -= p.num_fixed
    assert [p.greedy for p in passes] == [False] * (len(passes) - 1) + [True] * (n > 0)


@given(n=st.integers(1, 300), passes=st.integers(0, 5), fraction=st.floats(0.01, 1))
def test_remasking_touches_each_token_once_at_most(n, passes, fraction):
    schedule = DecodingSchedule(iterations=(8,), remask_passes=passes, remask_fraction=fraction)
    again = [p for p in schedule.plan(n, 0) if p.remask]
    assert sum(p.num_masked for p in again) <= n
    assert all(p.greedy and p.num_masked == p.num_fixed >= 1 for p in again)


@pytest.mark.parametrize(
    "setting",
    [
        {"iterations": ()},
        {"iterations": (4, -1)},
        {"iterations": (4, 0, 1)},
        {"iterations": (0,)},
        {"iterations": (1.5, 1)},
        {"iterations": 16},
        {"iterations": (True, 1)},
        {"temperature": "hot"},
        {"guidance_scale": True},
        {"temperature": 0},
        {"choice_temperature": -1},
        {"top_k": -1},
        {"top_p": 0},
        {"order": "left_to_right"},
        {"span_length": 0},
        {"guidance_scale": -1},
        {"guidance_rescale": 2},
        {"guidance_on": "speaker"},
        {"remask_passes": -1},
        {"remask_fraction": 0},
    ],
)
def test_impossible_settings_are_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        DecodingSchedule(**setting)
