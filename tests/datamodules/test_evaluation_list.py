"""Lists of Seed-TTS and LibriSpeech-PC: what is spoken, and after which prompt."""

import pytest

from datamodules.audio_sources import Utterance
from datamodules.evaluation_list import EvaluationList, read_pairs

SEED = (
    "a-1|Hello  there.|prompt-wavs/p-1.wav|Say this.\nb-2.wav|Hello there.|prompt-wavs/p-1.wav|And that.|wavs/b2.wav\n"
)
PC = "10-2-0001\t3.1\tA prompt.\t10-2-0005\t4.0\tA text.\n11-3-0001\t3.1\tB prompt.\t11-3-0002\t4.0\tB text.\n"


def write(folder, text):
    file = folder / "meta.lst"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_seed_tts(tmp_path):
    pairs = read_pairs(write(tmp_path, SEED))
    assert [(pair.target.id, pair.target.text, pair.prompt.id, pair.prompt.text) for pair in pairs] == [
        ("wavs__a-1", "Say this.", "prompt-wavs__p-1", "Hello there."),
        ("wavs__b2", "And that.", "prompt-wavs__p-1", "Hello there."),
    ]
    assert pairs[0].target.path == str(tmp_path / "wavs/a-1.wav")
    source = EvaluationList(write(tmp_path, SEED))
    assert [utterance.id for utterance in source] == ["wavs__a-1", "prompt-wavs__p-1", "wavs__b2"]


def test_librispeech_pc(tmp_path):
    [first, second] = read_pairs(write(tmp_path, PC), "audio")
    assert first.target == Utterance("10-2-0005", "audio/10/2/10-2-0005.flac", "10", "A text.")
    assert (first.prompt.id, second.prompt.path) == ("10-2-0001", "audio/11/3/11-3-0001.flac")


def test_a_line_ends_at_its_line_break_alone(tmp_path):
    [pair] = read_pairs(write(tmp_path, "a-1|Hello.|p-1.wav|Say\u2028this.\r\n"))
    assert pair.target.text == "Say this."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists nothing"),
        ("a|b\n", "line 1 has neither"),
        (SEED + SEED, "line 3: wavs__a-1 is to be spoken twice"),
        ("a|b|wavs/a.wav|c\n", "line 1: wavs__a is its own prompt"),
        ("1-2-3\t3\tA\t1-2-3\t4\tB\n", "line 1: 1-2-3 is its own prompt"),
        ("a|b|../p.wav|c\n", "line 1: '../p.wav' leads out"),
        ("../../a|b|p.wav|c\n", "line 1: 'wavs/../../a.wav' leads out"),
        ("\n../x-1-2\t3\tA\t1-2-3\t4\tB\n", "line 2: '../x-1-2' is no name of LibriSpeech"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(write(tmp_path, text))


def test_a_list_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.lst is no file"):
        read_pairs(str(tmp_path / "none.lst"))
    (tmp_path / "b.lst").write_bytes(b"\xff\xfe\x00|")
    with pytest.raises(ValueError, match=r"b\.lst is no text"):
        read_pairs(str(tmp_path / "b.lst"))
