"""What is found in folders of speech."""

import numpy as np
import pytest
import soundfile

from datamodules.audio import AudioFolder


def write(file, text=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.full(1600, 0.1), 16000)
    if text is not None:
        file.with_suffix(".txt").write_text(text, encoding="utf-8")


def test_lists_audio_recursively_in_the_order_of_the_paths(tmp_path):
    for name in ("ben/two.FLAC", "ann/one.wav", "ann/deep/er.ogg", "top.wav"):
        write(tmp_path / name)
    (tmp_path / "ann" / "._one.wav").write_bytes(b"left by another system")
    (tmp_path / "notes.md").write_text("no audio")
    source = AudioFolder(str(tmp_path), speaker_level=1)
    assert list(source.ids()) == ["ann__deep__er", "ann__one", "ben__two", "top"]
    assert list(source.speakers()) == ["deep", "ann", "ben", ""]
    assert [source[index].id for index in range(len(source))] == list(source.ids())


def test_transcripts_come_from_sidecars(tmp_path):
    write(tmp_path / "a.wav", "\ufeffHello,\n  wörld.\n")
    write(tmp_path / "b.wav")
    (tmp_path / "README.txt").write_text("about this folder")
    assert [utterance.text for utterance in AudioFolder(str(tmp_path))] == ["Hello, wörld.", ""]


def test_a_transcript_in_another_encoding_is_a_problem_and_never_read_wrongly(tmp_path):
    write(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    write(tmp_path / "lists" / "b.wav")
    write(tmp_path / "lists" / "c.wav")
    (tmp_path / "lists" / "lists.trans.txt").write_bytes("b café\nc tea\n".encode("latin-1"))
    a, b, c = AudioFolder(str(tmp_path))
    assert "not UTF-8" in a.problem
    assert "not UTF-8" in b.problem
    assert (a.text, b.text, c.text, c.problem) == ("", "", "tea", "")


def test_libritts_normalised_text_is_taken(tmp_path):
    folder = tmp_path / "14" / "208"
    write(folder / "14_208_000001_000000.wav")
    (folder / "14_208_000001_000000.original.txt").write_text("Dr. Who")
    (folder / "14_208_000001_000000.normalized.txt").write_text("Doctor Who")
    (utterance,) = AudioFolder(str(tmp_path))
    assert utterance[:4] == ("14_208_000001_000000", str(folder / "14_208_000001_000000.wav"), "14", "Doctor Who")


def test_librispeech_tree(tmp_path):
    chapter = tmp_path / "LibriSpeech" / "dev-clean" / "84" / "121123"
    for number in (0, 1):
        write(chapter / f"84-121123-000{number}.flac")
    (chapter / "84-121123.trans.txt").write_text("84-121123-0000 GO DO\n84-121123-0001 BUT\n84-121123-0002 NO\n")
    source = AudioFolder(str(tmp_path))
    assert list(source.ids()) == ["84-121123-0000", "84-121123-0001", "84-121123-0002"]
    assert set(source.speakers()) == {"84"}
    assert [utterance.text for utterance in source] == ["GO DO", "BUT", ""]
    assert [bool(utterance.problem) for utterance in source] == [False, False, True]
    assert "transcript but no audio" in source[2].problem


def test_a_line_of_transcripts_ends_at_its_line_break_alone(tmp_path):
    chapter = tmp_path / "84" / "121123"
    write(chapter / "84-121123-0000.wav")
    (chapter / "84-121123.trans.txt").write_text("84-121123-0000 GO\u2028DO\r\n", encoding="utf-8")
    assert AudioFolder(str(tmp_path))[0].text == "GO DO"


def test_librivox_speaker_is_two_folders_up(tmp_path):
    write(tmp_path / "100" / "sea_fairies_0812" / "01_baum.flac")
    (utterance,) = AudioFolder(str(tmp_path), speaker_level=2)
    assert (utterance.id, utterance.speaker) == ("100__sea_fairies_0812__01_baum", "100")


def test_dates_are_not_taken_for_librispeech(tmp_path):
    write(tmp_path / "calls" / "2024-05-01.wav")
    (utterance,) = AudioFolder(str(tmp_path))
    assert (utterance.id, utterance.speaker) == ("calls__2024-05-01", "")


def test_a_sidecar_without_audio_is_listed_with_the_problem(tmp_path):
    write(tmp_path / "a.wav", "here")
    (tmp_path / "ghost.txt").write_text("gone")
    ghost = AudioFolder(str(tmp_path))[1]
    assert (ghost.id, ghost.problem) == ("ghost", "has a transcript but no audio file")


def test_ids_are_file_names(tmp_path):
    long = "x" * 180
    for name in ("a b/c?d.wav", f"{long}1.wav", f"{long}2.wav"):
        write(tmp_path / name)
    ids = AudioFolder(str(tmp_path)).ids()
    assert ids[0] == "a_b__c_d"
    assert len(set(ids)) == 3
    assert max(map(len, ids)) < 128


@pytest.mark.parametrize("kind", ["missing", "without audio"])
def test_a_folder_without_audio_is_an_error_that_names_it(tmp_path, kind):
    folder = tmp_path / "speech"
    if kind == "without audio":
        folder.mkdir()
        (folder / "a.txt").write_text("words")
    source = AudioFolder(str(folder))  # the configuration alone touches no disk
    with pytest.raises(FileNotFoundError, match=r"speech (is no folder|holds no audio)"):
        len(source)


def test_speaker_level_starts_at_one():
    with pytest.raises(ValueError, match="speaker_level is 0"):
        AudioFolder("anywhere", speaker_level=0)
