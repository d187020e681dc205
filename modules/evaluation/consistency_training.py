"""Trains what hears whether two stretches of sound are from one recording: the paper's consistency scorer."""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from modules.batches import AudioBatch
from modules.evaluation.pooled_conformer import PooledConformer, load_network
from modules.evaluation.speaker import VoiceEmbedding
from modules.optimizers import with_schedule

MAX_SCALE = 100.0  # CLIP's bound on the inverse temperature
HOW_TO_TRAIN = "train one with `soundstorm fit -c configs/evaluate/consistency_whisper.yaml`"


class Span(NamedTuple):
    """A stretch of a recording, in samples."""

    start: int
    length: int


def draw_crops(
    num_samples: int, shortest: int, longest: int, step: int, generator: torch.Generator
) -> tuple[Span, Span] | None:
    """Draw two stretches of a recording that do not overlap.

    Args:
        num_samples: Length of the recording.
        shortest: Least length of a stretch.
        longest: Greatest length of a stretch.
        step: Lengths are ``shortest`` plus multiples of this, so that many stretches share a length.
        generator: Source of the draws.

    Returns:
        The earlier stretch and the later one; ``None`` where the recording is shorter than ``2 * shortest``.
    """

    def draw(below: int) -> int:
        return int(torch.randint(below, (), generator=generator))

    if num_samples < 2 * shortest:
        return None
    first = shortest + step * draw((min(longest, num_samples - shortest) - shortest) // step + 1)
    second = shortest + step * draw((min(longest, num_samples - first) - shortest) // step + 1)
    # The shorter stretch of a short recording comes first as often as the longer one.
    if draw(2):
        first, second = second, first
    slack = num_samples - first - second
    before, between = sorted((draw(slack + 1), draw(slack + 1)))
    return Span(before, first), Span(first + between, second)


def contrastive_loss(
    first: Tensor, second: Tensor, scale: Tensor, speakers: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute CLIP's symmetric loss: which of the others is from the same recording?

    Args:
        first: Embeddings of length 1, ``[B, D]``.
        second: Embeddings of the other crops of the same recordings, in the same order, ``[B, D]``.
        scale: Inverse temperature, a scalar.
        speakers: Number of each recording's speaker, int64 ``[B]``: other recordings of a speaker are not what a crop
            is told from. In a corpus of thousands of speakers they are rare, in a small one they are most of a batch.

    Returns:
        The loss, and the share of crops whose partner is the nearest, both scalars.
    """
    logits = scale * first @ second.T
    if speakers is not None:
        others = (speakers[:, None] == speakers) & ~torch.eye(len(first), dtype=torch.bool, device=first.device)
        logits = logits.masked_fill(others, -torch.inf)
    target = torch.arange(len(first), device=first.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    found = torch.cat([logits.argmax(dim=0) == target, logits.argmax(dim=1) == target])
    return loss, found.float().mean()


class ConsistencyTraining(LightningModule):
    """Contrastive training of the paper's consistency scorer (section 4.2).

    Two random crops of a recording are a pair; the recordings of other speakers in the batch, over all ranks, are what
    they are told from. Recordings too short for two crops are left out. Logged: ``train/loss``, ``train/accuracy`` and
    the same of ``val``: the share of crops whose partner is the nearest of the batch, which depends on its size.
    ``callbacks.scorer_exporter.ScorerExporter`` writes the folder that :class:`ConsistencyEmbedding` reads.

    Args:
        network: What maps crops to vectors; its speech features stay frozen and out of checkpoints.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning-rate schedule, stepped once per optimizer step; none where not given.
        min_seconds: Shortest crop; 2 in the paper.
        max_seconds: Longest crop; 5 in the paper.
        step_seconds: Lengths are drawn in these steps, so that crops of a length share a pass through the features.
        temperature: Of the contrastive loss, at the start; it is learnt.
        seed: Of the crops; those of validation are the same in every epoch.
    """

    def __init__(
        self,
        network: PooledConformer,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        min_seconds: float = 2.0,
        max_seconds: float = 5.0,
        step_seconds: float = 0.5,
        temperature: float = 0.07,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < min_seconds <= max_seconds:
            raise ValueError(f"crops cannot last {min_seconds:g} to {max_seconds:g} s")
        # The features' weights are left out of checkpoints, so loading one finds them missing.
        self.strict_loading = False
        self.network = network
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.shortest, self.longest, self.step = (
            max(1, round(seconds * network.sample_rate)) for seconds in (min_seconds, max_seconds, step_seconds)
        )
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())
        self.seed = seed

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule; speech features are not trained."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return with_schedule(self.optimizer(trained), self.scheduler)

    def training_step(self, batch: AudioBatch, batch_idx: int) -> Tensor:
        """Compute the loss over the pairs of all ranks."""
        draw = (self.seed * 1_000_003 + self.current_epoch) * 1_000_003 + batch_idx
        loss, accuracy, pairs = self._compare(batch, draw * 1009 + self.global_rank)
        values = {"train/loss": loss.detach(), "train/accuracy": accuracy, "train/scale": self._scale().detach()}
        self.log_dict(values, prog_bar=True, batch_size=max(pairs, 1))
        return loss

    def validation_step(self, batch: AudioBatch, batch_idx: int) -> None:
        """Log loss and accuracy on crops that are the same every time."""
        loss, accuracy, pairs = self._compare(batch, (self.seed + 1) * 7919 + batch_idx)
        if pairs:
            values = {"val/loss": loss, "val/accuracy": accuracy}
            self.log_dict(values, prog_bar=True, batch_size=pairs, sync_dist=True)

    def _scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def _compare(self, batch: AudioBatch, seed: int) -> tuple[Tensor, Tensor, int]:
        """Loss and accuracy over the pairs of all ranks, and their number."""
        if batch.audio and batch.sample_rate != self.network.sample_rate:
            raise ValueError(
                f"the audio comes at {batch.sample_rate} Hz, the speech features need {self.network.sample_rate} Hz: "
                f"set data.init_args.sample_rate={self.network.sample_rate}"
            )
        generator = torch.Generator().manual_seed(seed)
        spans = [draw_crops(len(a), self.shortest, self.longest, self.step, generator) for a in batch.audio]
        pairs = [(audio, pair) for audio, pair in zip(batch.audio, spans, strict=True) if pair]
        crops = [audio[span.start : span.start + span.length] for side in (0, 1) for audio, pair in pairs
                 for span in [pair[side]]]  # fmt: skip
        if crops:
            first, second = F.normalize(self.network(crops).float(), dim=-1).chunk(2)
        else:  # nothing here, but other ranks wait for gradients: zeros
            nothing = sum(p.sum() for p in self.network.parameters() if p.requires_grad) * 0.0
            first = second = self.network.head.weight.new_zeros(0, self.network.head.out_features) + nothing
        named = [batch.speakers[row] or f"\0{batch.ids[row]}" for row, pair in enumerate(spans) if pair]
        speakers = torch.tensor([zlib.crc32(name.encode()) for name in named], dtype=torch.int64, device=first.device)
        first, second = self._gather(torch.stack([first, second], dim=1)).unbind(dim=1)
        speakers = self._gather(speakers)
        if not len(first):
            zero = first.sum() + 0.0 * self.log_scale
            return zero, zero.detach(), 0
        # Every rank computes the loss of all pairs: the gradients that DDP averages are those of one large batch.
        loss, accuracy = contrastive_loss(first, second, self._scale(), speakers)
        return loss, accuracy, len(first)

    def _gather(self, rows: Tensor) -> Tensor:
        """Rows of this rank ``[B_r, ...]`` to those of all ranks ``[B, ...]``, keeping gradients."""
        if self.trainer.world_size == 1:
            return rows
        counts = self.all_gather(torch.tensor(len(rows), device=self.device))
        assert isinstance(counts, Tensor)
        padded = torch.cat([rows, rows.new_zeros(int(counts.max()) - len(rows), *rows.shape[1:])])
        gathered = self.all_gather(padded, sync_grads=rows.requires_grad)
        assert isinstance(gathered, Tensor)
        return torch.cat([of_rank[:count] for of_rank, count in zip(gathered, counts.tolist(), strict=True)])

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Everything but the frozen speech features, which stay where they were loaded from."""
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if not name.startswith("network.features.")}


class ConsistencyEmbedding(VoiceEmbedding):
    """A trained consistency scorer, for :class:`~modules.evaluation.consistency.AcousticConsistency`.

    It hears more than the voice: room, microphone and noise tell recordings apart as well, and all of them should
    stay the same until the end of a generated clip.

    Args:
        folder: What :class:`ConsistencyTraining` exported.
        features: Speech features in place of those the folder names: the same model, at another place.
        sample_rate: Samples per second of the audio, in Hz.
    """

    min_seconds = 2.0  # as trained

    def __init__(self, folder: str, features: nn.Module | None = None, sample_rate: int = 16_000) -> None:
        super().__init__()
        self.folder = folder
        self.sample_rate = sample_rate
        self._given = [features] if features is not None else []  # in a list: no submodule before it is loaded

    def load(self) -> None:
        """Read the folder."""
        self.network = load_network(self.folder, next(iter(self._given), None), self.sample_rate, HOW_TO_TRAIN)

    @torch.inference_mode()
    def forward(self, audio: Tensor) -> Tensor:
        """Embed one clip: float32 mono ``[N]`` -> ``[D]``, of length 1."""
        return self.embed([audio])[0]

    @torch.inference_mode()
    def embed(self, clips: Sequence[Tensor]) -> Tensor:
        """Embed several clips, each ``[N_i]`` -> ``[B, D]``, of length 1."""
        return F.normalize(self.network(clips).float(), dim=-1)

    def identity(self) -> dict[str, Any]:
        """Say which model this is."""
        return {"name": "contrastive consistency", **self.network.identity()}
