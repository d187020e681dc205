"""Tokenizing a corpus in independent processes, killed, restarted, and with another number of them."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "callbacks"))
from predict_on_two_ranks import Ramp, predict

from datamodules.audio import AudioDataModule, AudioFolder
from datamodules.token_set import done_ids, open_token_set


@pytest.fixture
def speech(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "speech").mkdir()
    for number in range(20):
        soundfile.write(tmp_path / f"speech/u{number}.wav", random.uniform(-0.1, 0.1, 3200 + 320 * number), 16_000)
    return tmp_path / "speech"


def data(speech, shard, **options):
    return AudioDataModule(AudioFolder(str(speech)), batch_size=2, shard=shard, **options)


def test_shards_are_all_of_the_corpus_and_share_nothing(speech):
    parts = []
    for index in range(3):
        module = data(speech, f"{index}/3", sort_by_length=index == 1)
        parts.append([id for batch in module.predict_dataloader() for id in batch.ids])
    assert sorted(id for part in parts for id in part) == sorted(f"u{n}" for n in range(20))
    assert all(parts)


def test_killed_restarted_and_rebalanced_shards_leave_every_utterance_once(speech, tmp_path):
    predict(speech, tmp_path / "set", data=data(speech, "0/3"))
    with pytest.raises(RuntimeError, match="the power went out"):
        predict(speech, tmp_path / "set", Ramp(fail_at=1), data=data(speech, "1/3"))
    for index in range(2):  # another number of processes takes over
        predict(speech, tmp_path / "set", data=data(speech, f"{index}/2"))
    ids = open_token_set(tmp_path / "set")["id"].to_pylist()
    assert sorted(ids) == sorted(f"u{n}" for n in range(20))
    predict(speech, tmp_path / "whole")
    assert done_ids(tmp_path / "whole") == set(ids)


def test_processes_write_files_of_their_own(speech, tmp_path):
    for index in range(3):
        predict(speech, tmp_path / "set", data=data(speech, f"{index}/3"))
    owners = {re.search(r"-r(\d+)-", file.name)[1] for file in (tmp_path / "set/data").glob("*.parquet")}
    assert owners == {"000", "001", "002"}


@pytest.mark.parametrize("shard", ["4/4", "1", "a/b", "-1/2", "1/0"])
def test_a_shard_that_cannot_be_is_refused(speech, shard):
    with pytest.raises(ValueError, match="from 0/4 to 3/4"):
        data(speech, shard)


def test_a_shard_is_not_trained_on(speech):
    with pytest.raises(ValueError, match="shard is for predict; fit needs all"):
        data(speech, "0/2").setup("fit")


def test_progress_tells_speed_and_time_left(speech, tmp_path, caplog):
    with caplog.at_level("INFO"):
        predict(speech, tmp_path / "set", report_seconds=0)
    assert re.search(r"Tokenized 0\.00 h in 0\.00 h, \d+ hours per hour; about 0\.00 h left", caplog.text)
