"""Throughput: what is counted, and when it is logged."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ThroughputMonitor
from lightning.pytorch.loggers import CSVLogger

import callbacks.throughput
from callbacks.throughput import FrameThroughput, num_frames, num_utterances
from datamodules.synthetic import SyntheticTokenDataModule


class Idle(LightningModule):
    """Does nothing, and says what can be seen in its progress bar."""

    flops_per_batch = 1

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        callbacks.throughput.time.clock += 1000  # ty: ignore[missing-attribute]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Clock:
    """Every look at it takes a quarter of a second."""

    clock = 0.0

    def perf_counter(self):
        self.clock += 0.25
        return self.clock


def fit(folder, callback, **options):
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[callback],
        max_epochs=1,
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )
    model = Idle()
    trainer.fit(
        model,
        SyntheticTokenDataModule(num_train=12, num_validation=4, max_seconds=2, batch_frames=500, bucket_frames=64),
    )
    assert trainer.logger is not None
    trainer.logger.save()
    lines = (folder / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    return trainer, model, rows


def test_counts_come_from_the_batch():
    batch = next(iter(SyntheticTokenDataModule().train_dataloader()))
    assert num_utterances(batch) == len(batch.ids)
    assert num_frames(batch) == len(batch.ids) * batch.semantic.shape[1]


def test_real_frames_are_logged_without_validation_time(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks.throughput, "time", Clock())
    trainer, model, rows = fit(tmp_path, FrameThroughput(), val_check_interval=1, num_sanity_val_steps=0)
    assert len(model.batches) == 5
    first = next(row for row in rows if row["throughput/frames_per_second"])
    real = sum(int(batch.lengths.sum()) for batch in model.batches[:2])
    padded = sum(num_frames(batch) for batch in model.batches[:2])
    # Looks at the clock: at the start, before and after the one validation in between, and now.
    assert float(first["throughput/frames_per_second"]) == pytest.approx(real / 0.5)
    assert float(first["throughput/utterances_per_second"]) == pytest.approx(
        sum(len(batch.ids) for batch in model.batches[:2]) / 0.5
    )
    assert float(first["throughput/padding"]) == pytest.approx(1 - real / padded)
    assert "throughput/frames_per_second" in trainer.progress_bar_metrics


def test_it_logs_as_often_as_asked(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(Idle, "log_dict", lambda self, values, **_: logged.append((self.global_step, values)))
    fit(tmp_path, FrameThroughput(every_n_batches=3), limit_val_batches=0)
    assert [step for step, _ in logged] == [3]


def test_the_functions_serve_lightnings_monitor(tmp_path):
    monitor = ThroughputMonitor(batch_size_fn=num_utterances, length_fn=num_frames, window_size=2)
    _, _, rows = fit(tmp_path, monitor, limit_val_batches=0)
    assert any(float(row.get("train/device/items_per_sec") or 0) > 0 for row in rows)


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="every_n_batches is 0"):
        FrameThroughput(every_n_batches=0)
