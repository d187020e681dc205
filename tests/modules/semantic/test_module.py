"""Fitting a semantic tokenizer through a Trainer."""

import warnings

import pytest
import torch
from lightning import LightningDataModule
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from modules.batches import AudioBatch
from modules.semantic import SemanticTokenizer, SpeechFeatures, TransformersFeatures
from modules.semantic.module import SemanticTokenizerTraining

CENTRES = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 4.0], [8.0, 4.0]])


class Pairs(SpeechFeatures):
    """Frames of two samples, which are the two dimensions."""

    sample_rate, hop_length, dim = 100, 2, 2

    def num_frames(self, num_samples):
        return num_samples // 2

    def extract(self, audio):
        return audio[:, : 2 * self.num_frames(audio.shape[1])].unflatten(1, (-1, 2))

    def identity(self):
        return {"name": "pairs", "revision": 1}

    def init_args(self):
        return {}


def batch_of(audio, sample_rate=100):
    names = [str(index) for index in range(len(audio))]
    return AudioBatch(names, audio, sample_rate, [""] * len(audio), [""] * len(audio), [])


class Speech(LightningDataModule):
    """Frames around four centres, in utterances of different lengths."""

    def __init__(self, num_utterances=12, sample_rate=100, extra=()):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.audio = list(extra)
        for index in range(num_utterances):
            labels = torch.randint(4, (40 + index % 3,), generator=generator)
            frames = CENTRES[labels] + 0.05 * torch.randn(len(labels), 2, generator=generator)
            self.audio.append(frames.flatten())
        self.sample_rate = sample_rate

    def train_dataloader(self):
        return DataLoader(self.audio, batch_size=4, collate_fn=lambda rows: batch_of(rows, self.sample_rate))

    val_dataloader = predict_dataloader = train_dataloader


def trainer_for(folder, max_epochs=4, callbacks=(), **kwargs):
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=max_epochs,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        callbacks=list(callbacks),
        num_sanity_val_steps=1,
        **kwargs,
    )


def training(features=None, num_clusters=4, batch_frames=60, **kwargs):
    return SemanticTokenizerTraining(SemanticTokenizer(features or Pairs(), num_clusters, **kwargs), batch_frames)


def test_fit_recovers_the_clusters(tmp_path):
    model = training()
    trainer = trainer_for(tmp_path)
    trainer.fit(model, Speech())
    tokenizer = model.tokenizer

    frames = torch.cat(Speech().audio).unflatten(0, (-1, 2))
    torch.testing.assert_close(tokenizer.mean, frames.mean(dim=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokenizer.std, frames.std(dim=0, correction=0), rtol=1e-5, atol=1e-5)

    centres = tokenizer.centroids * tokenizer.std + tokenizer.mean
    order = torch.cdist(CENTRES, centres).argmin(dim=1)
    torch.testing.assert_close(centres[order], CENTRES, rtol=0, atol=0.05)
    spoken = CENTRES[[0, 3, 1, 2, 2]].flatten()[None]
    assert tokenizer.encode(spoken).tolist() == [order[[0, 3, 1, 2, 2]].tolist()]

    metrics = trainer.callback_metrics
    assert metrics["val/used_clusters"] == 1
    assert metrics["val/perplexity"] == pytest.approx(4, rel=0.05)
    assert metrics["val/inertia"] < 0.001
    assert metrics["train/inertia"] < 0.001


@pytest.mark.parametrize(
    ("checkpoint", "when"),
    [
        ("epoch=0.ckpt", {"save_on_train_epoch_end": True}),
        ("epoch=1.ckpt", {"save_on_train_epoch_end": True}),
        ("epoch=2.ckpt", {"save_on_train_epoch_end": False}),  # after validation, before the epoch's end
        ("step=5.ckpt", {"every_n_train_steps": 5}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.filterwarnings("ignore:.*manual optimization and every_n_train_steps")
@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")
def test_going_on_from_a_checkpoint_ends_with_the_same_codebook(tmp_path, checkpoint, when):
    # 7 clusters for 4 centres, so that some fall behind; 70 frames, so that some are held back at every epoch's end.
    whole = training(num_clusters=7, batch_frames=70)
    filename = "{step}" if "step" in checkpoint else "{epoch}"
    saver = ModelCheckpoint(dirpath=tmp_path, filename=filename, save_top_k=-1, **when)
    trainer_for(tmp_path, callbacks=[saver]).fit(whole, Speech())

    resumed = training(num_clusters=7, batch_frames=70)
    trainer_for(tmp_path).fit(resumed, ResumedAt(checkpoint), ckpt_path=tmp_path / checkpoint, weights_only=True)
    assert resumed.kmeans.num_updates == whole.kmeans.num_updates > 5
    for name in ("mean", "std", "centroids"):
        torch.testing.assert_close(getattr(resumed.tokenizer, name), getattr(whole.tokenizer, name), rtol=0, atol=0)


class ResumedAt(Speech):
    """Speech whose first epoch after a checkpoint within an epoch begins at the batch after it."""

    def __init__(self, checkpoint):
        super().__init__()
        # Steps are of 3 batches per epoch: step 5 is two batches into the second.
        self.skip = 2 if checkpoint == "step=5.ckpt" else 0

    def train_dataloader(self):
        skip, outer = self.skip, super().train_dataloader()

        class Once(DataLoader):
            first = True

            def __iter__(self):
                batches = list(outer)
                start, self.first = skip if self.first else 0, False
                return iter(batches[start:])

        return Once(self.audio, batch_size=4)


def test_checkpoints_leave_the_speech_encoder_out(encoders, tmp_path):
    model = training(TransformersFeatures(encoders["hubert"], layer=1))
    assert sorted(model.state_dict()) == ["tokenizer.centroids", "tokenizer.mean", "tokenizer.std"]
    assert any(name.startswith("tokenizer.features.") for name, _ in model.named_parameters())
    model.load_state_dict(model.state_dict(), strict=model.strict_loading)


def test_predict_gives_the_tokens_of_every_utterance_in_order(tmp_path):
    model, speech = training(), Speech()
    trainer_for(tmp_path).fit(model, speech)
    predictions = trainer_for(tmp_path).predict(model, speech)
    tokens = [row for batch in predictions for row in batch]
    assert len(tokens) == len(speech.audio)
    for audio, row in zip(speech.audio, tokens, strict=True):
        assert torch.equal(row, model.tokenizer.encode(audio[None])[0])


def test_utterances_that_are_too_short_are_left_out_with_a_warning(tmp_path):
    with_short, without = training(), training()
    with pytest.warns(UserWarning, match="utterances were too short"):
        trainer_for(tmp_path, limit_val_batches=0).fit(with_short, Speech(extra=[torch.zeros(1)]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_for(tmp_path, limit_val_batches=0).fit(without, Speech())
    torch.testing.assert_close(with_short.tokenizer.mean, without.tokenizer.mean)


def test_other_sample_rates_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"at 90 Hz, .* need 100 Hz: set data\.init_args\.sample_rate=100"):
        trainer_for(tmp_path, limit_val_batches=0).fit(training(), Speech(sample_rate=90))


def test_one_epoch_is_refused_but_rehearsed(tmp_path):
    with pytest.raises(ValueError, match="max_epochs >= 2"):
        trainer_for(tmp_path, max_epochs=1).fit(training(), Speech())
    trainer_for(tmp_path, fast_dev_run=True).fit(training(), Speech())


def test_several_processes_are_refused(tmp_path):
    model = training()
    model._trainer = type("TwoProcesses", (), {"world_size": 2, "max_epochs": 3})()
    with pytest.raises(ValueError, match=r"one process: set trainer\.devices=1"):
        model.setup("fit")
    model.setup("predict")


def test_fewer_frames_than_clusters_is_an_error_with_both_numbers(tmp_path):
    with pytest.raises(ValueError, match="100 clusters need at least as many frames, the training data has 40"):
        # Two passes over 40 frames: the frames counted are those of both.
        trainer_for(tmp_path, max_epochs=2, limit_val_batches=0).fit(
            training(num_clusters=100, batch_frames=200), Speech(num_utterances=1)
        )
