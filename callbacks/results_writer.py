"""Writes what the scorers found, utterance by utterance."""

import json
import math
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import xxhash
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from datamodules.audio_sources import distinct_file_name
from datamodules.generated_set import write_flac
from modules.atomic import write_atomically
from modules.batches import Rejection
from modules.evaluation.choice import choose_worst, ranking_measure, spread_evenly
from modules.evaluation.items import EvaluationItem
from modules.evaluation.module import EvaluationModule, ScoredItem

PACKAGES = ("soundstorm-lightning", "torch", "transformers", "jiwer", "lightning")


class ResultsWriter(Callback):
    """Writes a results folder, from which ``soundstorm report`` makes its tables and pages.

    ============== =====================================================================================
    results.jsonl  one row per utterance and system, with all scores and the revisions of all scorers
    run.json       scorers, measures, cards of the systems, what was absent, missing or unreadable, versions
    clips/         audio of some utterances as every system rendered them, to listen to
    ============== =====================================================================================

    Rows are written as they are found, and put in place together when the test ends. Only then are the worst known,
    and the audio to keep read once more.

    Args:
        output_dir: The folder.
        clips: How many utterances to keep audio of, spread evenly over the set.
        worst: How many more, of which a system made the worst by the first scorer's first measure.
    """

    def __init__(self, output_dir: str | Path, clips: int = 12, worst: int = 6) -> None:
        super().__init__()
        self.output_dir = Path(output_dir)
        self.clips = clips
        self.worst = worst
        self._part = Path()
        self._identities: dict[str, dict[str, Any]] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew.

        Raises:
            TypeError: The model is no EvaluationModule.
        """
        if not isinstance(pl_module, EvaluationModule):
            raise TypeError(f"ResultsWriter writes what EvaluationModule finds, not {type(pl_module).__name__}")
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self._identities = {scorer.name: scorer.identity() for scorer in pl_module.loaded}
        self._part = self.output_dir / f"results-r{trainer.global_rank}.jsonl.tmp"
        self._part.write_text("", encoding="utf-8")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of a batch."""
        assert isinstance(pl_module, EvaluationModule)
        rejected: list[Rejection] = outputs["rejected"]
        results: list[ScoredItem] = outputs["results"]
        lines = [{"rejected": rejection._asdict()} for rejection in rejected]
        lines += [{"result": result_row(result, self._identities)} for result in results]
        with open(self._part, "a", encoding="utf-8") as stream:
            stream.writelines(_json_line(line) for line in lines)

    def _keep_clips(self, trainer: Trainer, module: EvaluationModule, rows: list[dict[str, Any]]) -> None:
        """Write the audio of some utterances, and into their rows where it lies."""
        kept = set(spread_evenly(sorted({row["id"] for row in rows}), self.clips))
        if (by := ranking_measure((scorer.name, m) for scorer in module.loaded for m in scorer.measures)) is not None:
            kept |= set(choose_worst(rows, *by, self.worst))
        dataset = trainer.test_dataloaders.dataset  # ty: ignore[missing-union-attribute]
        items = (dataset[at] for at, found in enumerate(dataset.renderings) if found.utterance.id in kept)
        clips = {(i.id, i.system, i.condition): self._keep_clip(i) for i in items if isinstance(i, EvaluationItem)}
        for row in rows:
            row["clip"] = clips.get((row["id"], row["system"], row["condition"]))

    def _keep_clip(self, item: EvaluationItem) -> str:
        name = distinct_file_name(f"{item.system}-{item.condition}")
        path = f"clips/{distinct_file_name(item.id)}/{name}.flac"
        file = self.output_dir / path
        file.parent.mkdir(parents=True, exist_ok=True)
        write_flac(file, item.audio.float().cpu().numpy(), item.sample_rate, item.id, item.system, item.condition)
        return path

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the rows of all processes in place."""
        trainer.strategy.barrier("results_writer")
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, EvaluationModule)
        parts = [self.output_dir / f"results-r{rank}.jsonl.tmp" for rank in range(trainer.world_size)]
        lines = [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").split("\n") if line]
        rows = sorted((line["result"] for line in lines if "result" in line), key=lambda row: row["id"])
        rejected = [line["rejected"] for line in lines if "rejected" in line]
        self._keep_clips(trainer, pl_module, rows)
        text = "".join(map(_json_line, rows))
        run = {
            **describe_scorers(pl_module, self._identities),
            "rows": trainer.datamodule.rows,  # ty: ignore[missing-attribute]
            "cards": [asdict(card) for card in trainer.datamodule.cards],  # ty: ignore[missing-attribute]
            "data": trainer.datamodule.account,  # ty: ignore[missing-attribute]
            "rejected": rejected,
            "device": describe_device(pl_module.device),
            "versions": installed_versions(),
            # So that a report can tell when the two files are of different runs.
            "digest": f"xxh3:{xxhash.xxh3_64_hexdigest(text.encode())}",
        }
        write_atomically(self.output_dir / "run.json", json.dumps(run, indent=2, ensure_ascii=False) + "\n")
        write_atomically(self.output_dir / "results.jsonl", text)
        for part in parts:
            os.remove(part)
        rank_zero_info(f"{len(rows)} results in {self.output_dir / 'results.jsonl'}")


def result_row(result: ScoredItem, identities: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Lay out one row of ``results.jsonl``: JSON-serialisable, NaN as null."""
    item = result.item
    return {
        "id": item.id,
        "split": item.split,
        "condition": item.condition,
        "system": item.system,
        "speaker": item.speaker,
        "text": item.text,
        "seconds": round(item.audio.numel() / item.sample_rate, 3),
        "original_seconds": round(item.original.numel() / item.sample_rate, 3),
        "prompt_seconds": item.prompt_seconds,
        "own_prompt": item.own_prompt,
        "seed": item.seed,
        "scores": {name: _finite(scores.values) for name, scores in result.scores.items()},
        "problems": {
            f"{name}/{score}": problem
            for name, scores in result.scores.items()
            for score, problem in scores.problems.items()
        },
        "revisions": {name: f"{identity['name']}@{identity['revision']}" for name, identity in identities.items()},
        "normalizers": {
            name: identity["normalizer"] for name, identity in identities.items() if "normalizer" in identity
        },
        "clip": None,  # until all is scored
    }


def describe_scorers(module: EvaluationModule, identities: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Say what scored, what each measure is, and what could not score."""
    return {
        "scorers": [
            {
                "name": scorer.name,
                "class": type(scorer).__name__,
                "identity": identities.get(scorer.name),
                "measures": [measure.as_dict() for measure in scorer.measures],
            }
            for scorer in module.configured
        ],
        "absent": [absent._asdict() for absent in module.absent],
    }


def describe_device(device: torch.device) -> str:
    """Name the hardware a module ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()} ({torch.get_num_threads()} CPU threads)"


def processor_name() -> str:
    """Name the processor, as its maker does where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, [*names, platform.processor()]), platform.machine())


def installed_versions() -> dict[str, str]:
    """Name the versions of the packages that results depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _json_line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
