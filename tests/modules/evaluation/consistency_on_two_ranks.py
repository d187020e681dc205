"""One training step of the consistency scorer on one or two ranks; writes the weights. Run by its test."""

import sys

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from modules.batches import AudioBatch
from modules.evaluation import ConsistencyTraining, PooledConformer
from modules.semantic import LogMelFeatures

RATE = 16_000
# Exactly two crops of 2 s each, so that nothing is drawn; the last recording of rank 1 is too short.
RECORDINGS = [torch.randn(4 * RATE, generator=torch.Generator().manual_seed(i)) * 0.1 for i in range(5)]
RECORDINGS.append(torch.zeros(RATE))
SPEAKERS = ["0", "1", "2", "3", "1", "5"]  # one of them on both ranks


class Shard:
    """What each rank reads."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = [0, 1, 2] if index == 0 else [3, 4, 5]
        return AudioBatch(
            [str(r) for r in rows], [RECORDINGS[r] for r in rows], RATE, [SPEAKERS[r] for r in rows], [""] * 3, []
        )


def main(devices, file):
    torch.manual_seed(0)
    features = LogMelFeatures(num_mels=8, context=0, normalize=False)
    network = PooledConformer(features, output_dim=8, dim=8, num_heads=2, dropout=0.0)
    model = ConsistencyTraining(network, lambda p: torch.optim.SGD(p, lr=1.0), min_seconds=2.0, max_seconds=2.0)
    joint = [AudioBatch([str(r) for r in range(6)], RECORDINGS, RATE, SPEAKERS, [""] * 6, [])]
    data = DataLoader(Shard() if devices == 2 else joint, batch_size=None)
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices == 2 else "auto", max_steps=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data)
    torch.save(model.state_dict(), file)


if __name__ == "__main__":
    for devices in (1, 2):
        main(devices, f"{sys.argv[1]}/{devices}.pt")
