"""Random numbers inside training steps survive a resume."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.step_seed import StepSeed
from datamodules.synthetic import SyntheticTokenDataModule


class Dice(LightningModule):
    """Writes down the random numbers of its training steps."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.thrown = []

    def training_step(self, batch, batch_idx):
        self.thrown.append(torch.rand(1).item())
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, *callbacks, ckpt_path=None):
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        max_epochs=2,
        callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Dice()
    trainer.fit(
        model,
        SyntheticTokenDataModule(num_train=12, max_seconds=2, batch_frames=500, bucket_frames=64),
        ckpt_path=ckpt_path,
    )
    return model.thrown


@pytest.mark.parametrize("step", [3, 5, 8])
def test_a_resumed_run_draws_what_the_uninterrupted_run_draws(tmp_path, step):
    whole = fit(tmp_path, StepSeed())
    assert len(set(whole)) == 10
    resumed = fit(tmp_path / "again", StepSeed(), ckpt_path=tmp_path / f"step={step}.ckpt")
    assert resumed == whole[step:]


def test_another_seed_draws_something_else(tmp_path):
    assert fit(tmp_path / "a", StepSeed()) != fit(tmp_path / "b", StepSeed(seed=1))


def test_ranks_draw_different_numbers(tmp_path, monkeypatch):
    first = fit(tmp_path / "a", StepSeed())
    monkeypatch.setattr(StepSeed, "on_train_batch_start", _as_rank_one(StepSeed.on_train_batch_start))
    assert not set(first) & set(fit(tmp_path / "b", StepSeed()))


def _as_rank_one(hook):
    class RankOne:
        def __init__(self, trainer):
            self.current_epoch, self.global_rank = trainer.current_epoch, 1

    return lambda self, trainer, *args: hook(self, RankOne(trainer), *args)
