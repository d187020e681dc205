"""What is not a number reaches neither weights, average, optimizer nor checkpoint, and is named."""

import tempfile

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from callbacks.loss_guard import LossGuard, TrainingDivergedError
from datamodules.synthetic import SyntheticTokenDataModule
from modules.optimizers import MuonWithAdamW


class Regression(LightningModule):
    """Learns nothing much; its loss and gradient are multiplied by what ``faults`` says for a batch."""

    def __init__(self, faults, optimizer=torch.optim.AdamW, everywhere=True):
        super().__init__()
        self.matrix = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 1)
        self.faults, self.make, self.everywhere = faults, optimizer, everywhere
        self.history = []

    def training_step(self, batch, batch_idx):
        out = self.head(self.matrix(torch.ones(1, 4))).square().sum() + 1
        if self.everywhere or self.global_rank == 1:
            out = out * self.faults.get(self.trainer.fit_loop.epoch_loop.total_batch_idx, 1)
        return out

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.history.append((self.matrix.weight.detach().clone(), batch.ids))

    def configure_optimizers(self):
        if self.make is MuonWithAdamW:
            return MuonWithAdamW(
                [
                    {"params": [self.matrix.weight], "hidden": True},
                    {"params": [self.matrix.bias, *self.head.parameters()], "hidden": False},
                ]
            )
        return self.make(self.parameters(), lr=0.01)


def fit(tmp_path, model, guard, max_steps=8, accumulate=1, callbacks=(), devices=1):
    torch.manual_seed(0)
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",
        logger=False,
        max_steps=max_steps,
        max_epochs=-1,
        limit_val_batches=0,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        callbacks=[guard, *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
    )
    trainer.fit(model, SyntheticTokenDataModule(num_train=40, max_seconds=2, batch_frames=200))
    return trainer


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, MuonWithAdamW])
@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_a_step_that_is_no_number_is_skipped_and_its_batch_named(tmp_path, fault, optimizer):
    model, guard = Regression({4: fault}, optimizer), LossGuard()
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    average = WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=False)
    with pytest.warns(UserWarning, match="step 5 is skipped, as the loss is") as warned:
        fit(tmp_path, model, guard, callbacks=[average, checkpoint])
    weights, ids = zip(*model.history, strict=True)
    assert torch.equal(weights[4], weights[3])
    assert not torch.equal(weights[5], weights[4])
    message = next(str(w.message) for w in warned if "skipped" in str(w.message))
    assert all(id in message for id in ids[4])
    assert not any(id in message for id in ids[3])
    assert guard.skipped == 1
    for file in tmp_path.glob("*.ckpt"):
        values = torch.load(file, weights_only=True)
        for part in (values["state_dict"], values["current_model_state"]):
            assert all(tensor.isfinite().all() for tensor in part.values())


def test_without_the_guard_such_a_step_ruins_the_weights(tmp_path):
    model = Regression({4: float("nan")})
    fit(tmp_path, model, Callback())
    assert model.history[-1][0].isnan().all()


@pytest.mark.parametrize(("fault", "skipped"), [(1e3, 1), (3.0, 0)])
def test_a_step_far_beyond_the_usual_is_skipped(tmp_path, fault, skipped):
    model, guard = Regression({6: fault}), LossGuard(warmup_steps=4)
    fit(tmp_path, model, guard)
    assert guard.skipped == skipped
    assert torch.equal(model.history[6][0], model.history[5][0]) == bool(skipped)


def test_accumulated_gradients_are_dropped_together_and_the_faulty_batch_is_named(tmp_path):
    model, guard = Regression({4: float("nan")}), LossGuard()
    with pytest.warns(UserWarning, match="step 3 is skipped") as warned:
        fit(tmp_path, model, guard, max_steps=4, accumulate=2)
    weights, ids = zip(*model.history, strict=True)
    assert torch.equal(weights[5], weights[3])
    assert not torch.equal(weights[7], weights[5])
    message = next(str(w.message) for w in warned if "skipped" in str(w.message))
    assert ids[4][0] in message
    assert not any(id in message for id in ids[5])


def test_after_the_limit_training_stops_and_says_why(tmp_path):
    model = Regression({batch: float("nan") for batch in range(3, 100)})
    with pytest.raises(TrainingDivergedError, match=r"step 6 is skipped.*3 in a row, so training stops"):
        fit(tmp_path, model, LossGuard(limit=3))
    assert model.matrix.weight.isfinite().all()


def test_single_faults_never_stop_training(tmp_path):
    guard = LossGuard(limit=2)
    fit(tmp_path, Regression({1: float("nan"), 3: float("nan"), 5: float("nan")}), guard)
    assert guard.skipped == 3


def test_no_checkpoint_is_written_of_weights_that_are_no_numbers(tmp_path):
    class Ruined(Regression):
        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            if self.global_step == 3:
                self.head.weight.data[0, 0] = float("nan")

    with pytest.raises(TrainingDivergedError, match=r"state_dict\['head.weight'\] is NaN"):
        fit(
            tmp_path,
            Ruined({}),
            LossGuard(),
            callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)],
        )
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["step=2.ckpt"]


def test_what_is_usual_survives_a_resume(tmp_path):
    guard = LossGuard()
    fit(tmp_path, Regression({4: float("nan")}), guard)
    resumed = LossGuard()
    resumed.load_state_dict(guard.state_dict())
    assert resumed.state_dict() == guard.state_dict()
    assert len(guard.state_dict()["usual"]["0"][0]) == 7


def test_all_ranks_agree_when_one_has_a_bad_loss(run_script):
    """Only rank 1 sees NaN; both skip, both name the batch of rank 1, and end with equal weights."""
    done = run_script(__file__)
    assert done.returncode == 0, done.stderr[-3000:]
    reports = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    assert len(reports) == 2
    assert reports[0].replace("rank 0", "rank 1") == reports[1]
    assert "skipped 1" in reports[0]
    assert "step 4 is skipped, as the loss is nan" in done.stderr
    assert "batch 3 of epoch 0, rank 1" in done.stderr
    assert "batch 3 of epoch 0, rank 0" not in done.stderr


class Report(LossGuard):
    def on_train_end(self, trainer, pl_module):
        weights = pl_module.matrix.weight.detach().double()
        assert torch.equal(pl_module.history[3][0], pl_module.history[2][0])
        # One write with the end of the line in it: ranks share the stream.
        line = f"rank {trainer.global_rank} skipped {self.skipped}, weights {weights.sum().item()!r}\n"
        print(line, end="", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    fit(tempfile.mkdtemp(), Regression({3: float("nan")}, everywhere=False), Report(), max_steps=5, devices=2)
