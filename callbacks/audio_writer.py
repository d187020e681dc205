"""Writes what an acoustic generator predicts as audio."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from datamodules.generated_set import (
    GeneratedCard,
    GeneratedRow,
    GeneratedSetWriter,
    audio_path,
    finished_ids,
    merge_parts,
)
from modules.batches import GeneratedBatch, Rejection
from modules.codec.codec import AudioCodec
from modules.model_folder import weights_digest


class AudioWriter(Callback):
    """Decodes predicted codes and writes an audio set: FLAC files and a manifest, see ``datamodules.generated_set``.

    A run that stopped is continued: what lies in the folder already is neither generated (where the datamodule has an
    ``exclude`` method) nor written again. Each process writes the rows it was given; at the end they are put together.

    Args:
        codec: The codec that made the tokens; checked against the card of the token set.
        output_dir: Folder of the audio set.
        system: What generates: ``soundstorm``, ``audiolm``, ...; ``reconstruction`` for the codec alone.
        condition: ``unprompted``, ``prompted``, or ``prompted_other`` where another utterance gives the prompt;
            ``reference`` for reconstructions.
    """

    def __init__(self, codec: AudioCodec, output_dir: str | Path, system: str, condition: str) -> None:
        super().__init__()
        self.codec = codec
        self.output_dir = Path(output_dir)
        self.system = system
        self.condition = condition
        self._writer: GeneratedSetWriter | None = None
        self._finished: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See what the folder holds already and tell the datamodule.

        Raises:
            ValueError: The codec is not the token set's, or the folder holds audio of another system.
        """
        if stage != "predict":
            return
        data = trainer.datamodule  # ty: ignore[missing-attribute]
        card = getattr(data, "card", None)
        if card is not None:
            check_codec(self.codec.identity(), card.codec)
        self._card().compare(self.output_dir)
        self._finished = finished_ids(self.output_dir)
        if self._finished:
            rank_zero_info(f"{len(self._finished)} utterances lie in {self.output_dir} already")
            if hasattr(data, "exclude"):
                data.exclude(self._finished)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the codec to the device of the model and open the folder.

        Raises:
            ValueError: What the folder holds was made with other weights or sampled otherwise.
        """
        card = self._card(pl_module)
        self.codec.to(pl_module.device).eval()
        if trainer.is_global_zero:
            card.save(self.output_dir)
        trainer.strategy.barrier("audio_writer_start")
        self._writer = GeneratedSetWriter(self.output_dir, card, trainer.global_rank)

    def _card(self, generator: LightningModule | None = None) -> GeneratedCard:
        weights = sampling = None
        if generator is not None:  # whose checkpoint has been loaded by now
            sampling = getattr(generator, "sampling_settings", None)  # a reconstruction has none
            weights = weights_digest({**generator.state_dict(), **self.codec.state_dict(prefix="codec.")})
        return GeneratedCard(
            self.system, self.condition, self.codec.sample_rate, self.codec.identity(), weights, sampling
        )

    @torch.inference_mode()
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Decode and write the utterances of a batch.

        Raises:
            TypeError: The model does not predict :class:`GeneratedBatch`.
        """
        if not isinstance(outputs, GeneratedBatch):
            raise TypeError(f"{type(pl_module).__name__} predicts {type(outputs).__name__}, AudioWriter needs codes")
        assert self._writer is not None
        for row, id in enumerate(outputs.ids):
            if id not in self._finished:
                self._write(outputs, row)

    def _write(self, batch: GeneratedBatch, row: int) -> None:
        assert self._writer is not None
        id, length = batch.ids[row], int(batch.lengths[row])
        # Alone and without padding, so that the sound of an utterance does not depend on the batch it came in.
        audio = self.codec.decode(batch.codes[row : row + 1, :, :length])[0].float().cpu()
        if not audio.isfinite().all():
            self._writer.reject(Rejection(id, audio_path(id), "the codec returned samples that are NaN or infinite"))
            rank_zero_warn(f"{id} is left out: the codec returned samples that are NaN or infinite")
            return
        recorded = self.condition == "reference"
        prompt_id = batch.prompt_ids[row] if batch.prompt_ids else ""
        line = GeneratedRow(
            id=id,
            path=audio_path(id),
            text=batch.texts[row],
            speaker=batch.speakers[row],
            num_frames=length,
            prompt_seconds=int(batch.prompt_frames[row]) / self.codec.frame_rate,
            seconds=audio.numel() / self.codec.sample_rate,
            sample_rate=self.codec.sample_rate,
            seed=None if recorded else int(batch.seeds[row]),
            system=self.system,
            condition=self.condition,
            own_prompt=not prompt_id,
            prompt_id=prompt_id,
        )
        self._writer.write(line, audio.numpy())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the processes' rows together."""
        assert self._writer is not None
        self._writer.close()
        self._writer = None
        trainer.strategy.barrier("audio_writer_end")
        if trainer.is_global_zero:
            number = merge_parts(self.output_dir)
            rank_zero_info(f"{number} utterances of {self.system} ({self.condition}) in {self.output_dir}")
        trainer.strategy.barrier("audio_writer_merged")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Where there was nothing left to generate, and hence no start and end of prediction, do what those do.

        Raises:
            ValueError: What the folder holds was made with other weights or sampled otherwise.
        """
        if stage == "predict" and self._finished and trainer.is_global_zero:
            self._card(pl_module).compare(self.output_dir)
            merge_parts(self.output_dir)


def check_codec(mine: dict[str, Any], of_tokens: dict[str, Any]) -> None:
    """Refuse to decode tokens with another codec than they were made with.

    Args:
        mine: Identity of the codec at hand.
        of_tokens: Identity of the codec on the card of the token set.

    Raises:
        ValueError: They differ; the message names the first value that does, of both.
    """
    mine, of_tokens = (json.loads(json.dumps(identity)) for identity in (mine, of_tokens))
    for name in sorted({*mine, *of_tokens}):
        if mine.get(name) != of_tokens.get(name):
            raise ValueError(
                f"the token set was made by a codec with {name}={of_tokens.get(name)!r}, AudioWriter has one with "
                f"{name}={mine.get(name)!r}: give it the codec of the token set"
            )
