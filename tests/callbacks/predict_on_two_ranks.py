"""Tokenize a folder on two gloo ranks: run by test_token_writer.py in a process that can be forked safely."""

import sys

import torch
from lightning.pytorch import LightningModule, Trainer

from callbacks.token_writer import TokenWriter
from datamodules.audio import AudioDataModule, AudioFolder
from modules.batches import AudioBatch, TokenizedBatch

IDENTITY = {"name": "ramp"}


class Ramp(LightningModule):
    """Stands for Tokenization: one frame per 320 samples, whose codes tell the frame."""

    def __init__(self, fail_at=None, codebook_size=64):
        super().__init__()
        self.fail_at = fail_at
        self.codebook_size = codebook_size

    def card(self):
        sizes = {"num_quantizers": 2, "codebook_size": self.codebook_size, "semantic_vocab_size": 8}
        return {"codec": IDENTITY, "semantic": IDENTITY, "sample_rate": 16000, "frame_rate": 50.0, **sizes}

    def predict_step(self, batch: AudioBatch, batch_idx: int) -> TokenizedBatch:
        if batch_idx == self.fail_at:
            raise RuntimeError("the power went out")
        frames = [torch.arange(len(audio) // 320) % 8 for audio in batch.audio]
        codes = [torch.stack([row, row + 1]) for row in frames]
        return TokenizedBatch(batch.ids, frames, codes, batch.speakers, batch.texts, batch.rejected)


def predict(speech, output, model=None, data=None, devices=1, shard_rows=2, **options):
    writer = TokenWriter(str(output), shard_rows=shard_rows, **options)
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",
        callbacks=[writer],
        logger=False,
        enable_progress_bar=False,
    )
    data = data or AudioDataModule(AudioFolder(str(speech)), batch_size=2)
    return trainer.predict(model or Ramp(), datamodule=data, return_predictions=devices == 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    speech, *outputs = sys.argv[1:]
    for output in outputs:
        predict(speech, output, devices=2)
