"""Random crops of speech: determinism, held-out speakers, augmentation."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch

from datamodules.audio_crops import AudioCropDataModule, Clip, CropDataset, CropSampler, is_held_out, read_clips

RATE = 8000


@pytest.fixture
def corpus(tmp_path):
    """12 speakers, 2 recordings each: a tone whose pitch tells the speaker, 0.5 and 1 s."""
    for speaker in range(12):
        folder = tmp_path / f"speaker{speaker}"
        folder.mkdir()
        for take, seconds in enumerate((0.5, 1.0)):
            time = np.arange(int(seconds * RATE)) / RATE
            soundfile.write(folder / f"{take}.wav", 0.5 * np.sin(2 * np.pi * (100 + 50 * speaker) * time), RATE)
    return tmp_path


def pitch(crop: torch.Tensor) -> float:
    return float(torch.fft.rfft(crop).abs().argmax() * RATE / len(crop))


def test_folders_and_manifests_give_the_same_clips(corpus):
    clips = read_clips(corpus)
    assert len(clips) == 24
    assert clips[0] == Clip(corpus / "speaker0" / "0.wav", "speaker0")
    rows = [{"path": str(c.path.relative_to(corpus)), "text": "x", "speaker": c.speaker} for c in clips]
    with (corpus / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "text", "speaker"])
        writer.writeheader()
        writer.writerows(rows)
    (corpus / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert read_clips(corpus / "list.csv") == read_clips(corpus / "list.jsonl") == clips


def test_sources_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match="no audio found"):
        read_clips(tmp_path)
    with pytest.raises(ValueError, match=r"neither a folder nor a \.csv"):
        read_clips(tmp_path / "list.txt")
    (tmp_path / "list.csv").write_text("file\na.wav\n")
    with pytest.raises(ValueError, match="has no 'path'"):
        read_clips(tmp_path / "list.csv")


def test_a_crop_is_a_function_of_seed_and_index(corpus):
    arguments = {"gain_db": (-6.0, 6.0), "speed": (0.9, 1.1)}
    first, again = (CropDataset(read_clips(corpus), RATE, 1000, 3, **arguments) for _ in range(2))
    crops = [first[index] for index in range(8)]
    assert all(torch.equal(again[index], crops[index]) for index in reversed(range(8)))
    assert not torch.equal(first[0], first[1])
    other = CropDataset(read_clips(corpus), RATE, 1000, 4, **arguments)
    assert not torch.equal(other[0], crops[0])


def test_cache_changes_nothing(corpus):
    cached, plain = (CropDataset(read_clips(corpus), RATE, 1000, cache=cache) for cache in (True, False))
    assert all(torch.equal(cached[i % 5], plain[i % 5]) for i in range(10))


def test_crops_are_resampled_filled_up_and_bounded(corpus):
    clips = [Clip(corpus / "speaker4" / "0.wav", "speaker4")]  # 300 Hz, 0.5 s
    crop = CropDataset(clips, 2 * RATE, 3 * RATE, gain_db=(20.0, 20.0))[0]
    assert crop.shape == (3 * RATE,)
    assert crop.dtype == torch.float32
    assert crop.abs().max() == pytest.approx(1.0, abs=1e-3)
    assert crop[RATE + 10 :].abs().max() == 0
    assert 2 * pitch(crop[:RATE]) == pytest.approx(300, abs=5)


def test_a_crop_goes_on_with_the_same_speaker(corpus):
    clips = read_clips(corpus)
    joined = CropDataset(clips, RATE, int(1.25 * RATE), speed=(1.1, 1.1), join=True)
    alone = CropDataset(clips, RATE, int(1.25 * RATE), speed=(1.1, 1.1))
    for index in range(12):
        crop, speaker = joined[index], pitch(alone[index])
        # 1.375 s are wanted and a speaker has 1.5 s: sound to the last sample, of one voice.
        assert crop[-100:].abs().max() > 0.4
        assert alone[index][-1000:].abs().max() == 0
        assert pitch(crop[-2000:]) == pytest.approx(speaker, abs=8)
        assert pitch(crop[:2000]) == pytest.approx(speaker, abs=8)
    # Where a speaker has no more, there is silence.
    assert CropDataset(clips, RATE, 2 * RATE, join=True)[0][-RATE // 4 :].abs().max() == 0


def test_recordings_of_nobody_are_not_joined(corpus):
    clips = [clip._replace(speaker="") for clip in read_clips(corpus)]
    joined, alone = (CropDataset(clips, RATE, 2 * RATE, join=join) for join in (True, False))
    assert all(torch.equal(joined[index], alone[index]) for index in range(4))


def test_speed_moves_the_pitch(corpus):
    clips = [Clip(corpus / "speaker4" / "1.wav", "speaker4")]
    crops = CropDataset(clips, RATE, RATE // 2, speed=(1.1, 1.1))
    assert pitch(crops[0]) == pytest.approx(330, abs=3)


def test_long_recordings_are_drawn_more_often(corpus):
    clips = [Clip(corpus / "speaker0" / "0.wav", ""), Clip(corpus / "speaker10" / "1.wav", "")]
    crops = CropDataset(clips, RATE, 1000)
    long = sum(pitch(crops[index]) > 300 for index in range(300))
    assert 170 < long < 230


def test_ranks_share_an_epoch_and_epochs_share_nothing():
    seen = []
    for epoch in (0, 1):
        for rank in (0, 1):
            sampler = CropSampler(11, rank, 2)
            sampler.set_epoch(epoch)
            assert len(list(sampler)) == len(sampler) == 5
            seen += list(sampler)
    assert len(set(seen)) == len(seen)


def test_speakers_are_held_out_whole_and_by_name_alone(corpus):
    data = AudioCropDataModule(
        str(corpus), RATE, 0.1, 4, 16, 0.2, 8, held_out_fraction=0.3, held_out_speakers=["speaker11"]
    )
    data.setup("fit")
    training, validation = ({clip.speaker for clip in part.clips} for part in (data.training, data.validation))
    assert training | validation == {f"speaker{n}" for n in range(12)}
    assert not training & validation
    assert "speaker11" in validation
    assert {s for s in validation if s != "speaker11"} == {
        s for s in (f"speaker{n}" for n in range(11)) if is_held_out(s, 0.3)
    }
    assert [batch.shape for batch in data.train_dataloader()] == [(4, 800)] * 4
    first, second = (torch.cat(list(data.val_dataloader())) for _ in range(2))
    assert first.shape == (8, 1600)
    assert torch.equal(first, second)


def test_validation_is_the_same_in_every_epoch(corpus):
    data = AudioCropDataModule(str(corpus), validation_crops=4, validation_seconds=0.1, held_out_fraction=0.5)
    data.setup("fit")
    loader = data.val_dataloader()
    first = torch.cat(list(loader))
    loader.sampler.set_epoch(3)  # as Lightning does
    assert torch.equal(torch.cat(list(loader)), first)


def test_held_out_share_is_about_the_fraction():
    held_out = sum(is_held_out(f"speaker-{n}", 0.1) for n in range(2000))
    assert 150 < held_out < 250


def test_nothing_to_train_on_is_an_error(corpus):
    with pytest.raises(ValueError, match="0 recordings to train on"):
        AudioCropDataModule(str(corpus), RATE, held_out_fraction=1.0).setup("fit")


def test_speakers_that_were_divided_already_stay_so(corpus, tmp_path_factory):
    unheard = tmp_path_factory.mktemp("unheard")
    for speaker in range(3):
        (corpus / f"speaker{speaker}").rename(unheard / f"speaker{speaker}")
    data = AudioCropDataModule(str(corpus), RATE, held_out_fraction=0.5, validation_source=str(unheard))
    data.setup("fit")
    assert {clip.speaker for clip in data.training.clips} == {f"speaker{n}" for n in range(3, 12)}
    assert {clip.speaker for clip in data.validation.clips} == {f"speaker{n}" for n in range(3)}
    with pytest.raises(ValueError, match=r"speaker 'speaker10' \(9 in all\) is in .* and in"):
        AudioCropDataModule(str(corpus), RATE, validation_source=str(corpus)).setup("fit")
