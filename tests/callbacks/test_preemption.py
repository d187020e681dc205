"""A signal ends training between two steps, with a checkpoint; tests/reliability resumes from one."""

import os
import signal
import subprocess

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from callbacks.preemption import Preemption


class Signal(Callback):
    def __init__(self, number, batch):
        self.number, self.batch = number, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


def fit(folder, preemption, number=signal.SIGTERM, batch=3, accumulate=1):
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=6,
        accumulate_grad_batches=accumulate,
        limit_val_batches=0,
        logger=False,
        callbacks=[preemption, Signal(number, batch)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(BoringModel())
    return trainer


@pytest.mark.parametrize(("batch", "accumulate"), [(3, 1), (2, 2), (3, 2)])
def test_a_signal_saves_after_the_step_and_ends_the_process_as_sigterm_does(tmp_path, batch, accumulate):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path, Preemption(), batch=batch, accumulate=accumulate)
    assert stop.value.code == 143
    assert (tmp_path / "last-preempted.ckpt").is_file()
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_a_signal_nothing_is_written(tmp_path):
    assert fit(tmp_path, Preemption(), batch=-1).global_step == 6
    assert not list(tmp_path.iterdir())


def test_another_signal_can_be_chosen_and_a_slurm_job_is_put_back_in_the_queue(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with pytest.raises(SystemExit):
        fit(tmp_path, Preemption(("SIGUSR1",), requeue=True), signal.SIGUSR1)
    assert asked == [["scontrol", "requeue", "17"]]
    assert (tmp_path / "last-preempted.ckpt").is_file()


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="signals names SIGNOPE"):
        Preemption(("SIGNOPE",))
    with pytest.raises(ValueError, match="every_n_batches is 0"):
        Preemption(every_n_batches=0)
