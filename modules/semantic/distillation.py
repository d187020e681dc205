"""Teaching a small network the semantic tokens of a large one."""

import json
import math
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from modules.optimizers import parameter_groups, with_schedule
from modules.semantic.distilled import DistilledFeatures
from modules.semantic.tokenizer import SemanticTokenizer


class SemanticDistillation(LightningModule):
    """Train :class:`DistilledFeatures` to stand in for the features of a fitted semantic tokenizer.

    The student sees each crop with noise, the teacher without. Two losses: the mean squared distance of the
    standardised features, and the cross-entropy of the teacher's token among all centroids, by distance. The result,
    :attr:`tokenizer`, has the teacher's centroids: its tokens mean what the teacher's mean.

    Transformers park attention in a few frames of enormous norm (Darcet et al. 2024, "Vision transformers need
    registers"). In Whisper base, layer 4, these are one frame in sixty, and nearly half of the variance. What is said
    there is gone from them and where they lie cannot be foreseen; so ``max_energy`` leaves them out of both losses.

    Logged: ``val/agreement``, the share of all frames with the teacher's token; ``val/agreement_top5``;
    ``val/distance`` and ``val/outliers``, the mean squared distance without outliers and their share.

    Args:
        teacher: A fitted tokenizer.
        student: The features to train.
        optimizer: Makes the optimizer from the groups of :func:`modules.optimizers.parameter_groups`.
        lr_scheduler: Makes the learning-rate schedule, stepped once per optimizer step.
        token_weight: Weight of the cross-entropy beside the squared distance.
        noise_db: Lowest and highest level of the noise in the student's input, in dB below the crop's own; no noise
            where None.
        max_energy: Frames of the teacher whose mean square over the dimensions is larger are outliers; None keeps all.
        scale: How sharply a squared distance per dimension decides for a centroid, to begin with; it is learnt.
        masked_bands: Width of the widest mask over bands of the student's input in training, :func:`mask_spectra`.
        masked_frames: Length of the longest mask over its frames.

    Raises:
        ValueError: Student and teacher differ in rate or width.
        RuntimeError: The teacher has no codebook yet.
    """

    def __init__(
        self,
        teacher: SemanticTokenizer,
        student: DistilledFeatures,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        token_weight: float = 0.3,
        noise_db: tuple[float, float] | None = (-50.0, -15.0),
        max_energy: float | None = 4.0,
        scale: float = 20.0,
        masked_bands: int = 0,
        masked_frames: int = 0,
    ) -> None:
        super().__init__()
        teacher.require_codebook()
        for name in ("sample_rate", "hop_length"):
            if getattr(student, name) != getattr(teacher, name):
                raise ValueError(
                    f"the student has {name}={getattr(student, name)}, the teacher {getattr(teacher, name)}"
                )
        if student.dim != teacher.features.dim:
            raise ValueError(f"the student's features are {student.dim} wide, the teacher's {teacher.features.dim}")
        # The teacher's weights are left out of checkpoints.
        self.strict_loading = False
        self.teacher = teacher.requires_grad_(False)
        student.teaching, student.teacher = True, json.loads(json.dumps(teacher.identity()))
        # Lightning trains in the mode that it finds.
        self.student = student.train()
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.token_weight, self.noise_db, self.max_energy = token_weight, noise_db, max_energy
        self.masked_bands, self.masked_frames = masked_bands, masked_frames
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @property
    def tokenizer(self) -> SemanticTokenizer:
        """The student's features with the teacher's centroids."""
        tokenizer = SemanticTokenizer(self.student, num_clusters=self.teacher.vocab_size)
        tokenizer.set_codebook(
            torch.zeros(self.student.dim), torch.ones(self.student.dim), self.teacher.centroids.cpu()
        )
        return tokenizer

    def compare(self, audio: Tensor, heard: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Let both work on the same audio.

        Args:
            audio: What the teacher hears, ``[B, N]``.
            heard: What the student hears, ``[B, N]``.

        Returns:
            Mean squared distance of the features of the frames that count ``[]``, logits over centroids
            ``[B * T, K]``, teacher's tokens ``[B * T]``, and which frames count, ``[B * T]`` bool.
        """
        with torch.no_grad():
            # In the trainer's precision, unlike tokens that are kept: in bfloat16 one token in a hundred is another,
            # and Whisper base takes a third of the time.
            wanted = self.teacher.standardize(self.teacher.pooled(self.teacher.features.compute(audio)))
            tokens = self.teacher.nearest(wanted)[0]
        spectra = self.student.spectra(heard)
        if self.training:
            spectra = mask_spectra(spectra, self.masked_bands, self.masked_frames)
        found = self.student.read(spectra)
        # Encoders make a frame or two fewer than there is audio.
        frames = min(found.shape[1], wanted.shape[1])
        found, wanted, tokens = found[:, :frames].float(), wanted[:, :frames], tokens[:, :frames]
        # Squared distances to the centroids, per dimension, without the part that all centroids share.
        logits = (2 * found @ self.teacher.centroids.T - self.teacher.centroids.square().sum(1)) / self.student.dim
        logits = logits * self.log_scale.exp()
        counts = torch.ones_like(tokens, dtype=torch.bool)
        if self.max_energy is not None:
            counts = wanted.square().mean(-1) <= self.max_energy
        distance = _mean((found - wanted).square().mean(-1), counts)
        return distance, logits.flatten(0, 1), tokens.flatten(), counts.flatten()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Take a batch of crops ``[B, N]``."""
        distance, logits, tokens, counts = self.compare(batch, self._add_noise(batch))
        cross_entropy = _mean(F.cross_entropy(logits, tokens, reduction="none"), counts)
        loss = distance + self.token_weight * cross_entropy
        agreement = (logits.argmax(-1) == tokens).float().mean()
        self.log_dict({"train/loss": loss, "train/distance": distance, "train/cross_entropy": cross_entropy})
        self.log("train/scale", self.log_scale.exp())
        self.log("train/agreement", agreement, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Measure agreement on clean crops ``[B, N]``."""
        distance, logits, tokens, counts = self.compare(batch, batch)
        best = logits.topk(min(5, logits.shape[-1]), dim=-1).indices
        hits = (best == tokens[:, None]).float()
        values = {
            "val/agreement": hits[:, 0].mean(),
            "val/agreement_top5": hits.sum(-1).mean(),
            "val/distance": distance,
            "val/outliers": 1 - counts.float().mean(),
        }
        self.log_dict(values, prog_bar=True, batch_size=len(batch), sync_dist=True)

    def _add_noise(self, audio: Tensor) -> Tensor:
        if self.noise_db is None:
            return audio
        low, high = self.noise_db
        level = low + (high - low) * torch.rand(len(audio), 1, device=audio.device)
        power = audio.square().mean(1, keepdim=True).sqrt()
        return audio + torch.randn_like(audio) * power * 10 ** (level / 20)

    def configure_optimizers(self) -> Any:
        """Make the optimizer, with weight decay for matrices only, and the schedule, stepped per optimizer step."""
        groups = parameter_groups(self.student, hidden=self.student.trunk)
        next(group for group in groups if group.get("weight_decay") == 0.0)["params"].append(self.log_scale)
        return with_schedule(self.optimizer(groups), self.lr_scheduler)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The student alone: the teacher stays where it was loaded from."""
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if not name.startswith("teacher.")}


def mask_spectra(spectra: Tensor, bands: int, frames: int) -> Tensor:
    """Hide bands and stretches of time (SpecAugment: Park et al. 2019, section 2, without warping).

    Two masks over bands per row, and one over frames per hundred frames; their widths are drawn from 0 to the given
    one, their places from all that fit. What is hidden becomes 0, a band's mean where spectra are free of it.

    Args:
        spectra: Two spectra per frame, shape ``[B, T, 2 * num_mels]``.
        bands: Width of the widest mask over bands, at most all of them.
        frames: Length of the longest mask over frames, at most all of them.

    Returns:
        Masked spectra, shape ``[B, T, 2 * num_mels]``.
    """
    rows, num_frames, width = spectra.shape
    hidden_bands = _stretches(rows, 2, width // 2, bands, spectra.device).repeat(1, 2)
    hidden_frames = _stretches(rows, num_frames // 100, num_frames, frames, spectra.device)
    return spectra.masked_fill(hidden_bands[:, None] | hidden_frames[:, :, None], 0.0)


def _stretches(rows: int, count: int, length: int, longest: int, device: torch.device) -> Tensor:
    """Draw ``count`` stretches of 0 to ``longest`` places in each row: bool ``[rows, length]``."""
    drawn = torch.rand(2, rows, count, 1, device=device)
    sizes = (drawn[0] * (min(longest, length) + 1)).floor()
    starts = (drawn[1] * (length - sizes + 1)).floor()
    places = torch.arange(length, device=device)
    return ((places >= starts) & (places < starts + sizes)).any(1)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Average what counts; 0 where nothing does."""
    return (values * counts).sum() / counts.sum().clamp_min(1)
