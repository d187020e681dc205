"""Samples in TensorBoard: what is logged, when, with which weights, and that training does not notice."""

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.swa_utils import get_ema_multi_avg_fn

from callbacks.sample_logger import AudioSampleLogger
from datamodules.audio import AudioDataModule
from datamodules.audio_folder import AudioFolder
from datamodules.audio_sources import AudioSource
from datamodules.synthetic import SyntheticTokenDataModule
from modules.batches import GeneratedBatch, SoftTokens
from modules.codec.codec import AudioCodec


class ToneCodec(AudioCodec):
    """Turns every frame into a tone whose pitch is the frame's first code."""

    sample_rate, hop_length, num_quantizers, codebook_size = 16_000, 320, 4, 64

    def __init__(self, **changes):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.changes = changes

    def encode(self, audio):
        raise NotImplementedError

    def decode(self, codes):
        phase = (codes[:, 0].float() * 50 + 100).repeat_interleave(self.hop_length, dim=1).cumsum(1)
        return 0.5 * torch.sin(phase * 2 * torch.pi / self.sample_rate) * self.weight

    def identity(self):
        return SyntheticTokenDataModule().card.codec | self.changes


class Generator(LightningModule):
    """Learns one number from random noise, and writes down what it is asked to generate, and with which weights."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.dropout = torch.nn.Dropout(0.5)
        self.asked = []

    def training_step(self, batch, batch_idx):
        return (self.dropout(self.weight * torch.rand(8)) - 1).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def generate(self, batch):
        torch.rand(7)  # whatever it draws is not missed in training
        self.asked.append((self.global_step, batch, float(self.weight), self.training))
        return GeneratedBatch(
            batch.ids, batch.codes, batch.lengths, batch.prompt_frames, batch.seeds, batch.speakers, batch.texts
        )

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, *callbacks, steps=6, every=2, logger=TensorBoardLogger, model=None, **options):
    torch.manual_seed(0)
    model = model or Generator()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=logger(folder, name="", version=""),
        max_steps=steps,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        **options,
    )
    data = SyntheticTokenDataModule(num_train=16, num_validation=6, max_seconds=3, batch_frames=400)
    trainer.fit(model, data)
    return model


def logged(folder):
    events = EventAccumulator(str(folder), size_guidance={"audio": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    sounds = {tag: [event.step for event in events.Audio(tag)] for tag in tags["audio"]}
    return sounds, {tag: [event.step for event in events.Images(tag)] for tag in tags["images"]}, events


def test_samples_are_heard_and_seen(tmp_path):
    model = fit(tmp_path, AudioSampleLogger(ToneCodec(), every_n_steps=4, num_samples=3))
    sounds, images, events = logged(tmp_path)
    names = sorted({name for _, batch, *_ in model.asked for name in batch.ids})
    assert len(names) == 3
    kinds = {"reconstruction": [2], "unprompted": [2, 6], "prompted": [2, 6]}  # at 4, the last time is only 2 steps ago
    assert sounds == {f"samples/{name}/{kind}": steps for name in names for kind, steps in kinds.items()}
    assert images == {f"samples/{name}": [2, 6] for name in names}
    sound = events.Audio(f"samples/{model.asked[0][1].ids[0]}/unprompted")[0]
    assert sound.sample_rate == 16_000
    assert sound.length_frames == 320 * int(model.asked[0][1].lengths[0])


def test_prompts_lengths_and_seeds_are_fixed(tmp_path):
    model = fit(
        tmp_path, AudioSampleLogger(ToneCodec(), 1, num_samples=2, max_seconds=1.5, prompt_seconds=0.5), steps=4
    )
    (_, unprompted, _, _), (_, prompted, _, _) = model.asked[:2]
    assert not unprompted.prompt_frames.any()
    assert prompted.prompt_frames.tolist() == [25] * len(prompted.ids)
    assert prompted.lengths.max() == prompted.semantic.shape[1] == prompted.codes.shape[2] == 75
    asked = {step: str([batch for at, batch, *_ in model.asked if at == step]) for step in (2, 4)}
    assert asked[2] == asked[4]


def test_a_prompt_is_at_most_half_of_the_utterance(tmp_path):
    model = fit(tmp_path, AudioSampleLogger(ToneCodec(), num_samples=2, prompt_seconds=3), steps=2)
    prompted = model.asked[1][1]
    assert prompted.prompt_frames.tolist() == (prompted.lengths // 2).tolist()


def test_utterances_can_be_named_and_missing_ones_are_reported(tmp_path):
    names = ["synthetic-000019", "synthetic-000016", "nobody"]
    with pytest.warns(UserWarning, match="found no nobody in validation"):
        model = fit(tmp_path, AudioSampleLogger(ToneCodec(), ids=names), steps=2)
    assert sorted({name for _, batch, *_ in model.asked for name in batch.ids}) == sorted(names[:2])


def test_originals_are_shown_where_there_are_any(tmp_path):
    sounds = tmp_path / "originals"
    sounds.mkdir()
    soundfile.write(sounds / "synthetic-000016.wav", np.sin(np.arange(48_000) / 8), 16_000)
    logger = AudioSampleLogger(
        ToneCodec(), ids=["synthetic-000016", "synthetic-000017"], originals=AudioFolder(str(sounds))
    )
    with pytest.warns(UserWarning, match=r"no original of synthetic-000017 \(no such id\)"):
        model = fit(tmp_path / "run", logger, steps=2)
    heard, _, events = logged(tmp_path / "run")
    assert "samples/synthetic-000016/original" in heard
    assert "samples/synthetic-000017/original" not in heard
    lengths = {name: int(batch.lengths[row]) for _, batch, *_ in model.asked for row, name in enumerate(batch.ids)}
    original = events.Audio("samples/synthetic-000016/original")[0]
    assert original.length_frames == min(48_000, 320 * lengths["synthetic-000016"])


class Absent(AudioSource):
    """A source that is not on this machine."""

    def __init__(self, error):
        self.error = error
        self.asked = 0

    def __len__(self):
        raise self.error

    def __getitem__(self, index):
        raise self.error

    def ids(self):
        self.asked += 1
        raise self.error


def test_training_goes_on_without_originals_that_cannot_be_had(tmp_path):
    samples = AudioSampleLogger(ToneCodec(), num_samples=1, originals=Absent(ConnectionError("no hub")), max_seconds=1)
    with pytest.warns(UserWarning, match=r"goes on without the originals \(no hub\)"):
        fit(tmp_path, samples, steps=2)
    assert {tag.rpartition("/")[2] for tag in logged(tmp_path)[0]} == {"reconstruction", "unprompted", "prompted"}


@pytest.mark.parametrize("error", [FileNotFoundError, ConnectionError, ValueError])
def test_that_originals_cannot_be_had_is_said_once(error):
    source = Absent(error("not here"))
    samples = AudioSampleLogger(ToneCodec(), originals=source)
    with pytest.warns(UserWarning, match="goes on without the originals") as warnings:
        assert [samples._read_originals(names) for names in ("abc", "de")] == [{}, {}]
    assert (source.asked, len(warnings)) == (1, 1)


def test_originals_of_parts_are_found_in_their_recordings(tmp_path):
    """With the ids that a datamodule with segment_seconds gives its parts."""
    quiet, loud = np.full(16_000, 0.1), np.full(16_000, 0.5)
    soundfile.write(tmp_path / "long.wav", np.concatenate([quiet, loud, quiet]), 16_000)
    soundfile.write(tmp_path / "short.wav", quiet, 16_000)
    source = AudioFolder(str(tmp_path))
    parts = AudioDataModule(source, batch_size=1, segment_seconds=1.0).predict_dataloader()
    whole = {batch.ids[0]: batch.audio[0].numpy() for batch in parts}
    assert set(whole) == {"long_0000", "long_0001", "long_0002", "short"}
    samples = AudioSampleLogger(ToneCodec(), originals=source, segment_seconds=1.0)
    found = samples._read_originals(list(whole))
    assert found.keys() == whole.keys()
    assert all(np.array_equal(found[name], whole[name]) for name in whole)
    with pytest.warns(UserWarning, match=r"no original of long_0001 \(no such id\)"):
        assert AudioSampleLogger(ToneCodec(), originals=source)._read_originals(["long_0001"]) == {}


def test_training_does_not_notice(tmp_path):
    codec = ToneCodec()
    watched = fit(tmp_path / "with", AudioSampleLogger(codec, every_n_steps=1, num_samples=1), steps=4)
    after = torch.rand(1)
    plain = fit(tmp_path / "without", steps=4)
    assert len(watched.asked) == 2 * 2
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(watched.weight, plain.weight)
    assert not {training for *_, training in watched.asked} - {False}
    assert all(module.training for module in watched.modules())
    assert watched.state_dict().keys() == plain.state_dict().keys()
    assert not any(parameter.is_inference() for parameter in codec.parameters())


@pytest.mark.parametrize("logger_first", [True, False])
def test_averaged_weights_are_heard(tmp_path, logger_first):
    class Average(WeightAveraging):
        def averaged(self):
            return self._average_model.module.weight.item()  # ty: ignore

    average = Average(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    samples = AudioSampleLogger(ToneCodec(), every_n_steps=1, num_samples=1)
    model = Generator()
    expected = []

    class Witness(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            expected.append((average.averaged(), pl_module.weight.item()))

    order = [samples, average] if logger_first else [average, samples]
    fit(tmp_path, *order, Witness(), model=model, steps=4)
    assert model.asked
    for step, _, weight, _ in model.asked:
        averaged, live = expected[step - 1]
        assert weight == averaged != live


def test_only_the_first_rank_works(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    model = fit(tmp_path, AudioSampleLogger(ToneCodec(), every_n_steps=1))
    assert model.asked == []


def test_another_codec_than_that_of_the_tokens_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="a codec with name='other', the token set was made by one with name='synthetic'"
    ):
        fit(tmp_path, AudioSampleLogger(ToneCodec(name="other")))


def test_a_model_that_cannot_generate_is_refused(tmp_path):
    class Mute(Generator):
        generate = property()

    with pytest.raises(TypeError, match=r"needs a model with generate\(batch\); Mute has none"):
        fit(tmp_path, AudioSampleLogger(ToneCodec()), model=Mute())


def test_without_tensorboard_nothing_is_generated(tmp_path):
    with pytest.warns(UserWarning, match="the trainer has no TensorBoardLogger"):
        model = fit(tmp_path, AudioSampleLogger(ToneCodec()), logger=CSVLogger)
    assert model.asked == []


@pytest.mark.parametrize(
    "wrong", [{"every_n_steps": 0}, {"num_samples": 0}, {"max_seconds": 0}, {"prompt_seconds": -1}]
)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} \({next(iter(wrong.values()))}\)"):
        AudioSampleLogger(ToneCodec(), **wrong)


def test_soft_tokens_are_cut_as_their_tokens_are(tmp_path):
    class Soft(Generator):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            number = torch.arange(len(batch.ids))[:, None, None]
            soft = SoftTokens(batch.semantic[..., None], torch.ones(*batch.semantic.shape, 1) / (1 + number))
            return batch._replace(soft_semantic=soft)

    names = ["synthetic-000020", "synthetic-000021"]
    model = fit(tmp_path, AudioSampleLogger(ToneCodec(), ids=names, max_seconds=1.0), steps=2, model=Soft())
    assert {name for _, batch, *_ in model.asked for name in batch.ids} == set(names)
    for _, batch, *_ in model.asked:
        assert batch.semantic.shape[1] == 50
        assert torch.equal(batch.soft_semantic.tokens[..., 0], batch.semantic)
        assert batch.soft_semantic.probabilities.shape == (*batch.semantic.shape, 1)
        assert (batch.soft_semantic.probabilities.amin(1) == batch.soft_semantic.probabilities.amax(1)).all()
