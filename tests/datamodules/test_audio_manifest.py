"""What is read from tables of speech, and what is refused."""

import json

import pytest

from datamodules.audio import AudioFolder, AudioManifest, AudioSources


def manifest(tmp_path, text, name="speech.csv", **options):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return AudioManifest(str(tmp_path / name), **options)


ROWS = [("clips/a.wav", "one, two", "ann"), ("clips/b.flac", "", "ben")]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_reads_every_kind_of_table(tmp_path, kind):
    if kind == "jsonl":
        text = "\n".join(json.dumps(dict(zip(("path", "text", "speaker"), row, strict=True))) for row in ROWS) + "\n\n"
    else:
        separator = {"csv": ",", "tsv": "\t"}[kind]
        quoted = [[f'"{value}"' for value in row] for row in ROWS]
        text = "\n".join(separator.join(row) for row in [["path", "text", "speaker"], *quoted]) + "\n"
    source = manifest(tmp_path, "\ufeff" + text, f"speech.{kind}")
    assert [utterance[:4] for utterance in source] == [
        ("clips__a", str(tmp_path / "clips/a.wav"), "ann", "one, two"),
        ("clips__b", str(tmp_path / "clips/b.flac"), "ben", ""),
    ]


def test_columns_can_be_named_or_absent(tmp_path):
    source = manifest(
        tmp_path, "file,key\na.wav,x/1\n", path_column="file", id_column="key", text_column=None, speaker_column=None
    )
    assert source[0][:4] == ("x__1", str(tmp_path / "a.wav"), "", "")


def test_transcripts_and_speakers_may_be_missing_but_not_what_was_named(tmp_path):
    assert manifest(tmp_path, "path\na.wav\n")[0][:4] == ("a", str(tmp_path / "a.wav"), "", "")
    with pytest.raises(ValueError, match="line 2 has no 'txt', only \\['path'\\]"):
        len(manifest(tmp_path, "path\na.wav\n", text_column="txt"))


def test_a_column_of_ids_is_used_without_being_named(tmp_path):
    source = manifest(tmp_path, '{"path": "audio/a.flac", "id": 17, "text": null, "speaker": 4}', "m.jsonl")
    assert source[0][:4] == ("17", str(tmp_path / "audio/a.flac"), "4", "")


def test_rows_can_be_chosen(tmp_path):
    text = "path,text,speaker,source\na.wav,,,x\nb.wav,,,y\n"
    assert manifest(tmp_path, text, where={"source": "y"}).ids() == ["b"]
    with pytest.raises(ValueError, match="lists no audio where"):
        len(manifest(tmp_path, text, where={"source": "z"}))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "path,text,speaker\na.wav,hi,ann\nb.wav,hi\n", r"m\.csv is bad at line 3: it does not have 3 values"),
        ("m.csv", "path,text,speaker\na.wav,hi,ann,more\n", r"m\.csv is bad at line 2: it does not have 3 values"),
        ("m.csv", "path,text,speaker\n,hi,ann\n", r"m\.csv line 2 names no file"),
        ("m.jsonl", '{"path": "a.wav", "text": "", "speaker": ""}\n{oops\n', r"m\.jsonl is bad at line 2"),
        ("m.jsonl", '["a.wav"]\n', r"m\.jsonl is bad at line 1: not a JSON object"),
        ("m.xlsx", "", r"m\.xlsx is no manifest: its name has to end in \.csv, \.tsv or \.jsonl"),
        ("m.csv", "path,text,speaker\n", r"m\.csv lists no audio"),
    ],
)
def test_a_bad_manifest_is_an_error_that_names_the_line(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        len(manifest(tmp_path, text, name))


@pytest.mark.parametrize("path", ["../secret.wav", "clips/../../secret.wav", "/etc/secret.wav"])
def test_paths_that_leave_the_folder_are_refused_unless_allowed(tmp_path, path):
    text = f"path,text,speaker\n{path},,\n"
    with pytest.raises(ValueError, match=r"line 2: .*secret\.wav' is outside the manifest's folder; set allow_outside"):
        len(manifest(tmp_path, text))
    assert manifest(tmp_path, text, allow_outside=True)[0].path.endswith("secret.wav")


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv is no file"):
        len(AudioManifest(str(tmp_path / "none.csv")))


def test_sources_follow_one_another(tmp_path):
    header = "path,text,speaker\n"
    one = manifest(tmp_path, header + "a.wav,,ann\nb.wav,,ann\n", "1.csv")
    two = manifest(tmp_path, header + "c.wav,,ben\n", "2.csv")
    both = AudioSources([one, two])
    assert list(both.ids()) == [both[index].id for index in range(len(both))] == ["a", "b", "c"]
    assert list(both.speakers()) == ["ann", "ann", "ben"]
    with pytest.raises(FileNotFoundError):
        len(AudioSources([one, AudioFolder(str(tmp_path / "none"))]))
