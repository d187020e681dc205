"""Sets of the `datasets` library as a source of speech."""

import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from datasets.packaged_modules.parquet.parquet import Parquet

from datamodules.audio import AudioDataModule, HuggingFaceAudio


def flac(seconds):
    file = io.BytesIO()
    soundfile.write(file, np.full(round(16000 * seconds), 0.25), 16000, format="FLAC")
    return file.getvalue()


@pytest.fixture
def audio_set(tmp_path):
    """A set as the hub stores them: Parquet with an Audio column, one row of which has lost its audio."""
    features = datasets.Features(
        audio=datasets.Audio(sampling_rate=16000),
        text=datasets.Value("string"),
        speaker_id=datasets.Value("int64"),
        id=datasets.Value("string"),
    )
    table = pa.table(
        {
            "audio": pa.array(
                [{"bytes": flac(0.2), "path": "x.flac"}, {"bytes": None, "path": "gone.flac"}],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "text": ["HELLO  THERE", None],
            "speaker_id": [84, 85],
            "id": ["84-1-0000", "85/1"],
        }
    )
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(table.cast(features.arrow_schema), folder / "train-00000-of-00001.parquet")
    return folder


def test_reads_a_set_without_decoding_it(audio_set, tmp_path):
    source = HuggingFaceAudio(str(audio_set), cache_dir=str(tmp_path / "cache"))
    source.prepare()
    assert list(source.ids()) == ["84-1-0000", "85__1"]
    assert list(source.speakers()) == ["84", "85"]
    assert (source[0].text, source[0].speaker) == ("HELLO THERE", "84")
    data = AudioDataModule(source, batch_size=4)
    (batch,) = data.predict_dataloader()
    assert batch.ids == ["84-1-0000"]
    assert torch.allclose(batch.audio[0], torch.full((3200,), 0.25))
    assert [(rejection.id, rejection.reason) for rejection in batch.rejected] == [
        ("85__1", "has neither content nor a file on this machine")
    ]
    assert "train[1] gone.flac" in batch.rejected[0].path


def test_columns_and_ids_are_optional_and_saved_sets_are_read(audio_set, tmp_path):
    table = datasets.Dataset.from_dict({"sound": [flac(0.2)], "name": ["a"]})
    datasets.DatasetDict(test=table).save_to_disk(str(tmp_path / "saved"))
    columns = {"audio_column": "sound", "text_column": None, "speaker_column": "name", "id_column": None}
    source = HuggingFaceAudio(str(tmp_path / "saved"), split="test", **columns)
    assert (source.ids(), list(source.speakers())) == (["test-00000000"], ["a"])
    assert soundfile.info(source[0].file).duration == 0.2
    with pytest.raises(ValueError, match=r"saved: no split 'train', only test"):
        len(HuggingFaceAudio(str(tmp_path / "saved"), **columns))


def test_a_missing_column_is_an_error_that_names_those_there_are(audio_set, tmp_path):
    source = HuggingFaceAudio(str(audio_set), speaker_column="speaker", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="has no column speaker, only audio, text, speaker_id, id"):
        len(source)


def test_a_hub_out_of_reach_is_one_line_with_the_remedy():
    source = HuggingFaceAudio("openslr/librispeech_asr", "clean", "train.100")  # offline: see conftest
    with pytest.raises(ConnectionError, match=r"hub cannot be reached .* load it once while online, or give a local"):
        len(source)


def test_what_was_downloaded_once_is_read_without_the_hub(audio_set, tmp_path, monkeypatch):
    columns = {"path": "ann/some_set", "name": "clean", "cache_dir": str(tmp_path / "cache")}
    files = {"train.100": str(audio_set / "train-00000-of-00001.parquet")}
    downloaded = Parquet(str(tmp_path), dataset_name="some_set", config_name="clean", data_files=files)
    downloaded.download_and_prepare(str(tmp_path / "cache/ann___some_set/clean/0.0.0/1a2b"))  # as load_dataset does

    def refuse(*args, **kwargs):
        raise AssertionError("asks the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    source = HuggingFaceAudio(**columns, split="train.100", download=False)
    assert list(source.ids()) == ["84-1-0000", "85__1"]
    assert soundfile.info(source[0].file).duration == 0.2
    with pytest.raises(ValueError, match=r"ann/some_set: Unknown split \"train.360\""):
        len(HuggingFaceAudio(**columns, split="train.360", download=False))
    with pytest.raises(FileNotFoundError, match=r"find cache for ann/some_set for config 'other' .*download is false"):
        len(HuggingFaceAudio(**{**columns, "name": "other"}, split="train.100", download=False))
    with pytest.raises(FileNotFoundError, match="find cache for nobody/nothing"):
        len(HuggingFaceAudio("nobody/nothing", cache_dir=str(tmp_path / "cache"), download=False))


def test_a_folder_is_read_without_the_hub_all_the_same(audio_set, tmp_path):
    assert len(HuggingFaceAudio(str(audio_set), cache_dir=str(tmp_path / "cache"), download=False)) == 2


def test_a_set_that_is_nowhere_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no data set .*none"):
        len(HuggingFaceAudio(str(tmp_path / "none")))


def test_an_unknown_split_names_the_set(audio_set, tmp_path):
    with pytest.raises(ValueError, match=r"set: Unknown split"):
        len(HuggingFaceAudio(str(audio_set), split="nope", cache_dir=str(tmp_path / "cache")))
