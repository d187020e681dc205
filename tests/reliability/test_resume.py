"""A run that was killed and resumed ends with the very weights of the run that was not.

The suite runs what proves it; all combinations of optimizer, workers and ranks run with
``python -m pytest tests/reliability/test_resume.py -m slow``.
"""

import json
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
FAST, SLOW = ["workers", "ranks", "term"], ["adamw", "muon", "ranks-workers", "accumulate", "term-ranks"]


def run(run_script, folder, cases):
    done = run_script(HERE / "fits.py", folder, *cases, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stderr


@pytest.fixture(scope="module")
def fast(run_script, tmp_path_factory):
    return run(run_script, tmp_path_factory.mktemp("fits"), FAST)


@pytest.fixture(scope="module")
def slow(run_script, tmp_path_factory):
    return run(run_script, tmp_path_factory.mktemp("fits"), SLOW)


def flatten(value, name=""):
    """Give everything in a checkpoint by name, but for paths and for the callback that only writes a log."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not str(key).startswith("ModelCheckpoint"):
                yield from flatten(part, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for key, part in enumerate(value):
            yield from flatten(part, f"{name}/{key}")
    else:
        yield name, value


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(-1), b.view(-1))
    return a == b


def check(folder, stderr):
    codes = json.loads((folder / "codes.json").read_text())
    assert set(codes["whole"]) == set(codes["resumed"]) == {0}, f"{codes}\n{stderr[-3000:]}"
    for name, code in codes.items():
        if name.startswith("kill"):
            assert -9 in code, f"{name} was to be killed, but ended with {code}"
    whole, cut = (dict(flatten(torch.load(folder / run / "last.ckpt", weights_only=True))) for run in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    # How often things were started, unlike how often they were completed, counts what the interruption wasted.
    wasted = ("/ready", "/started", "_batches_that_stepped", "/is_last_batch")
    differ = [name for name in whole if not same(whole[name], cut[name]) and not name.endswith(wasted)]
    assert not differ, differ
    parts = {name.split("/")[1] for name in whole}
    assert {"state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"} <= parts
    assert any("momentum" in name or "exp_avg" in name for name in whole)
    assert any(name.endswith("/batches") for name in whole), "the position of the sampler is part of it"


def check_steps(folder):
    """Every step of the resumed run saw the very batch that the uninterrupted run saw, on every rank."""
    for log in folder.glob("whole.log.*"):
        whole = {tuple(line[:1]): line for line in map(json.loads, log.read_text().splitlines())}
        again = list(map(json.loads, (folder / log.name.replace("whole", "cut")).read_text().splitlines()))
        assert len(again) >= len(whole)
        assert {line[0] for line in again} == {step for (step,) in whole}
        if "accumulate" not in folder.name and "term" not in folder.name:
            assert all(whole[line[0],] == line for line in again)


@pytest.mark.parametrize("case", ["workers", "ranks"])
def test_killed_and_resumed_is_bit_for_bit_the_uninterrupted_run(fast, case):
    check(fast[0] / case, fast[1])
    check_steps(fast[0] / case)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["adamw", "muon", "ranks-workers", "accumulate"])
def test_killed_and_resumed_in_other_ways(slow, case):
    check(slow[0] / case, slow[1])
    check_steps(slow[0] / case)


def check_stopped(folder, stderr):
    codes = json.loads((folder / "codes.json").read_text())
    assert set(codes["stopped"]) == {143}, f"{codes}\n{stderr[-3000:]}"
    assert codes["saved"] == ["last-preempted.ckpt"]
    check(folder, stderr)


def test_sigterm_saves_between_two_steps_and_the_resumed_run_goes_on_exactly(fast):
    check_stopped(fast[0] / "term", fast[1])


@pytest.mark.slow
def test_sigterm_to_one_rank_stops_all_ranks_after_the_same_step(slow):
    check_stopped(slow[0] / "term-ranks", slow[1])
