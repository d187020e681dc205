"""Publishing the codec at the end of fit and of validate."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from callbacks.codec_exporter import CodecExporter


class Codec(torch.nn.Module):
    """Remembers how it was saved."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.saved: list = []

    def save_pretrained(self, folder, dtype=torch.float32) -> None:
        self.saved.append((folder, dtype, self.weight.item()))


class Model(L.LightningModule):
    """Adds 1 to the weight of its codec at every step."""

    def __init__(self, codec) -> None:
        super().__init__()
        self.codec = codec

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def training_step(self, batch, batch_idx):
        return -self.codec.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass


def run(codec, command, folder, **arguments) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[CodecExporter(str(folder), **arguments)],
    )
    loader = DataLoader(torch.zeros(2, 1))
    if command == "fit":
        trainer.fit(Model(codec), loader, loader)
    else:
        trainer.validate(Model(codec), loader, verbose=False)


def test_fit_writes_the_final_weights_once(tmp_path):
    codec = Codec()
    run(codec, "fit", tmp_path)
    assert codec.saved == [(tmp_path, torch.float16, 2.0)]


def test_validate_writes_the_weights_as_they_are(tmp_path):
    codec = Codec()
    run(codec, "validate", tmp_path, half_precision=False)
    assert codec.saved == [(tmp_path, torch.float32, 0.0)]


def test_a_model_whose_codec_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(TypeError, match="Linear has no save_pretrained"):
        run(torch.nn.Linear(1, 1), "validate", tmp_path)
