"""Rendered speech on disk, and beside its recordings."""

import json

import numpy as np
import pytest
import soundfile

from datamodules.audio_manifest import AudioManifest
from datamodules.generated import GeneratedAudioDataModule
from datamodules.generated_set import (
    GeneratedCard,
    GeneratedRow,
    GeneratedSetWriter,
    audio_path,
    finished_ids,
    merge_parts,
    read_rows,
)

RATE = 16_000


def sound(seconds, level=0.1):
    return np.full(int(seconds * RATE), level, dtype=np.float32)


def write_set(
    folder,
    lengths,
    system="soundstorm",
    condition="unprompted",
    prompt_seconds=0.0,
    text="hello",
    level=0.2,
    prompt_ids=None,
):
    writer = GeneratedSetWriter(folder, GeneratedCard(system, condition, RATE, {"name": "toy"}))
    for id, seconds in lengths.items():
        row = GeneratedRow(
            id, audio_path(id), text, "ann", int(seconds * 50), prompt_seconds, seconds, RATE, 7, system, condition,
            own_prompt=prompt_ids is None, prompt_id=(prompt_ids or {}).get(id, ""),
        )  # fmt: skip
        writer.write(row, sound(seconds, level))
    writer.close()
    merge_parts(folder)
    return str(folder)


@pytest.fixture
def reference(tmp_path):
    """Recordings a to e, of 5, 12, 25, 3 and 6 seconds."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    lines = ["path,text,speaker"]
    for id, seconds in {"a": 5, "b": 12, "c": 25, "d": 3, "e": 6}.items():
        soundfile.write(folder / f"{id}.wav", sound(seconds), RATE)
        lines.append(f"{id}.wav,{'' if id == 'e' else 'text of ' + id},ann")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return AudioManifest(str(folder / "manifest.csv"))


def items_of(data):
    return [item for batch in data.test_dataloader() for item in batch.items]


def test_every_system_stands_beside_the_recording(tmp_path, reference):
    lengths = {"a": 5, "b": 12, "c": 25, "d": 3}
    systems = {
        "codec": write_set(tmp_path / "rec", lengths, "reconstruction", "reference"),
        "prompted": write_set(tmp_path / "pro", lengths, condition="prompted", prompt_seconds=2.0),
    }
    data = GeneratedAudioDataModule(systems, reference, batch_size=5)
    data.setup("test")
    assert data.rows == [("original", "reference"), ("reconstruction", "reference"), ("soundstorm", "prompted")]
    assert data.account == {}
    items = items_of(data)
    assert [(item.id, item.system) for item in items[:4]] == [
        ("a", "original"), ("a", "reconstruction"), ("a", "soundstorm"), ("b", "original"),
    ]  # fmt: skip
    assert [items[row].split for row in (0, 3, 6, 9)] == ["short", "mid", "long", "other"]
    original, codec, prompted = items[:3]
    assert original.audio is original.original
    assert [item.prompt_seconds for item in items[:3]] == [3.0, 3.0, 2.0]
    assert [item.seed for item in items[:3]] == [None, 7, 7]
    assert prompted.audio.numel() == codec.original.numel() == 5 * RATE
    assert prompted.audio[0] == pytest.approx(0.2, abs=1e-4)
    assert prompted.original[0] == pytest.approx(0.1, abs=1e-4)
    assert original.text == "text of a"


def test_the_prompt_of_another_utterance_is_that_of_its_recording(tmp_path, reference):
    soundfile.write(tmp_path / "recordings" / "b.wav", sound(12, 0.5), RATE)
    (tmp_path / "recordings" / "d.wav").write_bytes(b"no audio")
    givers = {"a": "b", "b": "e", "c": "stranger", "e": "d"}
    folder = write_set(
        tmp_path / "set", dict.fromkeys(givers, 9.0), condition="prompted_other", prompt_seconds=3.0, prompt_ids=givers
    )
    data = GeneratedAudioDataModule({"other": folder}, reference, sample_rate=8000)
    data.setup("test")
    a, b, c, e = (item for item in items_of(data) if item.system == "soundstorm")
    for item, level in ((a, 0.5), (b, 0.1)):
        assert item.recorded_prompt.numel() == 3 * 8000
        assert item.recorded_prompt[100] == pytest.approx(level, abs=1e-3)
        assert item.prompt_problem == ""
    assert a.original[100] == pytest.approx(0.1, abs=1e-3)
    assert c.recorded_prompt is e.recorded_prompt is None
    assert c.prompt_problem == "the prompt's recording is not among the references"
    assert e.prompt_problem.startswith("the prompt's recording cannot be read as audio")


def test_audio_sets_that_do_not_name_the_prompts_utterance_are_still_read(tmp_path, reference):
    folder = write_set(tmp_path / "set", {"a": 5}, condition="prompted_other", prompt_seconds=3.0, prompt_ids={})
    row = json.loads((tmp_path / "set" / "manifest.jsonl").read_text())
    del row["prompt_id"]
    (tmp_path / "set" / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    data = GeneratedAudioDataModule({"other": folder}, reference)
    data.setup("test")
    _, item = items_of(data)
    assert item.recorded_prompt is None
    assert item.prompt_problem == "the prompt's recording is not named by the audio set: generate it anew"


def test_everything_is_resampled_for_the_scorers(tmp_path, reference):
    data = GeneratedAudioDataModule({"x": write_set(tmp_path / "x", {"a": 5})}, reference, sample_rate=8000)
    data.setup("test")
    assert [item.audio.numel() for item in items_of(data)] == [40_000, 40_000]


@pytest.mark.filterwarnings("ignore:.* utterances? (is|are)")
def test_what_is_missing_or_double_is_counted_and_named(tmp_path, reference):
    one = write_set(tmp_path / "one", {"a": 5, "b": 12, "e": 6, "stranger": 5}, text="")
    two = write_set(tmp_path / "two", {"a": 5, "e": 6, "c": 25, "d": 3}, condition="prompted", text="")
    (tmp_path / "two" / "audio" / "c.flac").unlink()
    row = json.loads((tmp_path / "two" / "manifest.jsonl").read_text().splitlines()[0])
    with open(tmp_path / "two" / "manifest.jsonl", "a") as manifest:
        manifest.write(json.dumps(row | {"num_frames": 1}) + "\n")
    data = GeneratedAudioDataModule({"one": one, "two": two}, reference)
    with pytest.warns(UserWarning, match="1 utterance is without text"):
        data.setup("test")
    assert data.account == {
        "in the manifest of two, but without a file": ["c"],
        "twice in two: the first is taken": ["a"],
        "without a recording: left out": ["stranger"],
        "missing in one: left out of every row": ["d"],
        "missing in two: left out of every row": ["b", "stranger"],
        "without text: no words are counted": ["e"],
    }
    assert data.ids == ["a", "e"]


@pytest.mark.filterwarnings("ignore:1 utterance is missing")
def test_clips_that_end_with_their_prompt_are_named(tmp_path, reference):
    folder = write_set(tmp_path / "set", {"a": 3.0, "b": 5.0}, condition="prompted", prompt_seconds=3.0)
    data = GeneratedAudioDataModule({"prompted": folder}, reference)
    with pytest.warns(UserWarning, match="1 utterance is no longer than the prompt in prompted"):
        data.setup("test")
    assert data.account["no longer than the prompt in prompted: nothing of it was generated"] == ["a"]


def test_unpaired_systems_keep_what_they_have(tmp_path, reference):
    systems = {
        "one": write_set(tmp_path / "one", {"a": 5, "b": 12}),
        "two": write_set(tmp_path / "two", {"b": 12}, condition="prompted"),
    }
    data = GeneratedAudioDataModule(systems, reference, paired=False)
    data.setup("test")
    assert [(item.id, item.condition) for item in items_of(data)] == [
        ("a", "reference"), ("a", "unprompted"), ("b", "reference"), ("b", "unprompted"), ("b", "prompted"),
    ]  # fmt: skip


def test_text_of_the_audio_set_stands_in_for_a_missing_transcript(tmp_path, reference):
    data = GeneratedAudioDataModule({"x": write_set(tmp_path / "x", {"e": 6}, text="from the tokens")}, reference)
    data.setup("test")
    assert {item.text for item in items_of(data)} == {"from the tokens"}


def test_unreadable_audio_stops_nothing(tmp_path, reference):
    folder = write_set(tmp_path / "x", {"a": 5, "b": 12})
    (tmp_path / "x" / "audio" / "a.flac").write_bytes(b"no audio")
    data = GeneratedAudioDataModule({"x": folder}, reference)
    data.setup("test")
    batches = list(data.test_dataloader())
    assert [item.id for batch in batches for item in batch.items] == ["a", "b", "b"]
    [rejected] = [rejection for batch in batches for rejection in batch.rejected]
    assert rejected.id == "a"
    assert rejected.reason.startswith("soundstorm (unprompted): cannot be read as audio")


def test_silence_of_a_system_is_scored(tmp_path, reference):
    data = GeneratedAudioDataModule({"x": write_set(tmp_path / "x", {"a": 5}, level=0.0)}, reference)
    data.setup("test")
    assert [item.system for item in items_of(data)] == ["original", "soundstorm"]


def test_two_sets_of_one_system_are_refused(tmp_path, reference):
    folder = write_set(tmp_path / "x", {"a": 5})
    with pytest.raises(ValueError, match=r"two of \['one', 'two'\] hold soundstorm \(unprompted\)"):
        GeneratedAudioDataModule({"one": folder, "two": folder}, reference).setup("test")


def test_sets_without_a_common_utterance_are_refused(tmp_path, reference):
    data = GeneratedAudioDataModule({"x": write_set(tmp_path / "x", {"z": 5})}, reference)
    with pytest.raises(ValueError, match=r"no utterance is in all sets; the recordings hold a, b.*; x holds z"):
        data.setup("test")


def test_a_folder_without_card_is_refused(tmp_path, reference):
    with pytest.raises(FileNotFoundError, match="is no audio set"):
        GeneratedAudioDataModule({"x": str(tmp_path)}, reference).setup("test")


def test_a_row_cut_off_by_a_crash_is_passed_over_and_written_again(tmp_path):
    card = GeneratedCard("soundstorm", "unprompted", RATE, {"name": "toy"})
    row = GeneratedRow("a", audio_path("a"), "t", "", 5, 0.0, 0.1, RATE, 1, "soundstorm", "unprompted")
    writer = GeneratedSetWriter(tmp_path, card)
    writer.write(row, sound(0.1))
    writer.close()
    with open(tmp_path / "manifest-r0.jsonl", "a") as part:
        part.write('{"id": "b", "pa')
    assert read_rows(tmp_path) == [row]
    again = GeneratedSetWriter(tmp_path, card)
    assert finished_ids(tmp_path) == {"a"}
    again.write(GeneratedRow(**{**row.__dict__, "id": "b", "path": audio_path("b")}), sound(0.1))
    again.close()
    assert merge_parts(tmp_path) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["audio", "card.json", "manifest.jsonl"]


@pytest.mark.parametrize("damage", [{"id": None}, {"prompt_id": 1}, {"seconds": "5"}])
def test_a_damaged_row_is_named(tmp_path, damage):
    write_set(tmp_path / "x", {"a": 5})
    row = json.loads((tmp_path / "x" / "manifest.jsonl").read_text())
    (tmp_path / "x" / "manifest.jsonl").write_text(json.dumps(row | damage) + "\n")
    with pytest.raises(ValueError, match=r"manifest\.jsonl line 1 is no row"):
        read_rows(tmp_path / "x")
