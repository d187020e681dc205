"""A test of the detector on one or two ranks; writes what it found. Run by its test."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from modules.evaluation import DetectionTraining, EvaluationBatch, EvaluationItem, PooledConformer
from modules.semantic import LogMelFeatures

RATE = 16_000
# Rank 1 of two sees recordings only, and less of them.
SYSTEMS = ["original", "reconstruction", "reconstruction", "soundstorm", "soundstorm", "original", "original"]


def item(number, system):
    """A second of noise, each louder at the beginning than the one before."""
    audio = torch.randn(RATE, generator=torch.Generator().manual_seed(number)) * 0.1
    audio[: RATE // 2] *= 1 + number
    condition = "prompted" if system == "soundstorm" else "reference"
    return EvaluationItem(str(number), system, condition, "short", audio, audio, RATE, 0.0, True, 0, "", "")


class Shard:
    """What each rank reads: all of it, or its part."""

    def __init__(self, ranks):
        self.ranks = ranks

    def __len__(self):
        return 1

    def __getitem__(self, _):
        items = [item(number, system) for number, system in enumerate(SYSTEMS)]
        if self.ranks == 2:
            items = items[5:] if torch.distributed.get_rank() else items[:5]
        return EvaluationBatch(items, [])


def main(devices, file):
    torch.manual_seed(0)
    features = LogMelFeatures(num_mels=8, context=0, normalize=False)
    model = DetectionTraining(PooledConformer(features, 3, dim=8, num_heads=2, dropout=0.0), crop_seconds=1.0)
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices == 2 else "auto",
        use_distributed_sampler=False, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    [found] = trainer.test(model, DataLoader(Shard(devices), batch_size=None), verbose=False)
    Path(file).write_text(json.dumps(found))


if __name__ == "__main__":
    for devices in (1, 2):
        main(devices, f"{sys.argv[1]}/{devices}.json")
