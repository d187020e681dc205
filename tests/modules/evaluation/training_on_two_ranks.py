"""A training step of the consistency scorer and a test of the detector, on one and on two ranks. Run by its test."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from modules.batches import AudioBatch
from modules.evaluation import (
    ConsistencyTraining,
    DetectionTraining,
    EvaluationBatch,
    EvaluationItem,
    PooledConformer,
)
from modules.semantic import LogMelFeatures

RATE = 16_000
# Exactly two crops of 2 s each, so that nothing is drawn; the last recording of rank 1 is too short.
RECORDINGS = [torch.randn(4 * RATE, generator=torch.Generator().manual_seed(i)) * 0.1 for i in range(5)]
RECORDINGS.append(torch.zeros(RATE))
SPEAKERS = ["0", "1", "2", "3", "1", "5"]  # one of them on both ranks
# Rank 1 of two sees recordings only, and less of them.
SYSTEMS = ["original", "reconstruction", "reconstruction", "soundstorm", "soundstorm", "original", "original"]


class Batches:
    """What a rank reads: made there, as only there it is known which one it is."""

    def __init__(self, *make):
        self.make = make

    def __len__(self):
        return len(self.make)

    def __getitem__(self, index):
        return self.make[index]()


def network(output_dim):
    torch.manual_seed(0)
    features = LogMelFeatures(num_mels=8, context=0, normalize=False)
    return PooledConformer(features, output_dim, dim=8, num_heads=2, dropout=0.0)


def trainer(devices, **values):
    return Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices == 2 else "auto", logger=False,
        use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **values,
    )  # fmt: skip


def part(everything, first, devices):
    """All of it for one rank; the first and the rest for two."""
    if devices == 1:
        return everything
    return everything[first:] if torch.distributed.get_rank() else everything[:first]


def recordings(devices):
    rows = part(range(6), 3, devices)
    speech, speakers = [RECORDINGS[r] for r in rows], [SPEAKERS[r] for r in rows]
    return AudioBatch([str(r) for r in rows], speech, RATE, speakers, [""] * len(rows), [])


def item(number, system):
    """A second of noise, each louder at the beginning than the one before."""
    audio = torch.randn(RATE, generator=torch.Generator().manual_seed(number)) * 0.1
    audio[: RATE // 2] *= 1 + number
    condition = "prompted" if system == "soundstorm" else "reference"
    return EvaluationItem(str(number), system, condition, "short", audio, audio, RATE, 0.0, True, 0, "", "")


def renderings(devices):
    return EvaluationBatch(part([item(number, system) for number, system in enumerate(SYSTEMS)], 5, devices), [])


def main(devices, folder):
    scorer = ConsistencyTraining(network(8), lambda p: torch.optim.SGD(p, lr=1.0), min_seconds=2.0, max_seconds=2.0)
    batches = Batches(lambda: recordings(devices))
    trainer(devices, max_steps=1).fit(scorer, DataLoader(batches, batch_size=None))
    torch.save(scorer.state_dict(), folder / f"scorer-{devices}.pt")
    detector = DetectionTraining(network(3), crop_seconds=1.0)
    batches = Batches(lambda: renderings(devices))
    [found] = trainer(devices).test(detector, DataLoader(batches, batch_size=None), verbose=False)
    (folder / f"detector-{devices}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    for devices in (1, 2):
        main(devices, Path(sys.argv[1]))
