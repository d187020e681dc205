"""Write the tokens that ``predict`` makes into a token set."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from datamodules.token_set import SoftRow, TokenSetCard, TokenSetWriter, done_ids, forget_rejected, read_rejected
from modules.batches import TokenizedBatch


class TokenWriter(Callback):
    """Collect what ``Tokenization`` predicts in a token set, and go on where an interrupted run stopped.

    The module tells what its tokens mean with ``card()``, the datamodule leaves out what is there already with
    ``exclude(ids)``. Each rank writes shards of its own. What is complete is kept on any exception; a killed process
    loses at most the ``shard_rows`` utterances it had not written yet, and the next run makes those again.

    Args:
        output_dir: Folder of the token set.
        split: Split to write.
        shard_rows: Utterances per shard.
        retry_rejected: Try again what earlier runs rejected.
        report_seconds: How often to log hours done per hour and the time left; other ranks are taken to be as fast as
            the first.

    Raises:
        TypeError: At the start of ``predict``: the datamodule has no ``exclude``, or the module no ``card``.
        ValueError: At the start of ``predict``: the folder holds tokens of other models.
    """

    def __init__(
        self,
        output_dir: str,
        split: str = "train",
        shard_rows: int = 2000,
        retry_rejected: bool = False,
        report_seconds: float = 60.0,
    ) -> None:
        self.report_seconds = report_seconds
        self._started = self._reported = 0.0
        self.output_dir = output_dir
        self.split = split
        self.shard_rows = shard_rows
        self.retry_rejected = retry_rejected
        self._writer: TokenSetWriter | None = None
        self._num_frames = 0
        self._num_done = 0
        self._num_rejected_before = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the token set and have the datamodule leave out what it holds; the loaders are made after this."""
        if stage != "predict":
            return
        make_card, exclude = getattr(pl_module, "card", None), getattr(trainer.datamodule, "exclude", None)  # ty: ignore[missing-attribute]
        if not callable(make_card) or not callable(exclude):
            raise TypeError(
                "TokenWriter needs a model with card(), such as Tokenization, and data with exclude(ids), such as "
                "AudioDataModule"
            )
        card = TokenSetCard(**make_card())
        # Independent processes that each read a share of the corpus write files of their own, as ranks do.
        index = getattr(trainer.datamodule, "shard_index", 0)  # ty: ignore[missing-attribute]
        number = getattr(trainer.datamodule, "num_shards", 1)  # ty: ignore[missing-attribute]
        writers = number * trainer.world_size
        writer = index * trainer.world_size + trainer.global_rank
        self._writer = TokenSetWriter(self.output_dir, card, self.split, writer, writers, self.shard_rows)
        # No rank writes a shard before all have left this hook, so that all read the same ids here.
        done = done_ids(self.output_dir, self.split)
        self._num_done, self._num_frames = len(done), 0
        self._num_rejected_before = 0
        if not self.retry_rejected:
            rejected = {rejection.id for rejection in read_rejected(self.output_dir, self.split)} - done
            self._num_rejected_before = len(rejected)
            done |= rejected
        elif writer == 0:
            forget_rejected(self.output_dir, self.split)
        exclude(done)
        # All predictions of a corpus do not fit into memory, and nobody asks for them.
        trainer.predict_loop.return_predictions = False
        self._started = self._reported = time.monotonic()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the utterances of a batch, and what was rejected of it."""
        if self._writer is None or not isinstance(outputs, TokenizedBatch):
            raise TypeError(f"TokenWriter writes a TokenizedBatch, but predict_step returned {type(outputs).__name__}")
        softs = [SoftRow(*(values.cpu().numpy() for values in soft)) for soft in outputs.soft_semantic]
        columns = (outputs.ids, outputs.semantic, outputs.codes, outputs.speakers, outputs.texts)
        for id, semantic, codes, speaker, text, soft in zip(*columns, softs or [None] * len(outputs.ids), strict=True):
            self._writer.write(id, semantic.cpu().numpy(), codes.cpu().numpy(), speaker, text, soft)
            self._num_frames += codes.shape[-1]
        for rejection in outputs.rejected:
            self._writer.reject(rejection)
        self._report(trainer, self._writer.card.frame_rate, batch_idx + 1, dataloader_idx)

    def _report(self, trainer: Trainer, frame_rate: float, batches: int, dataloader_idx: int) -> None:
        """Say now and then how fast it goes, and how long the rest takes if it goes on like that."""
        now = time.monotonic()
        if now - self._reported < self.report_seconds:
            return
        self._reported = now
        elapsed = now - self._started
        hours = self._num_frames * trainer.world_size / frame_rate / 3600
        left = elapsed / batches * (trainer.num_predict_batches[dataloader_idx] - batches)
        rank_zero_info(
            f"Tokenized {hours:.2f} h in {elapsed / 3600:.2f} h, {hours / (elapsed / 3600):.0f} hours per hour; "
            f"about {left / 3600:.2f} h left"
        )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what was tokenized so far."""
        if self._writer is not None:
            self._writer.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the last shard and say what the run did."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.close()
        # Here and not in on_predict_end, which a rank without batches does not reach.
        counts = torch.tensor([writer.num_written, writer.num_rejected, self._num_frames], dtype=torch.float64)
        totals = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum")
        written, rejected, frames = (int(total) for total in totals)
        hours, before = frames / writer.card.frame_rate / 3600, self._num_rejected_before
        rank_zero_info(
            f"Token set {self.output_dir}, split {self.split}: {written} utterances ({hours:.2f} h) written, "
            f"{self._num_done} were there already, {rejected} rejected"
            + (f", see {writer.folder / 'rejected.jsonl'}" if rejected else "")
            + (f"; {before} rejected earlier were not tried again (retry_rejected: true does)" if before else "")
        )
