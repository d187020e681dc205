"""Moments and clusters over frames that come in pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.semantic.statistics import StreamingKMeans, StreamingMoments


def blobs(num_clusters=6, frames_each=200, dim=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 10 * torch.randn(num_clusters, dim, generator=generator)
    frames = centres.repeat(frames_each, 1) + 0.1 * torch.randn(num_clusters * frames_each, dim, generator=generator)
    return centres, frames[torch.randperm(len(frames), generator=generator)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 1000))
def test_moments_do_not_depend_on_the_pieces(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    # Far from zero, where sums of squares would lose the variance to rounding.
    pieces = [1e4 + torch.randn(size, 3, generator=generator) for size in sizes]
    moments = StreamingMoments(3)
    for piece in pieces:
        moments.update(piece)
    frames = torch.cat(pieces).double()
    assert moments.count == len(frames)
    if len(frames) > 1:
        torch.testing.assert_close(moments.mean, frames.mean(dim=0))
        torch.testing.assert_close(moments.std, frames.std(dim=0, correction=0), rtol=1e-6, atol=1e-6)


def test_a_dimension_that_never_varies_has_deviation_1():
    moments = StreamingMoments(2)
    moments.update(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    torch.testing.assert_close(moments.std, torch.tensor([1.0, 1.0], dtype=torch.float64))
    assert StreamingMoments(2).std.tolist() == [1.0, 1.0]


def test_well_separated_clusters_are_found():
    centres, frames = blobs()
    kmeans = StreamingKMeans(6, batch_frames=100)
    for piece in frames.split(37):
        kmeans.update(piece)
    nearest = torch.cdist(centres, kmeans.centroids)
    assert nearest.amin(dim=1).max() < 0.1
    assert sorted(nearest.argmin(dim=1).tolist()) == list(range(6))
    assert kmeans.inertia == pytest.approx(3 * 0.1**2, rel=0.2)


def test_frames_are_held_back_until_there_is_a_mini_batch():
    _, frames = blobs()
    kmeans = StreamingKMeans(6, batch_frames=100)
    assert not kmeans.update(frames[:99])
    assert kmeans.centroids is None
    assert kmeans.update(frames[99:250])
    assert kmeans.num_updates == 2
    kmeans.flush()
    assert kmeans.num_updates == 3
    kmeans.flush()
    assert kmeans.num_updates == 3


def test_mini_batches_do_not_depend_on_the_pieces():
    _, frames = blobs()
    one, other = StreamingKMeans(6, batch_frames=100), StreamingKMeans(6, batch_frames=100)
    one.update(frames)
    for piece in frames.split(7):
        other.update(piece)
    torch.testing.assert_close(one.centroids, other.centroids, rtol=0, atol=0)


@pytest.mark.parametrize("interrupted_after", [50, 130, 400, 500, 1190])
def test_going_on_from_a_state_changes_nothing(interrupted_after, tmp_path):
    # Half the frames in one spot, and a few outliers for k-means++ to choose: centroids fall behind and are moved.
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(1200, 3, generator=generator)
    frames[torch.rand(1200, generator=generator) < 0.5] *= 1e-3
    frames[torch.rand(1200, generator=generator) < 0.02] *= 100
    whole = StreamingKMeans(20, batch_frames=100, seed=3)
    whole.update(frames)
    whole.flush()

    first = StreamingKMeans(20, batch_frames=100, seed=3)
    first.update(frames[:interrupted_after])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = StreamingKMeans(20, batch_frames=100, seed=3)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.update(frames[interrupted_after:])
    second.flush()

    torch.testing.assert_close(second.centroids, whole.centroids, rtol=0, atol=0)
    assert second.num_updates == whole.num_updates


def test_a_state_does_not_change_with_what_comes_after_it():
    _, frames = blobs()
    kmeans = StreamingKMeans(6, batch_frames=100)
    kmeans.update(frames[:150])
    state = kmeans.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    kmeans.update(frames[150:])
    for name, value in before.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_too_few_frames_are_an_error_with_both_numbers():
    kmeans = StreamingKMeans(6, batch_frames=100)
    kmeans.update(torch.randn(5, 3))
    with pytest.raises(ValueError, match="6 clusters need at least as many frames, the training data has 5"):
        kmeans.flush()


def test_mini_batches_can_seed_every_cluster():
    with pytest.raises(ValueError, match="mini-batches of 10 frames cannot seed 20 clusters"):
        StreamingKMeans(20, batch_frames=10)
