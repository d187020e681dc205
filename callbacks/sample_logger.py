"""Lets one hear and see, during training, what the model has learnt so far."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib.figure import Figure
from torch import Tensor

from datamodules.audio_files import AudioReader, audio_seconds, part_count
from datamodules.audio_sources import AudioSource
from modules.batches import SoftTokens, TokenBatch
from modules.codec.codec import AudioCodec
from modules.evaluation.mel_distance import MelDistance

_DYNAMIC_RANGE = 80.0  # dB shown


class AudioSampleLogger(Callback):
    """Puts audio and mel spectrograms of a few validation utterances into TensorBoard.

    At the first validation and then at the first one after every ``every_n_steps`` optimizer steps, for the same
    utterances with the same seeds: the original (where ``originals`` are given), its reconstruction by the codec, and
    what the model makes of its semantic tokens without and with a prompt. Everything happens while a validation batch
    is at hand, when averaged weights (EMA) are in place. Only the first rank works; it waits for no other. Training is
    not affected: seeds come from the batch, and random states and modes are as before.

    Args:
        codec: The codec that made the tokens. It is no part of the model's state; it lies on the model's device only
            while it works.
        every_n_steps: Optimizer steps from one time to the next.
        num_samples: Utterances, the first ones of validation.
        ids: Utterances by name instead. With several ranks, those among them that the first rank validates.
        max_seconds: Longer utterances are cut.
        prompt_seconds: Length of the prompt, at most half of the utterance.
        originals: Where the recordings are, under the ids that the token set has: the source it was made from. Where
            they cannot be had, a warning says so and training goes on without.
        segment_seconds: What the recordings were cut into for the token set, as its datamodule was told; None if they
            were not.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        codec: AudioCodec,
        every_n_steps: int = 5000,
        num_samples: int = 4,
        ids: list[str] | None = None,
        max_seconds: float = 10.0,
        prompt_seconds: float = 3.0,
        originals: AudioSource | None = None,
        segment_seconds: float | None = None,
    ) -> None:
        if min(every_n_steps, num_samples) < 1 or max_seconds <= 0 or prompt_seconds < 0:
            raise ValueError(
                f"every_n_steps ({every_n_steps}) and num_samples ({num_samples}) must be at least 1, max_seconds "
                f"({max_seconds}) positive and prompt_seconds ({prompt_seconds}) not negative"
            )
        self.codec = codec
        self.every_n_steps = every_n_steps
        self.num_samples = num_samples
        self.ids = ids
        self.max_seconds = max_seconds
        self.prompt_seconds = prompt_seconds
        self.originals = originals
        self.segment_seconds = segment_seconds
        self._next_step = 0
        self._wanted = 0
        self._missing: set[str] = set()
        self._given: dict[str, dict[str, np.ndarray]] = {}  # per id, what no training changes

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make sure that the parts fit.

        Raises:
            TypeError: The model cannot generate.
            ValueError: The codec is not that of the token set; both values are named.
        """
        if stage != "fit":
            return
        if not hasattr(pl_module, "generate"):
            raise TypeError(
                f"AudioSampleLogger needs a model with generate(batch); {type(pl_module).__name__} has none"
            )
        card = getattr(trainer.datamodule, "card", None)  # ty: ignore[missing-attribute]
        mine, theirs = (self.codec.identity(), card.codec) if card is not None else ({}, {})
        for name in sorted({*mine, *theirs}):
            if mine.get(name) != theirs.get(name):
                raise ValueError(
                    f"AudioSampleLogger has a codec with {name}={mine.get(name)!r}, the token set was made by one with "
                    f"{name}={theirs.get(name)!r}: give it the codec of the token set"
                )
        if _tensorboard(trainer) is None:
            rank_zero_warn("AudioSampleLogger logs nothing: the trainer has no TensorBoardLogger")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look for utterances."""
        self._wanted = self.num_samples
        self._missing = set(self.ids or ())

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: TokenBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Generate and log what the batch holds of the utterances, if it is time."""
        if not self._is_due(trainer):
            return
        if self.ids is None:
            rows = list(range(min(self._wanted, len(batch.ids))))
            self._wanted -= len(rows)
        else:
            rows = [row for row, name in enumerate(batch.ids) if name in self._missing]
            self._missing.difference_update(batch.ids)
        if rows:
            with isolate_rng(), torch.inference_mode(), trainer.precision_plugin.val_step_context():
                self._log(trainer, pl_module, self._take(batch, rows))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix when the next time is."""
        if not self._is_due(trainer):
            return
        self._next_step = trainer.global_step + self.every_n_steps
        if self._missing:
            rank_zero_warn(f"AudioSampleLogger found no {', '.join(sorted(self._missing))} in validation")

    def _is_due(self, trainer: Trainer) -> bool:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        due = fitting and trainer.global_step >= self._next_step
        return due and trainer.is_global_zero and _tensorboard(trainer) is not None

    def _take(self, batch: TokenBatch, rows: Sequence[int]) -> TokenBatch:
        index = torch.tensor(rows, device=batch.lengths.device)
        lengths = batch.lengths[index].clamp(max=max(1, round(self.max_seconds * self.codec.frame_rate)))
        width = int(lengths.max())
        return TokenBatch(
            ids=[batch.ids[row] for row in rows],
            semantic=batch.semantic[index, :width],
            codes=batch.codes[index, :, :width],
            lengths=lengths,
            prompt_frames=torch.zeros_like(lengths),
            seeds=batch.seeds[index],
            speakers=[batch.speakers[row] for row in rows],
            texts=[batch.texts[row] for row in rows],
            soft_semantic=batch.soft_semantic and SoftTokens(*(x[index, :width] for x in batch.soft_semantic)),
        )

    def _log(self, trainer: Trainer, pl_module: LightningModule, batch: TokenBatch) -> None:
        logger = _tensorboard(trainer)
        assert logger is not None
        prompt = (batch.lengths // 2).clamp(max=round(self.prompt_seconds * self.codec.frame_rate))
        self._move_codec(pl_module.device)
        try:
            made: list[dict[str, np.ndarray]] = [{} for _ in batch.ids]
            for condition, frames in (("unprompted", torch.zeros_like(prompt)), ("prompted", prompt)):
                generated = pl_module.generate(batch._replace(prompt_frames=frames))  # ty: ignore[not-callable]
                for row, codes in enumerate(generated.codes):
                    made[row][condition] = self._decode(codes, int(batch.lengths[row]))
            new = [row for row, name in enumerate(batch.ids) if name not in self._given]
            originals = self._read_originals([batch.ids[row] for row in new])
            for row in new:
                name, length = batch.ids[row], int(batch.lengths[row])
                self._given[name] = {}
                if name in originals:
                    self._given[name]["original"] = originals[name][: length * self.codec.hop_length]
                self._given[name]["reconstruction"] = self._decode(batch.codes[row], length)
        finally:
            self._move_codec(torch.device("cpu"))
        for row, name in enumerate(batch.ids):
            for kind, audio in ((self._given[name] if row in new else {}) | made[row]).items():
                tag = f"samples/{name}/{kind}"
                logger.experiment.add_audio(tag, audio, trainer.global_step, self.codec.sample_rate)
            figure = draw_mels(
                self._given[name] | made[row], self.codec.sample_rate, int(prompt[row]) / self.codec.frame_rate
            )
            logger.experiment.add_figure(f"samples/{name}", figure, trainer.global_step, close=False)

    def _read_originals(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Give the recordings that can be had, ``[N]`` each, by id."""
        if self.originals is None or not names:
            return {}
        try:
            places = {id: index for index, id in enumerate(self.originals.ids())}
        except (OSError, ValueError, RuntimeError) as error:
            rank_zero_warn(f"AudioSampleLogger goes on without the originals ({error})")
            self.originals = None
            return {}
        found = {}
        for name in names:
            try:
                found[name] = self._read_original(self.originals, places, name)
            except (OSError, ValueError) as error:
                rank_zero_warn(f"AudioSampleLogger shows no original of {name} ({error})")
        return found

    def _read_original(self, source: AudioSource, places: Mapping[str, int], name: str) -> np.ndarray:
        recording, _, number = name.rpartition("_")
        if name in places:
            file, part, num_parts = source[places[name]].file, 0, 1
        elif self.segment_seconds is not None and recording in places and number.isdecimal():
            file = source[places[recording]].file
            part, num_parts = int(number), part_count(audio_seconds(file), self.segment_seconds)
        else:
            raise ValueError("no such id")
        return AudioReader(self.codec.sample_rate, max_seconds=float("inf"))(file, part, num_parts).numpy()

    def _move_codec(self, device: torch.device) -> None:
        # Weights moved in inference mode would stay unusable for anything else.
        with torch.inference_mode(False):
            self.codec.to(device).eval()

    def _decode(self, codes: Tensor, length: int) -> np.ndarray:
        # Alone and without padding, so that the sound does not depend on the other utterances.
        return self.codec.decode(codes[None, :, :length])[0].float().clamp(-1, 1).cpu().numpy()


def draw_mels(sounds: dict[str, np.ndarray], sample_rate: int, prompt_seconds: float) -> Figure:
    """Draw mel spectrograms one above the other, on one scale.

    Args:
        sounds: Mono audio ``[N]`` by title.
        sample_rate: Hz.
        prompt_seconds: Where a dashed line marks the end of the prompt, in the picture titled ``prompted``.

    Returns:
        The figure, which belongs to no window.
    """
    spectrogram = MelDistance(sample_rate).spectrogram
    mels = {title: spectrogram(torch.from_numpy(audio)).numpy() for title, audio in sounds.items()}
    top = max(mel.max() for mel in mels.values())
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 1.7 * len(mels)), layout="constrained")
        axes = figure.subplots(len(mels), sharex=True, squeeze=False)[:, 0]
        for panel, (title, mel) in zip(axes, mels.items(), strict=True):
            seconds = len(sounds[title]) / sample_rate
            scale = {"vmin": top - _DYNAMIC_RANGE, "vmax": top, "extent": (0, seconds, 0, len(mel))}
            panel.imshow(mel, origin="lower", aspect="auto", cmap="magma", interpolation="nearest", **scale)
            panel.set_title(title, loc="left", fontsize=9)
            panel.set_ylabel("mel band")
            if title == "prompted" and prompt_seconds:
                panel.axvline(prompt_seconds, color="white", linestyle="--", linewidth=1.2)
        axes[-1].set_xlabel("seconds")
    return figure


def _tensorboard(trainer: Trainer) -> TensorBoardLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
