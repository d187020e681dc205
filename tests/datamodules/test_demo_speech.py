"""The corpus that the repository carries, and the parts of its maker that need no synthesiser."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.demo_speech import make_corpus

FOLDER = Path(make_corpus.__file__).parent
SHARED_SENTENCES = 2


@pytest.fixture(scope="module")
def rows():
    with (FOLDER / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def recordings(rows):
    return {row["path"]: soundfile.read(FOLDER / row["path"], dtype="float32", always_2d=True) for row in rows}


def test_the_manifest_lists_every_file_once_and_no_other(rows):
    assert list(rows[0]) == ["path", "text", "speaker", "seconds"]
    listed = [row["path"] for row in rows]
    assert len(set(listed)) == len(listed)
    assert set(listed) == {f"audio/{path.name}" for path in (FOLDER / "audio").iterdir()}


def test_ids_are_unique_and_name_the_speaker(rows):
    ids = [Path(row["path"]).stem for row in rows]
    assert len(set(ids)) == len(ids)
    for row, name in zip(rows, ids, strict=True):
        speaker, number = name.rsplit("-", 1)
        assert speaker == row["speaker"]
        assert len(number) == 3
        assert number.isdigit()


def test_there_are_enough_clips_of_enough_speakers(rows):
    assert len(rows) >= 80
    clips = defaultdict(int)
    for row in rows:
        clips[row["speaker"]] += 1
    assert len(clips) >= 8
    assert min(clips.values()) >= 7


def test_the_whole_folder_fits_into_three_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if "__pycache__" not in path.parts) <= 3_000_000


def test_audio_is_mono_at_16_khz_and_as_long_as_the_manifest_says(rows, recordings):
    for row in rows:
        audio, sample_rate = recordings[row["path"]]
        assert sample_rate == 16000, row["path"]
        assert audio.shape[1] == 1, row["path"]
        assert 3.0 <= len(audio) / sample_rate <= 12.0, row["path"]
        assert len(audio) / sample_rate == pytest.approx(float(row["seconds"]), abs=0.01), row["path"]


def test_audio_is_neither_silent_nor_clipped(recordings):
    for path, (audio, _) in recordings.items():
        assert np.isfinite(audio).all(), path
        assert np.sqrt(np.mean(audio**2)) >= 0.02, path
        assert 0.2 <= np.abs(audio).max() < 0.99, path


def test_silence_at_the_ends_is_short(recordings):
    for path, (audio, sample_rate) in recordings.items():
        (loud,) = np.nonzero(np.abs(audio[:, 0]) > 0.02 * np.abs(audio).max())
        assert loud[0] / sample_rate < 0.3, path
        assert (len(audio) - loud[-1]) / sample_rate < 0.5, path


def test_texts_are_plain_words_and_unique_per_speaker(rows):
    texts = defaultdict(list)
    for row in rows:
        assert row["text"].strip() == row["text"] != ""
        assert row["text"].isascii()
        assert not any(character.isdigit() for character in row["text"])
        texts[row["speaker"]].append(row["text"])
    for speaker, said in texts.items():
        assert len(set(said)) == len(said), speaker


def test_only_the_shared_sentences_are_said_by_more_than_one_speaker(rows):
    speakers = defaultdict(set)
    for row in rows:
        speakers[row["text"]].add(row["speaker"])
    everybody = {row["speaker"] for row in rows}
    shared = [said_by for said_by in speakers.values() if len(said_by) > 1]
    assert shared == [everybody] * SHARED_SENTENCES


def test_the_manifest_is_what_the_texts_ask_for(rows):
    clips = make_corpus.read_clips(FOLDER / "texts.csv")
    asked = [(clip.path, clip.text, clip.speaker) for clip in clips]
    assert asked == [(row["path"], row["text"], row["speaker"]) for row in rows]


def test_a_speaker_without_a_voice_is_named(tmp_path):
    texts = tmp_path / "texts.csv"
    texts.write_text("speaker,text\nnobody,Hello.\n")
    with pytest.raises(ValueError, match="no voice for nobody"):
        make_corpus.read_clips(texts)


def test_trimming_leaves_the_sound_and_the_margin_on_both_sides():
    tone = np.sin(np.linspace(0, 2000, 16000, dtype=np.float32))
    silence = np.zeros(8000, dtype=np.float32)
    trimmed = make_corpus.trim_silence(np.concatenate([silence, tone, silence]), 16000, margin_seconds=0.1)
    assert len(trimmed) == 16000 + 2 * 1600
    np.testing.assert_array_equal(trimmed[1600:-1600], tone)


def test_levelling_reaches_the_loudness_unless_the_peak_forbids():
    tone = 0.01 * np.sin(np.linspace(0, 2000, 16000, dtype=np.float32))
    assert np.sqrt(np.mean(make_corpus.level_speech(tone, rms=0.1) ** 2)) == pytest.approx(0.1, rel=1e-3)
    click = np.zeros(16000, dtype=np.float32)
    click[100] = 0.5
    assert np.abs(make_corpus.level_speech(click, rms=0.1, peak=0.8)).max() == pytest.approx(0.8)
