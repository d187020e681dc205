"""Properties of the batch plan."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.samplers import Packing, TokenBucketBatchSampler, merge_batches, pack, split_batches
from datamodules.seeding import mix


class Lengths:
    """A dataset of which only the lengths matter; they change from epoch to epoch where asked for."""

    def __init__(self, lengths, redraw=False):
        self.lengths = np.asarray(lengths, dtype=np.int32)
        self.redraw = redraw

    def __len__(self):
        return len(self.lengths)

    def frames(self, epoch):
        if not self.redraw:
            return self.lengths
        return (1 + mix(epoch, np.arange(len(self))) % self.lengths.astype(np.uint64)).astype(np.int32)

    def __getitems__(self, request):
        raise NotImplementedError


def shards(dataset, world_size, epoch=0, start=0, **options):
    result = []
    for rank in range(world_size):
        sampler = TokenBucketBatchSampler(dataset, 500, rank=rank, world_size=world_size, **options)
        sampler.set_epoch(epoch)
        batches = list(sampler.batches(start))
        assert start or len(batches) == len(sampler)
        result.append(batches)
    return result


def rows_of(*shards):
    return [int(row) for batch in chain(*shards) for row in batch.rows]


lengths = st.lists(st.integers(1, 700), min_size=4, max_size=120)


@given(lengths, st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_without_shuffling_every_row_comes_once_and_ranks_have_equally_many_batches(lengths, world_size, epoch):
    ranks = shards(Lengths(lengths), world_size, epoch, shuffle=False)
    assert sorted(rows_of(*ranks)) == list(range(len(lengths)))
    assert len({len(batches) for batches in ranks}) == 1


@given(lengths, st.integers(1, 4), st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_shuffled_rows_never_repeat_and_less_than_a_round_of_batches_is_cut(lengths, world_size, epoch, seed):
    dataset = Lengths(lengths)
    ranks = shards(dataset, world_size, epoch, seed=seed)
    rows = rows_of(*ranks)
    assert len(rows) == len(set(rows))
    whole = len(shards(dataset, 1, epoch, seed=seed)[0])
    assert len({len(batches) for batches in ranks}) == 1
    if whole >= world_size:
        assert whole - world_size < sum(map(len, ranks)) <= whole
    else:  # too little to cut: batches are split instead, and nothing is lost
        assert len(rows) == len(lengths)


@given(lengths, st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_ranks_deal_out_the_plan_of_one_rank(lengths, world_size, seed):
    dataset = Lengths(lengths)
    (alone,) = shards(dataset, 1, epoch=1, seed=seed)
    if len(alone) < world_size:
        return
    ranks = shards(dataset, world_size, epoch=1, seed=seed)
    dealt = [batch for batches in zip(*ranks, strict=True) for batch in batches]
    assert [batch.rows.tolist() for batch in dealt] == [batch.rows.tolist() for batch in alone[: len(dealt)]]


@given(lengths, st.booleans(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_batches_keep_the_budget_and_fit_their_rows(lengths, shuffle, epoch):
    dataset = Lengths(lengths, redraw=True)
    for batch in shards(dataset, 1, epoch, shuffle=shuffle)[0]:
        longest = dataset.frames(batch.epoch)[batch.rows].max()
        assert batch.width % 48 == 0
        assert batch.width >= longest
        assert len(batch.rows) == 1 or len(batch.rows) * batch.width <= 500


@given(lengths, st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_epoch_has_equally_many_batches(lengths, world_size):
    dataset = Lengths(lengths, redraw=True)
    counts = {tuple(map(len, shards(dataset, world_size, epoch))) for epoch in range(5)}
    assert len(counts) == 1


@given(lengths, st.integers(1, 3), st.data())
@settings(max_examples=40, deadline=None)
def test_batches_from_a_position_are_the_rest_of_the_epoch(lengths, world_size, data):
    dataset = Lengths(lengths, redraw=True)
    whole = shards(dataset, world_size, epoch=2)
    done = data.draw(st.integers(0, len(whole[0])))
    rest = shards(dataset, world_size, epoch=2, start=done * world_size)
    for all_of_them, remaining in zip(whole, rest, strict=True):
        assert rows_of(remaining) == rows_of(all_of_them[done:])


def test_position_is_kept_when_the_number_of_ranks_changes():
    dataset = Lengths(np.full(64, 500))
    (alone,) = shards(dataset, 1, epoch=1)
    first = rows_of(*[batches[:5] for batches in shards(dataset, 2, epoch=1)])
    rest = rows_of(*shards(dataset, 4, epoch=1, start=10))
    assert sorted(first) == sorted(rows_of(alone[:10]))
    # What is left, 54 batches, is cut to a multiple of four.
    assert sorted(rest) == sorted(rows_of(alone[10:62]))


def test_epochs_differ_and_repeat_exactly():
    dataset = Lengths(np.random.default_rng(0).integers(1, 700, 300))
    epochs = [rows_of(shards(dataset, 1, epoch)[0]) for epoch in (0, 1, 0)]
    assert epochs[0] != epochs[1]
    assert epochs[0] == epochs[2]
    assert epochs[0] != rows_of(shards(dataset, 1, seed=1)[0])


def test_epochs_of_new_windows_still_hold_every_row():
    for size in (20, 80, 300):
        dataset = Lengths(np.random.default_rng(size).integers(50, 300, size), redraw=True)
        for epoch in range(20):
            assert sorted(rows_of(*shards(dataset, 1, epoch))) == list(range(size))


def test_set_epoch_reaches_the_sampler_the_way_lightning_calls_it():
    sampler = TokenBucketBatchSampler(Lengths([10] * 8), 100)
    sampler.sampler.set_epoch(3)
    assert {batch.epoch for batch in sampler} == {3}


def test_rows_of_a_bucket_are_mixed_anew_and_not_by_neighbourhood():
    dataset = Lengths(np.full(1000, 60))
    neighbours = [set(batch.rows.tolist()) for batch in shards(dataset, 1)[0]]
    spread = [max(rows) - min(rows) for rows in neighbours]
    assert np.mean(spread) > 500


@pytest.mark.parametrize(("size", "bound"), [(30_000, 0.05), (300, 0.12)])
def test_padding_stays_low_for_utterances_up_to_thirty_seconds(size, bound):
    lengths = np.random.default_rng(0).integers(50, 1500, size).astype(np.int32)
    sampler = TokenBucketBatchSampler(Lengths(lengths), 24_000)
    padded = real = 0
    for batch in sampler:
        padded += len(batch.rows) * batch.width
        real += lengths[batch.rows].sum()
    assert 1 - real / padded <= bound


def test_large_sets_carry_leftovers_to_the_next_bucket():
    counts = np.array([0, 10_007, 0, 10_003, 10_001])
    packing = pack(counts, 640, 64)
    assert packing.sizes.sum() == counts.sum()
    # One odd-sized batch, the last; the others are full for their width.
    assert (packing.sizes[:-1] == 640 // packing.widths[:-1]).all()


def test_small_sets_keep_leftovers_to_themselves():
    packing = pack(np.array([0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 3]), 6400, 64)
    assert packing.sizes.tolist() == [3, 3]
    assert packing.widths.tolist() == [64, 640]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=10), st.integers(0, 30))
def test_splitting_keeps_rows_in_place(sizes, more):
    sizes = np.array(sizes)
    wanted = min(len(sizes) + more, int(sizes.sum()))
    packing = Packing(sizes, np.arange(len(sizes)))
    split = split_batches(packing, wanted)
    assert len(split.sizes) == wanted
    assert (split.sizes >= 1).all()
    assert [split.sizes[split.widths == batch].sum() for batch in range(len(sizes))] == sizes.tolist()


def test_single_rows_are_joined_where_splitting_cannot_even_the_ranks_out():
    merged = merge_batches(Packing(np.array([1, 1, 1, 1, 1]), np.array([64, 128, 192, 256, 320])), 3)
    assert merged.sizes.tolist() == [2, 2, 1]
    assert merged.widths.tolist() == [128, 256, 320]
    ranks = shards(Lengths([450, 460, 470, 480]), 3, shuffle=False)
    assert [len(batches) for batches in ranks] == [1, 1, 1]
    assert sorted(rows_of(*ranks)) == [0, 1, 2, 3]


def test_longest_utterances_come_first_without_shuffling():
    batches = shards(Lengths(np.arange(1, 700)), 1, shuffle=False)[0]
    widths = [batch.width for batch in batches]
    assert widths == sorted(widths, reverse=True)


def test_an_utterance_longer_than_the_budget_is_a_batch_by_itself():
    batches = shards(Lengths([180_000, 20, 20]), 1, shuffle=False)[0]
    assert batches[0].rows.tolist() == [0]


def test_fewer_utterances_than_ranks_are_refused():
    with pytest.raises(
        ValueError, match=r"2 utterances cannot be spread over 3 processes: lower trainer\.devices to 2"
    ):
        TokenBucketBatchSampler(Lengths([5, 5]), 100, world_size=3)


def test_ranks_may_be_idle_where_they_do_not_wait_for_one_another():
    ranks = shards(Lengths([5, 6]), 3, shuffle=False, idle_ranks=True)
    assert [rows_of(batches) for batches in ranks] == [[1], [0], []]


@pytest.mark.parametrize("options", [{"batch_frames": 0}, {"batch_frames": 10, "bucket_frames": 0}])
def test_empty_budgets_are_refused(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        TokenBucketBatchSampler(Lengths([5]), **options)


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(ValueError, match="rank 2 is not one of 2 processes"):
        TokenBucketBatchSampler(Lengths([5, 5]), 10, rank=2, world_size=2)
