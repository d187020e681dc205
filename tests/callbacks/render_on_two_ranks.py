"""Write an audio set and evaluate it on two gloo ranks: run by test_two_ranks.py in a process that is safe to fork.

``python render_on_two_ranks.py FOLDER``; FOLDER holds ``manifest.csv`` and its recordings.
"""

import json
import sys
from pathlib import Path

import soundfile
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from callbacks.audio_writer import AudioWriter
from callbacks.results_writer import ResultsWriter
from datamodules.audio import AudioManifest
from datamodules.generated import GeneratedAudioDataModule
from modules.batches import GeneratedBatch
from modules.codec.codec import AudioCodec
from modules.evaluation import EvaluationModule, MelDistance


class Samples(AudioCodec):
    """A frame is a sample of 16 bits."""

    sample_rate, hop_length, num_quantizers, codebook_size = 16_000, 1, 1, 65_536

    def encode(self, audio):
        return ((audio + 1) * 32_767).long()[:, None]

    def decode(self, codes):
        return codes[:, 0].float() / 32_767 - 1

    def identity(self):
        return {"name": "samples", "revision": "1"}


class Reconstruction(LightningModule):
    """Stands for a generator."""

    def predict_step(self, batch: GeneratedBatch, batch_idx: int) -> GeneratedBatch:
        return batch


class Recordings(LightningDataModule):
    """The recordings of a folder as codes, one per batch."""

    def __init__(self, folder):
        super().__init__()
        self.files = sorted(folder.glob("*.wav"))

    def predict_dataloader(self):
        return torch.utils.data.DataLoader(self.files, batch_size=1, collate_fn=self.batch)

    @staticmethod
    def batch(files):
        [file] = files
        codes = Samples().encode(torch.from_numpy(soundfile.read(file, dtype="float32")[0])[None] * 0.5)
        one = torch.ones(1, dtype=torch.int64)
        return GeneratedBatch([file.stem], codes, one * codes.shape[-1], one * 0, one, ["ann"], ["hello"])


def run(folder: Path, devices: int) -> None:
    out = folder / f"on_{devices}"

    def trainer(callback):
        return Trainer(
            accelerator="cpu",
            devices=devices,
            strategy="ddp_fork" if devices > 1 else "auto",
            callbacks=[callback],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    writer = AudioWriter(Samples(), out / "set", "soundstorm", "unprompted")
    trainer(writer).predict(Reconstruction(), datamodule=Recordings(folder), return_predictions=False)
    data = GeneratedAudioDataModule(
        {"set": str(out / "set")}, AudioManifest(str(folder / "manifest.csv")), batch_size=1
    )
    metrics = trainer(ResultsWriter(out / "results", clips=1)).test(
        EvaluationModule([MelDistance()]), data, verbose=False
    )
    (out / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for devices in (2, 1):
        run(Path(sys.argv[1]), devices)
