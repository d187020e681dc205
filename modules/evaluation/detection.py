"""Can generated speech be told from recordings? The paper (section 6) reports a classifier that finds 98.5 % of it."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryEER

from modules.evaluation.items import EvaluationBatch, EvaluationItem
from modules.evaluation.metrics import GroupedRatio
from modules.evaluation.pooled_conformer import PooledConformer, load_network
from modules.evaluation.scorer import Scorer, Scores
from modules.measure import Measure
from modules.optimizers import with_schedule

CLASSES = ("real", "reconstructed", "generated")
LEVEL = 0.05  # root mean square that all crops are brought to: loudness must not tell them apart
SHORTEST = 0.5  # seconds that can be judged
# Where equal error rates are looked for, at steps of 0.01 of log-odds: counts below and above add up over devices, as a
# list of all scores does not.
THRESHOLDS = torch.linspace(-12, 12, 2401).sigmoid()
HOW_TO_TRAIN = "train one with `soundstorm fit -c configs/evaluate/detection.yaml`"


def class_of(item: EvaluationItem) -> int:
    """Index into :data:`CLASSES`: whatever renders a recording under the condition ``reference`` is a codec."""
    if item.condition != "reference":
        return 2
    return 0 if item.system == "original" else 1


def at_level(audio: Tensor) -> Tensor:
    """Bring audio ``[N]`` to one loudness; silence stays silent."""
    return audio * (LEVEL / audio.square().mean().sqrt().clamp(min=1e-4))


def crops_of(item: EvaluationItem, samples: int) -> list[Tensor]:
    """Cut what follows the prompt into consecutive crops of ``samples``; one shorter crop where there is no whole one.

    A prompt is a reconstruction, whatever follows. Of recordings and reconstructions the same time is left out.

    Returns:
        The crops; none where less than half a second follows.
    """
    audio = item.continuation
    if audio.numel() < SHORTEST * item.sample_rate:
        return []
    crops = [crop for crop in audio.split(samples) if crop.numel() == samples] or [audio]
    return [at_level(crop) for crop in crops]


def balanced_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits ``[B, 3]``, every class of the batch weighing the same: systems outnumber recordings."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    return torch.stack([losses[labels == label].mean() for label in labels.unique()]).mean()


class DetectionTraining(LightningModule):
    """Trains and tests a classifier of real, reconstructed and generated speech.

    ``test`` judges whole clips by the mean over their crops, and logs under ``test/``: ``accuracy`` of the three
    classes, each weighing the same; ``eer``, the equal error rate of generated against everything else; and, as AudioLM
    and the paper do, generated against *reconstructed* speech, which differ by the model and not by the codec:
    ``accuracy_generated`` and ``eer_generated``. All in percent; what needs a class of which no clip was judged is
    left out. Give it speakers it was not trained on: ``datamodules.detection.DetectionDataModule`` splits by them.

    Args:
        network: The classifier, ``output_dim`` 3; its speech features stay frozen and out of checkpoints.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning-rate schedule, stepped once per optimizer step; none where not given.
        crop_seconds: What is judged at a time.
        seed: Of the random crops of training.
    """

    def __init__(
        self,
        network: PooledConformer,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        crop_seconds: float = 3.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if network.head.out_features != len(CLASSES):
            raise ValueError(f"the network has output_dim={network.head.out_features}, {len(CLASSES)} classes need 3")
        # The features' weights are left out of checkpoints, so loading one finds them missing.
        self.strict_loading = False
        self.network = network
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.samples = round(crop_seconds * network.sample_rate)
        self.seed = seed
        self.num_unjudged = 0
        for stage in ("val", "test"):
            self.add_module(f"{stage}_recall", GroupedRatio(len(CLASSES)))
            self.add_module(f"{stage}_all", MetricCollection({"eer": BinaryEER(THRESHOLDS)}))
            pair = {"accuracy_generated": BinaryAccuracy(), "eer_generated": BinaryEER(THRESHOLDS)}
            self.add_module(f"{stage}_pair", MetricCollection({**pair}))

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule; speech features are not trained."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return with_schedule(self.optimizer(trained), self.scheduler)

    def training_step(self, batch: EvaluationBatch, batch_idx: int) -> Tensor | None:
        """Judge a random crop of every clip."""
        draw = (self.seed * 1_000_003 + self.current_epoch) * 1_000_003 + batch_idx
        generator = torch.Generator().manual_seed(draw * 1009 + self.global_rank)
        crops, labels = [], []
        for item in batch.items:
            audio = item.continuation
            if audio.numel() < SHORTEST * item.sample_rate:
                continue
            start = int(torch.randint(max(audio.numel() - self.samples, 0) + 1, (), generator=generator))
            crops.append(at_level(audio[start : start + self.samples]))
            labels.append(class_of(item))
        if not crops:
            if self.trainer.world_size == 1:
                return None
            nothing = [parameter.sum() * 0.0 for parameter in self.parameters() if parameter.requires_grad]
            return torch.stack(nothing).sum()
        logits, target = self.network(crops), torch.tensor(labels, device=self.device)
        loss = balanced_loss(logits, target)
        accuracy = (logits.argmax(dim=1) == target).float().mean()
        values = {"train/loss": loss.detach(), "train/accuracy": accuracy}
        self.log_dict(values, prog_bar=True, batch_size=len(crops))
        return loss

    def on_test_epoch_start(self) -> None:
        """Forget an earlier test."""
        self.num_unjudged = 0

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Judge whole clips."""
        self._judge(batch, "val")

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Judge whole clips."""
        self._judge(batch, "test")

    def _judge(self, batch: EvaluationBatch, stage: str) -> None:
        for item in batch.items:
            crops = crops_of(item, self.samples)
            if not crops:
                self.num_unjudged += 1
                continue
            scores = self.network(crops).float().log_softmax(dim=1).mean(dim=0)  # [3]
            label = class_of(item)
            self._recall(stage).update(label, float(scores.argmax() == label))
            generated = torch.tensor([int(label == 2)], device=self.device)
            rest = scores[:2].logsumexp(dim=0)
            self._metrics(stage, "all").update((scores[2] - rest).sigmoid()[None], generated)
            if label:
                self._metrics(stage, "pair").update((scores[2] - scores[1]).sigmoid()[None], generated)

    def _recall(self, stage: str) -> GroupedRatio:
        recall = getattr(self, f"{stage}_recall")
        assert isinstance(recall, GroupedRatio)
        return recall

    def _metrics(self, stage: str, which: str) -> MetricCollection:
        metrics = getattr(self, f"{stage}_{which}")
        assert isinstance(metrics, MetricCollection)
        return metrics

    def on_validation_epoch_end(self) -> None:
        """Log what was found."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Log what was found."""
        self._log("test")
        self.log("test/unjudged", float(self.num_unjudged), sync_dist=True, reduce_fx="sum")

    def _log(self, stage: str) -> None:
        recall = self._recall(stage).compute()  # of every device: all agree on what there is to compute
        judged = recall.isfinite().tolist()
        if any(judged):
            self.log(f"{stage}/accuracy", 100 * recall.nanmean(), prog_bar=True)
        for which, known in (("all", any(judged[:2]) and judged[2]), ("pair", all(judged[1:]))):
            metrics = self._metrics(stage, which)
            if known:
                self.log_dict(
                    {f"{stage}/{name}": 100 * found for name, found in metrics.compute().items()}, prog_bar=True
                )
            metrics.reset()
        self._recall(stage).reset()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Everything but the frozen speech features, which stay where they were loaded from."""
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if not name.startswith("network.features.")}


class Detection(Scorer):
    """What a trained classifier takes each clip for, as a column of the table.

    For recordings and reconstructions the column is the rate of false alarms, for systems the share that is found out.
    Scores of speakers the classifier was trained on are too good; ``soundstorm test`` of :class:`DetectionTraining`
    keeps them apart.

    Args:
        folder: What was exported after :class:`DetectionTraining`.
        features: Speech features in place of those the folder names: the same model, at another place.
        crop_seconds: What is judged at a time, as in training.
        sample_rate: Samples per second of the audio, in Hz.
        name: Key of the scorer in the results.
    """

    def __init__(
        self,
        folder: str,
        features: nn.Module | None = None,
        crop_seconds: float = 3.0,
        sample_rate: int = 16_000,
        name: str = "detection",
    ) -> None:
        super().__init__()
        self.folder = folder
        self.crop_seconds = crop_seconds
        self.sample_rate = sample_rate
        self.name = name
        self._given = [features] if features is not None else []  # in a list: no submodule before it is loaded

    @property
    def measures(self) -> Sequence[Measure]:
        """Share of clips taken for generated ones."""
        label = "Taken for generated %"  # less is better: a false alarm, or found out
        return (Measure("detected", label, "taken_for_generated", scale=100.0, digits=1, higher_is_better=False),)

    def load(self) -> None:
        """Read the folder."""
        self.network = load_network(self.folder, next(iter(self._given), None), self.sample_rate, HOW_TO_TRAIN)

    @torch.inference_mode()
    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance: ``taken_for`` (the class), ``taken_for_generated`` (0 or 1), ``p_generated``."""
        crops = crops_of(item, round(self.crop_seconds * self.sample_rate))
        if not crops:
            reason = f"less than {SHORTEST:g} s after the prompt"
            return Scores({"taken_for_generated": float("nan")}, {"detected": reason})
        scores = self.network(crops).float().log_softmax(dim=1).mean(dim=0)
        best = int(scores.argmax())
        probability = float(scores.softmax(dim=0)[2])
        return Scores({"taken_for": CLASSES[best], "taken_for_generated": int(best == 2), "p_generated": probability})

    def identity(self) -> dict[str, Any]:
        """Say which model this is."""
        return {"name": "detection", **self.network.identity(), "crop_seconds": self.crop_seconds}
