"""What fitting a semantic tokenizer accumulates: moments and clusters, both with their state as tensors."""

from typing import Any

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

State = dict[str, Tensor]


class StreamingMoments:
    """Mean and variance of every dimension over frames that come in pieces (Chan, Golub and LeVeque 1983).

    Args:
        dim: Number of dimensions.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._squares = torch.zeros(dim, dtype=torch.float64)  # sum of squared deviations from the mean

    @property
    def std(self) -> Tensor:
        """Standard deviation ``[dim]``; 1 where a dimension never varied, so that dividing by it is safe."""
        std = (self._squares / max(self.count, 1)).sqrt()
        return torch.where(std > 1e-6, std, torch.ones_like(std))

    def update(self, frames: Tensor) -> None:
        """Take in frames of shape ``[n, dim]``."""
        frames = frames.detach().cpu().double()
        if not len(frames):
            return
        mean = frames.mean(dim=0)
        shift, total = mean - self.mean, self.count + len(frames)
        self._squares += (frames - mean).square().sum(dim=0) + shift.square() * (self.count * len(frames) / total)
        self.mean += shift * (len(frames) / total)
        self.count = total

    def state_dict(self) -> State:
        """The state, as tensors."""
        return {"count": torch.tensor(self.count), "mean": self.mean.clone(), "squares": self._squares.clone()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a state."""
        self.count = int(state["count"])
        self.mean, self._squares = state["mean"].cpu().clone(), state["squares"].cpu().clone()


class StreamingKMeans:
    """Mini-batch k-means (Sculley 2010, scikit-learn's) over frames that come in pieces of any size.

    Frames are held back until there are ``batch_frames`` of them, so that every mini-batch mixes many utterances:
    neighbouring frames of one utterance are nearly the same point. The first mini-batch seeds the centroids by
    k-means++. Centroids that fell behind are moved onto frames of the mini-batch at hand, by scikit-learn's rule.

    Args:
        num_clusters: Number of centroids K.
        batch_frames: Frames per mini-batch, at least K.
        seed: Seed of k-means++ and of the moves; every mini-batch has its own random stream.
    """

    def __init__(self, num_clusters: int, batch_frames: int, seed: int = 0) -> None:
        if batch_frames < num_clusters:
            raise ValueError(f"mini-batches of {batch_frames} frames cannot seed {num_clusters} clusters")
        self.num_clusters = num_clusters
        self.batch_frames = batch_frames
        self.seed = seed
        self.num_updates = 0
        self.inertia = float("nan")  # mean squared distance to the nearest centroid over the last mini-batch
        self._pending: list[Tensor] = []
        self._kmeans: Any = None

    @property
    def started(self) -> bool:
        """Whether any frame has come in."""
        return bool(self._pending) or self._kmeans is not None

    @property
    def centroids(self) -> Tensor | None:
        """Cluster centres ``[K, dim]``, float32; None before the first mini-batch."""
        return None if self._kmeans is None else torch.from_numpy(self._kmeans.cluster_centers_).float()

    def update(self, frames: Tensor) -> bool:
        """Take in frames of shape ``[n, dim]``; say whether that moved the centroids."""
        self._pending.append(frames.detach().cpu().float())
        if sum(map(len, self._pending)) < self.batch_frames:
            return False
        frames = torch.cat(self._pending)
        num_batches = len(frames) // self.batch_frames
        for mini_batch in frames[: num_batches * self.batch_frames].split(self.batch_frames):
            self._step(mini_batch)
        self._pending = [frames[num_batches * self.batch_frames :].clone()]
        return True

    def flush(self) -> None:
        """Take in the frames that were held back.

        Raises:
            ValueError: There are fewer frames than clusters in all.
        """
        frames = torch.cat(self._pending) if self._pending else torch.empty(0)
        if self._kmeans is None and len(frames) < self.num_clusters:
            raise ValueError(
                f"{self.num_clusters} clusters need at least as many frames, the training data has {len(frames)}: "
                "give more speech or lower num_clusters"
            )
        if len(frames):
            self._step(frames)
        self._pending = []

    def state_dict(self) -> State:
        """The state, as tensors; frames that are held back included."""
        state = {"num_updates": torch.tensor(self.num_updates)}
        if self._pending:
            state["pending"] = torch.cat(self._pending)
        if self._kmeans is not None:
            state["centroids"] = torch.from_numpy(self._kmeans.cluster_centers_.copy())
            state["counts"] = torch.from_numpy(self._kmeans._counts.copy())
            state["since_reassignment"] = torch.tensor(self._kmeans._n_since_last_reassign)
        return state

    def load_state_dict(self, state: State) -> None:
        """Go on from a state, exactly as if there had been no interruption."""
        self.num_updates = int(state["num_updates"])
        self._pending = [state["pending"].cpu().clone()] if "pending" in state else []
        self._kmeans = None
        if "centroids" in state:
            centroids = state["centroids"].cpu().numpy().copy()
            self._kmeans = self._estimator(init=centroids, n_init=1)
            # A step on the centroids themselves leaves them where they are and sets up what scikit-learn keeps inside.
            self._kmeans.partial_fit(centroids)
            self._kmeans.cluster_centers_ = centroids
            self._kmeans._counts = state["counts"].cpu().numpy().copy()
            self._kmeans._n_since_last_reassign = int(state["since_reassignment"])
            self._kmeans._batch_size = self.batch_frames

    def _step(self, frames: Tensor) -> None:
        if self._kmeans is None:
            self._kmeans = self._estimator(n_init=1)
        # One stream per mini-batch instead of one in all: nothing of the generator needs to be kept for a restart.
        self._kmeans._random_state = np.random.RandomState((self.seed, self.num_updates))
        self._kmeans.partial_fit(frames.numpy())
        self.num_updates += 1
        self.inertia = self._kmeans.inertia_ / len(frames)

    def _estimator(self, **kwargs: Any) -> MiniBatchKMeans:
        return MiniBatchKMeans(self.num_clusters, batch_size=self.batch_frames, **kwargs)
