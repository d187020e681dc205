"""Speakers of their own for training and testing detection."""

import numpy as np
import pytest
import soundfile

from datamodules.audio import AudioManifest
from datamodules.detection import DetectionDataModule
from datamodules.generated_set import GeneratedCard, GeneratedRow, GeneratedSetWriter, audio_path, merge_parts

RATE = 16_000


@pytest.fixture
def make_data(tmp_path):
    """Two clips of 1 s by every speaker, rendered by one system."""

    def make(speakers, **values):
        writer = GeneratedSetWriter(tmp_path / "set", GeneratedCard("soundstorm", "prompted", RATE, {}))
        lines = ["id,path,text,speaker"]
        for speaker in speakers:
            for number in (1, 2):
                id = f"{speaker}-{number}"
                audio = np.random.default_rng(0).normal(0, 0.1, RATE)
                soundfile.write(tmp_path / f"{id}.wav", audio, RATE)
                lines.append(f"{id},{id}.wav,hello,{speaker}")
                row = GeneratedRow(id, audio_path(id), "", speaker, 50, 0.0, 1.0, RATE, 1, "soundstorm", "prompted")
                writer.write(row, audio)
        writer.close()
        merge_parts(tmp_path / "set")
        (tmp_path / "manifest.csv").write_text("\n".join(lines))
        source = AudioManifest(str(tmp_path / "manifest.csv"))
        return DetectionDataModule({"prompted": str(tmp_path / "set")}, source, batch_size=4, **values)

    return make


def heard(loader):
    items = [item for batch in loader for item in batch.items]
    return {item.speaker for item in items}, [(item.id, item.system) for item in items]


def test_no_speaker_is_in_two_stages_and_every_clip_is_in_one(make_data):
    data = make_data("abcdefghij")
    data.setup("fit")
    stages = [heard(loader()) for loader in (data.train_dataloader, data.val_dataloader, data.test_dataloader)]
    speakers = [found for found, _ in stages]
    assert [len(found) for found in speakers] == [6, 1, 3]
    assert set.union(*speakers) == set("abcdefghij")
    clips = [clip for _, found in stages for clip in found]
    assert len(clips) == len(set(clips)) == 40  # recordings and renderings


def test_training_is_shuffled_anew_every_epoch(make_data):
    data = make_data("abcdef")
    data.setup("fit")
    loader = data.train_dataloader()
    first, second = heard(loader)[1], heard(loader)[1]
    assert first != second
    assert sorted(first) == sorted(second)


def test_two_speakers_are_too_few(make_data):
    with pytest.raises(ValueError, match="there are 2 speakers, and three at least are needed"):
        make_data("ab").setup("fit")


def test_shares_must_leave_speakers_to_train_on(make_data):
    with pytest.raises(ValueError, match="leave no speakers to train on"):
        make_data("abc", test_fraction=0.9)
