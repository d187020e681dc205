"""Scorers that are trained and tested on several devices."""

import json
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def found(run_script, tmp_path_factory):
    """What one rank and what two ranks left."""
    folder = tmp_path_factory.mktemp("ranks")
    done = run_script(Path(__file__).with_name("training_on_two_ranks.py"), folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_two_ranks_take_the_step_of_one_rank_with_the_joint_batch(found):
    alone, together = (torch.load(found / f"scorer-{ranks}.pt", weights_only=True) for ranks in (1, 2))
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, atol=1e-5, rtol=1e-4, msg=name)
    assert not torch.equal(alone["log_scale"], torch.tensor(1 / 0.07).log())


def test_two_ranks_find_as_many_as_one_rank(found):
    alone, together = (json.loads((found / f"detector-{ranks}.json").read_text()) for ranks in (1, 2))
    assert together == pytest.approx(alone)
    assert set(alone) == {"test/accuracy", "test/eer", "test/accuracy_generated", "test/eer_generated", "test/unjudged"}
    assert 0 < alone["test/eer"] < 100
