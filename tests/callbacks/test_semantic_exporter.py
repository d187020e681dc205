"""The folder of a fitted semantic tokenizer."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

from callbacks.semantic_exporter import SemanticExporter
from modules.batches import AudioBatch
from modules.semantic import LogMelFeatures, SemanticTokenizer
from modules.semantic.module import SemanticTokenizerTraining


def fit(tmp_path, model, **kwargs):
    audio = [0.1 * torch.randn(16_000), 0.1 * torch.randn(8_000)]
    batch = AudioBatch(["a", "b"], audio, 16_000, ["", ""], ["", ""], [])
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[SemanticExporter(str(tmp_path / "tokenizer"))],
        **kwargs,
    )
    trainer.fit(model, DataLoader([batch], batch_size=None))


@pytest.fixture
def model():
    tokenizer = SemanticTokenizer(LogMelFeatures(num_mels=8, context=0), num_clusters=4, pool=2)
    return SemanticTokenizerTraining(tokenizer, batch_frames=20)


def test_the_fitted_tokenizer_is_written(tmp_path, model):
    fit(tmp_path, model, max_epochs=3)
    again = SemanticTokenizer.from_pretrained(str(tmp_path / "tokenizer"))
    assert again.identity() == model.tokenizer.identity()
    audio = 0.1 * torch.randn(1, 9_000)
    assert torch.equal(again.encode(audio), model.tokenizer.encode(audio))


def test_nothing_is_written_before_there_is_a_codebook(tmp_path, model):
    with pytest.warns(UserWarning, match="no semantic tokenizer was written"):
        fit(tmp_path, model, fast_dev_run=True)
    assert not (tmp_path / "tokenizer").exists()


def test_other_models_are_refused_before_they_train(tmp_path):
    with pytest.raises(TypeError, match="or a SemanticDistillation, not a BoringModel"):
        fit(tmp_path, BoringModel(), max_epochs=1)
