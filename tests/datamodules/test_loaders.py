"""A run that is stopped and resumed sees the batches that an uninterrupted run sees."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.loaders import ResumableDataLoader
from datamodules.samplers import TokenBucketBatchSampler
from datamodules.synthetic import SyntheticTokenDataModule


class Recorder(LightningModule):
    """Learn next to nothing, but write down every batch that is delivered."""

    def __init__(self, validate=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []
        self.validated = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch.ids, batch.seeds.tolist(), batch.lengths.tolist()))
        return (self.weight - batch.codes.float().mean()).square().mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append((batch.ids, batch.seeds.tolist()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def synthetic(num_workers=0):
    return SyntheticTokenDataModule(
        num_train=12, num_validation=4, max_seconds=2, batch_frames=500, bucket_frames=64, num_workers=num_workers
    )


def fit(folder, num_workers=0, ckpt_path=None, **options):
    model = Recorder()
    settings: dict[str, Any] = {"max_epochs": 3, "limit_val_batches": 0} | options
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing="callbacks" in options,
        **settings,
    )
    trainer.fit(model, synthetic(num_workers), ckpt_path=ckpt_path)
    return model


@pytest.fixture(scope="module", params=["epochs", "steps"])
def stopped_everywhere(request, tmp_path_factory):
    """A run of three epochs with a checkpoint after every step, and the options that made it."""
    folder = tmp_path_factory.mktemp("run")
    options = {"max_epochs": 3} if request.param == "epochs" else {"max_epochs": -1, "max_steps": 15}
    keep = ModelCheckpoint(folder / "steps", "{step}", every_n_train_steps=1, save_top_k=-1)
    model = fit(folder, callbacks=[keep], **options)
    return folder / "steps", options, model


def test_epochs_are_shuffled_anew_through_the_trainer(stopped_everywhere):
    _, _, whole = stopped_everywhere
    epochs = [[ids for epoch, ids, *_ in whole.seen if epoch == number] for number in range(3)]
    assert len({len(epoch) for epoch in epochs}) == 1
    assert len({str(epoch) for epoch in epochs}) == 3
    assert [len(set(sum(epoch, []))) for epoch in epochs] == [12, 12, 12]  # noqa: RUF017


def test_resuming_after_any_step_continues_exactly(stopped_everywhere, tmp_path):
    folder, options, whole = stopped_everywhere
    assert len(whole.seen) == 15  # or the steps below are not what they say
    for step in (1, 4, 5, 6, 9, 10, 14):  # an epoch has 5
        resumed = fit(tmp_path, ckpt_path=folder / f"step={step}.ckpt", **options)
        assert resumed.seen == whole.seen[step:]
        assert torch.equal(resumed.weight, whole.weight)


def test_worker_processes_change_neither_batches_nor_resuming(stopped_everywhere, tmp_path):
    folder, options, whole = stopped_everywhere
    assert fit(tmp_path, num_workers=2, **options).seen == whole.seen
    assert fit(tmp_path, num_workers=2, ckpt_path=folder / "step=7.ckpt", **options).seen == whole.seen[7:]


def test_a_checkpoint_written_with_workers_does_not_count_what_they_read_ahead(tmp_path):
    keep = ModelCheckpoint(tmp_path / "steps", "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(tmp_path, num_workers=2, callbacks=[keep], max_epochs=1)
    assert fit(tmp_path, ckpt_path=tmp_path / "steps" / "step=2.ckpt", max_epochs=1).seen == whole.seen[2:]


def test_a_checkpoint_at_the_end_of_an_epoch_continues_with_the_next(tmp_path):
    keep = ModelCheckpoint(tmp_path / "epochs", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    whole = fit(tmp_path, callbacks=[keep])
    for epoch in (0, 1):
        resumed = fit(tmp_path, ckpt_path=tmp_path / "epochs" / f"epoch={epoch}.ckpt")
        assert resumed.seen == whole.seen[5 * (epoch + 1) :]


def test_validation_in_the_middle_of_an_epoch_leaves_training_alone(tmp_path):
    plain = fit(tmp_path)
    keep = ModelCheckpoint(tmp_path / "val", "{step}", save_top_k=-1, save_on_train_epoch_end=False)
    options = {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None}
    validating = fit(tmp_path, callbacks=[keep], **options)
    assert validating.seen == plain.seen
    assert len(validating.validated) == 2 * 8  # sanity check and 7 validations, of two batches
    assert len(set(map(str, validating.validated))) == 2
    resumed = fit(tmp_path, ckpt_path=tmp_path / "val" / "step=8.ckpt", **options)
    assert resumed.seen == plain.seen[8:]


def test_fewer_batches_per_epoch_start_every_epoch_at_its_beginning(tmp_path):
    whole, cut = fit(tmp_path), fit(tmp_path, limit_train_batches=3)
    assert cut.seen == [seen for epoch in range(3) for seen in whole.seen[5 * epoch :][:3]]


def test_overfitting_sees_the_same_batches_in_every_epoch(tmp_path):
    model = fit(tmp_path, overfit_batches=2)
    epochs = [[seen[1:] for seen in model.seen if seen[0] == number] for number in range(3)]
    assert len(epochs[0]) == 2
    assert epochs[0] == epochs[1] == epochs[2]


def loader():
    sampler = TokenBucketBatchSampler(synthetic()._train, 500, bucket_frames=64)
    return ResumableDataLoader(sampler)


def ids(batches):
    return [batch.ids for batch in batches]


def test_iterating_twice_gives_the_whole_epoch_twice():
    batches = loader()
    iterator = iter(batches)
    next(iterator)
    assert ids(batches) == ids(loader())
    assert ids(batches) == ids(loader())


def test_an_iterator_that_is_never_used_does_not_spend_the_position():
    first, second = loader(), loader()
    iterator = iter(first)
    next(iterator)
    second.load_state_dict(first.state_dict())
    iter(second)
    assert ids(second) == ids(iterator)


def test_the_state_can_be_saved_again_before_the_first_batch():
    batches = loader()
    batches.load_state_dict({"epoch": 2, "batches": 3, "num_batches": 5})
    assert batches.state_dict() == {"epoch": 2, "batches": 3, "num_batches": 5}


def test_the_rest_of_the_epoch_saved_comes_once():
    whole, batches = loader(), loader()
    whole.batch_sampler.set_epoch(2)
    batches.load_state_dict({"epoch": 2, "batches": 3, "num_batches": 5})
    assert ids(batches) == ids(whole)[3:]
    assert ids(batches) == ids(whole)


def test_another_epoch_than_the_one_saved_starts_at_its_beginning():
    batches = loader()
    batches.load_state_dict({"epoch": 2, "batches": 3, "num_batches": 5})
    batches.batch_sampler.sampler.set_epoch(3)
    assert len(list(batches)) == 5


def test_the_position_counts_the_batches_of_all_ranks():
    sampler = TokenBucketBatchSampler(synthetic()._train, 500, bucket_frames=64, rank=1, world_size=2)
    batches = ResumableDataLoader(sampler)
    iterator = iter(batches)
    next(iterator)
    assert batches.state_dict() == {"epoch": 0, "batches": 2, "num_batches": 4}


def test_a_checkpoint_of_another_plan_is_pointed_out():
    with pytest.warns(UserWarning, match="written with 9 batches per epoch, now there are 5"):
        loader().load_state_dict({"epoch": 0, "batches": 2, "num_batches": 9})
