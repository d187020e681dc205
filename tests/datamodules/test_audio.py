"""Batches of speech: what is in them, in which order, and what becomes of bad files."""

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from datamodules.audio import AudioDataModule, AudioFolder, AudioManifest, SpeedPerturbation, UnrepeatedSampler
from modules.batches import AudioBatch


def write(file, seconds=0.2, level=0.1, rate=16000):
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.full(round(rate * seconds), level), rate)


@pytest.fixture
def speech(tmp_path):
    """Twelve clips of four speakers, 0.2 to 0.31 s long."""
    for number in range(12):
        write(tmp_path / "speech" / "abcd"[number % 4] / f"{number:02d}.wav", 0.2 + 0.01 * number)
    return AudioFolder(str(tmp_path / "speech"), speaker_level=1)


def ids(loader):
    return [id for batch in loader for id in batch.ids]


def test_predict_reads_everything_once_in_order(speech):
    data = AudioDataModule(speech, sample_rate=8000, batch_size=5)
    batches = list(data.predict_dataloader())
    assert [type(batch) for batch in batches] == [AudioBatch] * 3
    assert [id for batch in batches for id in batch.ids] == list(speech.ids())
    assert batches[0].sample_rate == 8000
    assert len(batches[0].audio[0]) == 1600
    assert batches[0].speakers == ["a", "a", "a", "b", "b"]
    assert [path for batch in batches for path in batch.paths] == [utterance.path for utterance in speech]
    assert ids(data.test_dataloader()) == list(speech.ids())


def test_worker_processes_change_nothing(speech):
    alone = list(AudioDataModule(speech).predict_dataloader())
    several = list(AudioDataModule(speech, num_workers=2).predict_dataloader())
    for one, other in zip(alone, several, strict=True):
        assert one.ids == other.ids
        assert all(torch.equal(a, b) for a, b in zip(one.audio, other.audio, strict=True))


def test_excluded_ids_are_left_out_even_after_setup(speech):
    data = AudioDataModule(speech)
    data.setup("predict")
    data.exclude({"a__00", "d__11"})
    assert ids(data.predict_dataloader()) == [id for id in speech.ids() if id not in ("a__00", "d__11")]


def test_limit_counts_before_exclusion(speech):
    data = AudioDataModule(speech, limit=3)
    data.exclude(["a__00"])
    assert ids(data.predict_dataloader()) == ["a__04", "a__08"]


def test_sorted_by_length_reads_the_longest_first(speech):
    data = AudioDataModule(speech, sort_by_length=True, batch_size=1)
    lengths = [len(batch.audio[0]) for batch in data.predict_dataloader()]
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) == 12


def test_training_order_changes_by_epoch_and_not_by_run(speech):
    def epochs():
        loader = AudioDataModule(speech).train_dataloader()
        return [ids(loader), ids(loader)]

    first, second = epochs()
    assert [first, second] == epochs()
    assert first != second != list(speech.ids())
    assert sorted(first) == sorted(second) == sorted(speech.ids())


def test_held_out_speakers_are_not_trained_on(speech):
    data = AudioDataModule(speech, validation_fraction=0.3)
    trained, held_out = set(ids(data.train_dataloader())), set(ids(data.val_dataloader()))
    assert trained | held_out == set(speech.ids())
    assert len({id[0] for id in trained}) == 3
    assert len({id[0] for id in held_out}) == 1
    assert not {id[0] for id in trained} & {id[0] for id in held_out}


@pytest.mark.parametrize("speaker_level", [None, 1])
def test_utterances_are_held_out_where_there_is_one_speaker_or_none_is_known(tmp_path, speaker_level):
    for number in range(10):
        write(tmp_path / "ann" / f"{number}.wav")
    source = AudioFolder(str(tmp_path), speaker_level)
    data = AudioDataModule(source, validation_fraction=0.2)
    assert (len(ids(data.train_dataloader())), len(ids(data.val_dataloader()))) == (8, 2)
    assert AudioDataModule(source).val_dataloader() == []


def test_fit_without_held_out_speakers_has_no_validation(speech):
    class Model(BoringModel):
        def training_step(self, batch, batch_idx):
            return self.layer(torch.ones(1, 32)).sum()

        def validation_step(self, batch, batch_idx):
            raise AssertionError("there is nothing to validate on")

    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **options)
    trainer.fit(Model(), datamodule=AudioDataModule(speech))
    assert trainer.global_step == 2


def test_bad_files_travel_as_rejections_and_stop_nothing(tmp_path):
    folder = tmp_path / "speech"
    write(folder / "good.wav")
    write(folder / "silent.wav", level=0.0)
    write(folder / "short.wav", 0.05)
    write(folder / "long.wav", 61, rate=1000)
    (folder / "empty.wav").touch()
    (folder / "noise.mp3").write_bytes(b"\0\1\2" * 50)
    (folder / "ghost.txt").write_text("a transcript")
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan), 16000, "FLOAT")
    soundfile.write(folder / "wide.wav", np.full((8000, 8), 0.5), 16000)
    (batch,) = AudioDataModule(AudioFolder(str(folder)), batch_size=16).predict_dataloader()
    assert batch.ids == ["good", "wide"]
    reasons = {rejection.id: rejection.reason for rejection in batch.rejected}
    assert set(reasons) == {"silent", "short", "long", "empty", "noise", "ghost", "nan"}
    assert reasons["ghost"] == "has a transcript but no audio file"
    assert {rejection.path for rejection in batch.rejected} >= {str(folder / "empty.wav"), str(folder / "noise.mp3")}


def test_a_manifest_with_a_missing_file_goes_on(tmp_path):
    write(tmp_path / "b.wav")
    (tmp_path / "m.csv").write_text("path,text,speaker\na.wav,gone,x\nb.wav,here,x\n")
    (batch,) = AudioDataModule(AudioManifest(str(tmp_path / "m.csv"))).predict_dataloader()
    assert (batch.ids, batch.texts) == (["b"], ["here"])
    assert [(rejection.id, rejection.reason) for rejection in batch.rejected] == [
        ("a", "is missing: there is no such file")
    ]


@pytest.mark.parametrize("stage", ["fit", "predict"])
def test_an_hour_is_read_in_parts(tmp_path, monkeypatch, stage):
    hour = np.random.default_rng(0).integers(-9000, 9000, 3600 * 1000, dtype=np.int16)
    soundfile.write(tmp_path / "hour.wav", hour, 1000)
    write(tmp_path / "clip.wav")
    (tmp_path / "hour.txt").write_text("far too many words")
    (tmp_path / "clip.txt").write_text("few words")
    asked, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames=-1, **options: (asked.append(frames), read(self, frames, **options))[1],
    )
    data = AudioDataModule(AudioFolder(str(tmp_path)), sample_rate=1000, segment_seconds=31.0, batch_size=4)
    loader = data.predict_dataloader() if stage == "predict" else data.train_dataloader()
    clips = {id: clip for batch in loader for id, *clip in zip(batch.ids, batch.audio, batch.texts, strict=True)}
    parts = sorted(id for id in clips if id.startswith("hour"))
    assert parts == [f"hour_{part:04d}" for part in range(117)]
    assert torch.equal(torch.cat([clips[id][0] for id in parts]), torch.from_numpy(hour / np.float32(32768)))
    assert {clips[id][1] for id in parts} == {""}
    assert clips["clip"][1] == "few words"
    assert max(asked) <= 31_000  # memory is bounded: nobody read more at once


def test_a_part_can_be_excluded(tmp_path):
    write(tmp_path / "a.wav", 1.0)
    data = AudioDataModule(AudioFolder(str(tmp_path)), segment_seconds=0.3)
    data.exclude(["a_0001", "a_0003"])
    assert ids(data.predict_dataloader()) == ["a_0000", "a_0002"]


def test_an_unreadable_file_is_rejected_in_parts_too(tmp_path):
    write(tmp_path / "a.wav", 1.0)
    (tmp_path / "b.wav").write_bytes(b"no audio")
    (batch,) = AudioDataModule(AudioFolder(str(tmp_path)), segment_seconds=0.5).predict_dataloader()
    assert batch.ids == ["a_0000", "a_0001"]
    assert [rejection.id for rejection in batch.rejected] == ["b"]


@pytest.mark.parametrize(("names", "segment"), [(("a.wav", "a.flac"), None), (("b.wav", "b_0001.wav"), 0.3)])
def test_duplicate_ids_are_an_error_that_names_both_files(tmp_path, names, segment):
    for name in names:
        write(tmp_path / name, 1.0)
    data = AudioDataModule(AudioFolder(str(tmp_path)), segment_seconds=segment)
    with pytest.raises(ValueError, match="the same id") as error:
        data.setup("predict")
    assert all(str(tmp_path / name) in str(error.value) for name in names)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"segment_seconds": 90.0}, "and max_seconds, 60"), ({"validation_fraction": 1.0}, r"has to lie in \[0, 1\)")],
)
def test_options_that_cannot_work_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        AudioDataModule(AudioFolder("anywhere"), **option)


@pytest.mark.parametrize(("count", "world_size"), [(203, 2), (1, 2), (0, 3), (7, 4)])
def test_ranks_share_indices_without_repeating_any(count, world_size):
    shares = [list(UnrepeatedSampler(range(count), rank, world_size)) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(count))
    assert [len(UnrepeatedSampler(range(count), rank, world_size)) for rank in range(world_size)] == [*map(len, shares)]


def test_speed_perturbation_makes_new_voices_of_each_recording(tmp_path):
    time = np.arange(16000) / 16000
    (tmp_path / "ann").mkdir()
    soundfile.write(tmp_path / "ann" / "one.wav", 0.5 * np.sin(2 * np.pi * 400 * time), 16000)
    perturbed = SpeedPerturbation(AudioFolder(str(tmp_path), speaker_level=1), [1.0, 1.25])
    assert list(perturbed.ids()) == [utterance.id for utterance in perturbed] == ["ann__one", "ann__one-x1.25"]
    assert list(perturbed.speakers()) == ["ann", "ann-x1.25"]
    data = AudioDataModule(perturbed, batch_size=2, sort_by_length=True)
    (batch,) = data.predict_dataloader()
    assert [len(audio) for audio in batch.audio] == [16000, 12800]
    assert batch.speakers == ["ann", "ann-x1.25"]
    spectra = [np.abs(np.fft.rfft(audio)) for audio in batch.audio]
    hertz = [spectrum.argmax() * 16000 / len(audio) for spectrum, audio in zip(spectra, batch.audio, strict=True)]
    assert hertz == pytest.approx([400, 500], abs=2)


def test_speed_decides_what_is_too_long(tmp_path):
    write(tmp_path / "a.wav", 1.0)
    slow = SpeedPerturbation(AudioFolder(str(tmp_path)), [0.5])
    (batch,) = AudioDataModule(slow, max_seconds=1.5).predict_dataloader()
    assert [rejection.reason for rejection in batch.rejected] == [
        "lasts 2.0 s, longer than max_seconds = 1.5; set segment_seconds to read it in parts"
    ]
    parts = AudioDataModule(slow, max_seconds=1.5, segment_seconds=1.5)
    assert [len(audio) for batch in parts.predict_dataloader() for audio in batch.audio] == [16000, 16000]


@pytest.mark.parametrize("speeds", [[], [1.0, 1.0], [0.0], [9.0]])
def test_speeds_that_make_no_sense_are_refused(speeds):
    with pytest.raises(ValueError, match="speeds="):
        SpeedPerturbation(AudioFolder("any"), speeds)
