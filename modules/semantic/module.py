"""Fitting a semantic tokenizer: one pass for mean and variance, then k-means."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import SGD, Optimizer

from modules.batches import AudioBatch
from modules.semantic.batching import equal_length_groups
from modules.semantic.statistics import StreamingKMeans, StreamingMoments
from modules.semantic.tokenizer import SemanticTokenizer


class SemanticTokenizerTraining(LightningModule):
    """Fit the codebook of a semantic tokenizer on audio.

    ``fit``: epoch 0 measures mean and variance of every feature dimension, every later epoch passes the standardised
    features through mini-batch k-means; so ``trainer.max_epochs`` is 1 + the number of passes of k-means. Checkpoints
    hold the codebook and the state of both, not the speech encoder's weights, and a fit that goes on from one ends
    with the codebook of an uninterrupted one. ``callbacks.semantic_exporter.SemanticExporter`` writes the tokenizer's
    folder at the end. k-means is fitted in one process: ``trainer.devices`` is 1. ``validate`` measures a codebook,
    ``predict`` gives the tokens of every utterance, at the tokenizer's own rate.

    Logged: ``train/inertia`` and ``val/inertia``, the mean squared distance of a frame to its centroid per dimension
    (1 is what a single centroid leaves; 1024 clusters of Whisper base, layer 4, leave 0.27 of the speech they were
    fitted on and 0.35 of unheard voices);
    ``val/used_clusters``, the share of the vocabulary in use; ``val/perplexity``, the effective size of the vocabulary.

    Args:
        tokenizer: The tokenizer to fit.
        batch_frames: Frames per mini-batch of k-means; 10 per cluster where not given.
        seed: Seed of k-means.
    """

    def __init__(self, tokenizer: SemanticTokenizer, batch_frames: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        # The speech encoder's weights are left out of checkpoints, so loading one finds them missing.
        self.strict_loading = False
        self.tokenizer = tokenizer
        self.moments = StreamingMoments(tokenizer.features.dim)
        self.kmeans = StreamingKMeans(tokenizer.vocab_size, batch_frames or 10 * tokenizer.vocab_size, seed)
        self.num_skipped = 0
        self._distance = torch.zeros((), dtype=torch.float64)
        self._histogram = torch.zeros(tokenizer.vocab_size, dtype=torch.int64)

    def configure_optimizers(self) -> Optimizer:
        """Give Lightning an optimizer of nothing: its steps are what checkpoints and loggers count by."""
        return SGD([torch.zeros(1, requires_grad=True)], lr=0.0)

    def setup(self, stage: str) -> None:
        """Refuse trainers that this fit cannot use.

        Raises:
            ValueError: More than one process, or too few epochs.
        """
        if stage != "fit":
            return
        if self.trainer.world_size > 1:
            raise ValueError("k-means is fitted in one process: set trainer.devices=1 and trainer.num_nodes=1")
        # A run of one batch, to see that everything holds together, may end without a codebook.
        rehearsal = getattr(self.trainer, "fast_dev_run", False)
        if self.trainer.max_epochs == 1 and not rehearsal:
            raise ValueError("epoch 0 measures mean and variance, k-means begins after it: set trainer.max_epochs >= 2")

    def on_train_epoch_start(self) -> None:
        """Fix mean and standard deviation when the epoch that measures them is over."""
        if self.current_epoch > 0 and self.kmeans.num_updates == 0 and self.moments.count:
            self.tokenizer.mean.copy_(self.moments.mean)
            self.tokenizer.std.copy_(self.moments.std)

    def training_step(self, batch: AudioBatch, batch_idx: int) -> None:
        """Add the frames of a batch to the moments (epoch 0) or to k-means."""
        self._check_sample_rate(batch)
        for frames in self._frames(batch):
            if self.current_epoch == 0:
                self.moments.update(frames)
            elif self.kmeans.update(self.tokenizer.standardize(frames)):
                self._take_centroids()
        metrics = {"train/frames": float(self.moments.count)} if self.current_epoch == 0 else self._inertia()
        self.log_dict(metrics, prog_bar=True, batch_size=max(len(batch.ids), 1))
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.step()

    def on_train_end(self) -> None:
        """Give k-means the frames it has not seen yet."""
        if self.kmeans.started:
            self.kmeans.flush()
            self._take_centroids()
        if self.num_skipped:
            warnings.warn(f"{self.num_skipped} utterances were too short or too long for the features", stacklevel=2)

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._distance = torch.zeros((), dtype=torch.float64)
        self._histogram = torch.zeros(self.tokenizer.vocab_size, dtype=torch.int64)

    def validation_step(self, batch: AudioBatch, batch_idx: int) -> None:
        """Count tokens and their distances to the centroids; nothing while there is no codebook."""
        self._check_sample_rate(batch)
        if not self.tokenizer.fitted:
            return
        for frames in self._frames(batch):
            tokens, distances = self.tokenizer.nearest(self.tokenizer.standardize(frames))
            self._distance += distances.double().sum().cpu()
            self._histogram += torch.bincount(tokens.cpu(), minlength=self.tokenizer.vocab_size)

    def on_validation_epoch_end(self) -> None:
        """Log inertia, the share of clusters used and their perplexity."""
        total = int(self._histogram.sum())
        if not total:
            return
        shares = self._histogram.double() / total
        entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
        self.log_dict(
            {
                "val/inertia": float(self._distance / (total * self.tokenizer.features.dim)),
                "val/used_clusters": float((self._histogram > 0).double().mean()),
                "val/perplexity": float(entropy.exp()),
            },
            prog_bar=True,
        )

    def predict_step(self, batch: AudioBatch, batch_idx: int) -> list[Tensor]:
        """Tokenize a batch: per utterance ``[T_i]``, int64, at ``tokenizer.frame_rate``."""
        self._check_sample_rate(batch)
        tokens: list[Tensor] = [torch.empty(0)] * len(batch.audio)
        for rows in equal_length_groups(batch.audio):
            encoded = self.tokenizer.encode(torch.stack([batch.audio[row] for row in rows]))
            for row, row_tokens in zip(rows, encoded, strict=True):
                tokens[row] = row_tokens
        return tokens

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The codebook alone: the frozen speech encoder stays where it was loaded from."""
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if ".features." not in f".{name}"}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what has been accumulated, as tensors."""
        checkpoint["moments"] = self.moments.state_dict()
        checkpoint["kmeans"] = self.kmeans.state_dict()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on with what had been accumulated."""
        self.moments.load_state_dict(checkpoint["moments"])
        self.kmeans.load_state_dict(checkpoint["kmeans"])

    def _check_sample_rate(self, batch: AudioBatch) -> None:
        if batch.sample_rate != self.tokenizer.sample_rate:
            raise ValueError(
                f"the audio comes at {batch.sample_rate} Hz, the speech features need {self.tokenizer.sample_rate} Hz: "
                f"set data.init_args.sample_rate={self.tokenizer.sample_rate}"
            )

    def _frames(self, batch: AudioBatch) -> list[Tensor]:
        """Frames of the utterances of a batch, ``[n, dim]`` per group of utterances of one length."""
        groups = []
        for rows in equal_length_groups(batch.audio):
            try:
                groups.append(self.tokenizer.frames(torch.stack([batch.audio[row] for row in rows])).flatten(0, 1))
            except ValueError:  # too short or too long; the rest of the batch is as good as before
                self.num_skipped += len(rows)
        return groups

    def _take_centroids(self) -> None:
        centroids = self.kmeans.centroids
        if centroids is not None:
            self.tokenizer.centroids.copy_(centroids)

    def _inertia(self) -> dict[str, float]:
        if not self.kmeans.num_updates:
            return {}
        return {"train/inertia": self.kmeans.inertia / self.tokenizer.features.dim}
