"""A token set is written once and completely, however often the writing is interrupted."""

import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from callbacks.token_writer import TokenWriter
from datamodules.token_set import (
    TokenSetCard,
    TokenSetWriter,
    done_ids,
    open_token_set,
    read_rejected,
    read_rows,
    shard_files,
)
from modules.batches import SoftTokens

SCRIPT = Path(__file__).with_name("predict_on_two_ranks.py")
predict, Ramp = (runpy.run_path(str(SCRIPT))[name] for name in ("predict", "Ramp"))


@pytest.fixture
def speech(tmp_path):
    """Nine good clips and two bad ones."""
    folder = tmp_path / "speech"
    folder.mkdir()
    for number in range(9):
        soundfile.write(folder / f"{number}.wav", np.full(3200 + 320 * number, 0.1), 16000)
        (folder / f"{number}.txt").write_text(f"text {number}")
    soundfile.write(folder / "silent.wav", np.zeros(3200), 16000)
    (folder / "broken.wav").write_bytes(b"no audio")
    return folder


def written(output):
    """How often each id is in the shards."""
    tables = [pq.read_table(file, columns=["id"]) for file in shard_files(output, "train")]
    return Counter(id for table in tables for id in table["id"].to_pylist())


def once(ids):
    return Counter({str(id): 1 for id in ids})


def test_writes_every_utterance_with_its_tokens(speech, tmp_path, capsys):
    predictions = predict(speech, tmp_path / "set")
    assert not predictions  # a corpus of them does not fit into memory
    rows = {row.id: row for row in read_rows(open_token_set(tmp_path / "set"), range(9), 2)}
    assert set(rows) == set("012345678")
    assert rows["3"].text == "text 3"
    np.testing.assert_array_equal(rows["3"].semantic, np.arange(13) % 8)
    np.testing.assert_array_equal(rows["3"].codes, [np.arange(13) % 8, np.arange(13) % 8 + 1])
    assert TokenSetCard.load(tmp_path / "set") == TokenSetCard(**Ramp().card())
    assert {rejection.id for rejection in read_rejected(tmp_path / "set")} == {"silent", "broken"}


def test_says_what_was_done(speech, tmp_path, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch.utilities.rank_zero")
    predict(speech, tmp_path / "set")
    predict(speech, tmp_path / "set")
    said = [message for message in caplog.messages if message.startswith("Token set")]
    assert [line.split(": ")[1] for line in said] == [
        "9 utterances (0.00 h) written, 0 were there already, 2 rejected, see "
        + str(tmp_path / "set" / "rejected.jsonl"),
        "0 utterances (0.00 h) written, 9 were there already, 0 rejected; 2 rejected earlier were not tried again "
        "(retry_rejected",
    ]


def test_an_exception_loses_nothing_and_the_next_run_goes_on(speech, tmp_path):
    with pytest.raises(RuntimeError, match="power"):
        predict(speech, tmp_path / "set", Ramp(fail_at=3), shard_rows=100)
    before = done_ids(tmp_path / "set")
    assert len(before) == 6
    files = {file: file.stat().st_mtime_ns for file in shard_files(tmp_path / "set", "train")}
    predict(speech, tmp_path / "set")
    assert written(tmp_path / "set") == once(range(9))
    assert all(file.stat().st_mtime_ns == time for file, time in files.items())


def test_a_killed_run_is_continued(speech, tmp_path, monkeypatch):
    with monkeypatch.context() as killed:  # a killed process runs neither of these
        killed.setattr(TokenWriter, "on_exception", lambda *args: None)
        killed.setattr(TokenSetWriter, "close", lambda self: None)
        with pytest.raises(RuntimeError, match="power"):
            predict(speech, tmp_path / "set", Ramp(fail_at=3), shard_rows=4)
    (tmp_path / "set" / "data" / "train-r000-00001.parquet.tmp").write_bytes(b"half a shard")
    assert len(done_ids(tmp_path / "set")) == 4  # one whole shard; what was buffered is made again
    predict(speech, tmp_path / "set", shard_rows=4)
    assert written(tmp_path / "set") == once(range(9))
    assert not list((tmp_path / "set" / "data").glob("*.tmp"))


def test_rejected_inputs_are_tried_again_only_if_asked_for(speech, tmp_path):
    predict(speech, tmp_path / "set")
    soundfile.write(speech / "broken.wav", np.full(3200, 0.1), 16000)
    predict(speech, tmp_path / "set")
    assert written(tmp_path / "set") == once(range(9))
    predict(speech, tmp_path / "set", retry_rejected=True)
    assert written(tmp_path / "set") == once([*range(9), "broken"])
    assert [rejection.id for rejection in read_rejected(tmp_path / "set")] == ["silent"]


def test_a_token_set_of_another_codec_is_refused_and_kept(speech, tmp_path):
    predict(speech, tmp_path / "set")
    with pytest.raises(ValueError, match="differ in codebook_size: 64 and 128"):
        predict(speech, tmp_path / "set", Ramp(codebook_size=128))
    assert written(tmp_path / "set") == once(range(9))


def test_data_that_cannot_leave_ids_out_are_refused(speech, tmp_path):
    class Data(LightningDataModule):
        def predict_dataloader(self):
            return DataLoader([0])

    with pytest.raises(TypeError, match=r"data with exclude\(ids\)"):
        predict(speech, tmp_path / "set", data=Data())


def test_two_ranks_write_every_id_once_and_finish_what_was_begun(run_script, speech, tmp_path):
    with pytest.raises(RuntimeError, match="power"):
        predict(speech, tmp_path / "begun", Ramp(fail_at=4))
    assert len(done_ids(tmp_path / "begun")) == 8  # one clip and the bad files are left: fewer than ranks have batches
    run = run_script(SCRIPT, speech, tmp_path / "new", tmp_path / "begun")
    assert run.returncode == 0, run.stderr
    for name in ("new", "begun"):
        assert written(tmp_path / name) == once(range(9))
        assert sorted(rejection.id for rejection in read_rejected(tmp_path / name)) == ["broken", "silent"]
    assert {file.name[:10] for file in shard_files(tmp_path / "new", "train")} == {"train-r000", "train-r001"}
    assert "9 utterances (0.00 h) written, 0 were there already, 2 rejected" in run.stderr + run.stdout


class SoftRamp(Ramp):
    """Is not quite sure: the next token may be meant."""

    def card(self):
        return super().card() | {"soft_semantic": {"num_tokens": 2, "sharpness": 30.0}}

    def predict_step(self, batch, batch_idx):
        made = super().predict_step(batch, batch_idx)
        soft = [torch.stack([row, (row + 1) % 8], dim=1) for row in made.semantic]
        return made._replace(soft_semantic=[SoftTokens(x, torch.tensor([0.75, 0.25]).expand(len(x), 2)) for x in soft])


def test_soft_tokens_are_written_with_the_utterance_they_belong_to(speech, tmp_path):
    predict(speech, tmp_path / "set", SoftRamp())
    rows = read_rows(open_token_set(tmp_path / "set"), range(9), 2)
    assert {row.id for row in rows} == set("012345678")
    for row in rows:
        frames = 10 + int(row.id)
        np.testing.assert_array_equal(
            row.soft.tokens, np.stack([np.arange(frames) % 8, (np.arange(frames) + 1) % 8], 1)
        )
        np.testing.assert_array_equal(row.soft.probabilities, [[0.75, 0.25]] * frames)


def test_soft_tokens_are_not_added_to_a_set_that_began_without(speech, tmp_path):
    predict(speech, tmp_path / "set")
    with pytest.raises(ValueError, match=r"name another output folder, .* soft tokens\) differ in soft_semantic"):
        predict(speech, tmp_path / "set", SoftRamp())
