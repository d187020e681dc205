"""Random crops of speech, for training codecs and other models that see short stretches of audio."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning as L
import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.audio_files import UnusableAudio, audio_seconds
from datamodules.audio_manifest import AudioManifest, read_manifest

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})


class Clip(NamedTuple):
    """One recording of the corpus."""

    path: Path
    speaker: str


def read_clips(source: Path, allow_outside: bool = False) -> list[Clip]:
    """List the recordings of a manifest or of a folder.

    Args:
        source: A ``.csv`` or ``.jsonl`` manifest with ``path`` (relative to the manifest) and, optionally,
            ``speaker``; or a folder, searched at all depths, where a file's folder names its speaker.
        allow_outside: Accept absolute paths and paths that lead out of the manifest's folder.

    Returns:
        The recordings, in a fixed order.

    Raises:
        ValueError: If nothing is found, or the manifest is of another kind or lacks ``path``.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
        clips = [Clip(path, path.parent.name) for path in files]
    elif source.suffix in {".csv", ".jsonl"}:
        first = next(read_manifest(source), (0, {}))[1]
        speaker = "speaker" if "speaker" in first else None
        manifest = AudioManifest(str(source), text_column=None, speaker_column=speaker, allow_outside=allow_outside)
        clips = [Clip(Path(row.path), row.speaker) for row in manifest]
    else:
        raise ValueError(f"{source}: neither a folder nor a .csv or .jsonl manifest")
    if not clips:
        raise ValueError(f"{source}: no audio found; looked for {', '.join(sorted(AUDIO_SUFFIXES))}")
    return clips


def is_held_out(speaker: str, fraction: float) -> bool:
    """Tell whether a speaker belongs to the held-out fraction: a property of the name alone, the same in every run.

    Args:
        speaker: The speaker's name.
        fraction: Share of speakers to hold out.

    Returns:
        True for about ``fraction`` of all names.
    """
    digest = hashlib.sha256(speaker.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction


class CropDataset(Dataset[Tensor]):
    """Crops of fixed length; item i is a function of (seed, i) alone.

    Recordings are drawn with a probability proportional to their length, as far as the file headers tell, so that
    every second of the corpus is equally likely. A crop that is longer than its recording is filled up with silence,
    or with more of the same speaker.

    Args:
        clips: The recordings.
        sample_rate: Of the crops, in Hz; recordings of other rates are resampled.
        crop_samples: Samples per crop.
        seed: Start of the random stream.
        gain_db: Lowest and highest gain, in dB.
        speed: Lowest and highest speed; pitch changes along.
        cache: Keep decoded recordings in memory as 16-bit samples.
        join: Go on with the speaker's next recordings where a crop is longer than its own, before there is silence.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        crop_samples: int,
        seed: int = 0,
        gain_db: tuple[float, float] = (0.0, 0.0),
        speed: tuple[float, float] = (1.0, 1.0),
        cache: bool = True,
        join: bool = False,
    ) -> None:
        self.clips, self.sample_rate, self.crop_samples, self.seed = clips, sample_rate, crop_samples, seed
        self.gain_db, self.speed = gain_db, speed
        self._cache: dict[int, NDArray[np.int16]] | None = {} if cache else None
        self._of_speaker: dict[str, list[int]] = defaultdict(list)
        for index, clip in enumerate(clips):
            if join and clip.speaker:  # who is not named may be anybody
                self._of_speaker[clip.speaker].append(index)
        seconds = np.array([_duration(clip.path) for clip in clips])
        self._edges = np.cumsum(seconds) / seconds.sum()

    def __getitem__(self, index: int) -> Tensor:
        """Return crop ``index``, float32, ``[crop_samples]``."""
        rng = np.random.default_rng((self.seed, index))
        clip = min(int(np.searchsorted(self._edges, rng.random())), len(self.clips) - 1)
        speed, gain, position = rng.uniform(*self.speed), rng.uniform(*self.gain_db), rng.random()
        wanted = round(self.crop_samples * speed)
        audio = self._read_on(clip, wanted)
        start = int(position * max(len(audio) - wanted + 1, 1))
        crop = audio[start : start + wanted].astype(np.float32) / 32768
        if wanted != self.crop_samples:
            crop = soxr.resample(crop, wanted, self.crop_samples, quality="HQ")
        crop = crop[: self.crop_samples] * 10 ** (gain / 20)
        peak = np.abs(crop).max(initial=0.0)
        return torch.from_numpy(np.pad(crop / max(peak, 1.0), (0, self.crop_samples - len(crop))).astype(np.float32))

    def _read_on(self, clip: int, wanted: int) -> NDArray[np.int16]:
        """Return a recording and, where it is shorter than what is wanted, those that follow it."""
        audio = self._read(clip)
        same = self._of_speaker.get(self.clips[clip].speaker, [clip])
        first = same.index(clip)
        for following in same[first + 1 :] + same[:first]:
            if len(audio) >= wanted:
                break
            audio = np.concatenate([audio, self._read(following)])
        return audio

    def _read(self, clip: int) -> NDArray[np.int16]:
        if self._cache is not None and clip in self._cache:
            return self._cache[clip]
        path = self.clips[clip].path
        try:
            audio, rate = soundfile.read(path, dtype="int16", always_2d=True)
        except (RuntimeError, OSError, ValueError, MemoryError) as error:
            raise ValueError(f"{path} cannot be decoded ({error}); leave it out, or replace it") from error
        # Lossy formats estimate their length; a real loss is longer than that.
        if (there := len(audio) / rate) < (told := _duration(path)) - 0.1:
            raise ValueError(f"{path} is cut off: {there:.2f} of {told:.2f} s are there; leave it out, or replace it")
        samples: NDArray[np.int16] = audio.mean(axis=1, dtype=np.float32).astype(np.int16)
        if rate != self.sample_rate:
            samples = np.asarray(soxr.resample(samples, rate, self.sample_rate, quality="HQ"), dtype=np.int16)
        if self._cache is not None:
            self._cache[clip] = samples
        return samples


def _duration(path: Path) -> float:
    try:
        return audio_seconds(path)
    except UnusableAudio as error:
        raise ValueError(f"{path} {error}; leave it out, or replace it") from None


class CropSampler(Sampler[int]):
    """Indices of one epoch's crops for one rank: new ones every epoch, none shared between ranks.

    Args:
        crops_per_epoch: Crops of all ranks together; what does not divide evenly is left out.
        rank: Of this process.
        world_size: Number of processes.
        same: Give every epoch the crops of the first.
    """

    def __init__(self, crops_per_epoch: int, rank: int = 0, world_size: int = 1, same: bool = False) -> None:
        self.crops_per_epoch, self.rank, self.world_size, self.same = crops_per_epoch, rank, world_size, same
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this, for validation too."""
        self.epoch = 0 if self.same else epoch

    def __len__(self) -> int:
        return self.crops_per_epoch // self.world_size

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.crops_per_epoch + self.rank
        return iter(range(start, start + len(self) * self.world_size, self.world_size))


class AudioCropDataModule(L.LightningDataModule):
    """Batches of random crops ``[B, N]`` in [-1, 1] for training, fixed crops of unheard speakers for validation.

    Train with ``use_distributed_sampler: false``: the crops are divided among the ranks here.

    Args:
        source: Manifest or folder, see :func:`read_clips`.
        sample_rate: In Hz.
        crop_seconds: Length of a training crop.
        batch_size: Crops per batch and rank.
        crops_per_epoch: Training crops per epoch, all ranks together.
        validation_seconds: Length of a validation crop.
        validation_crops: Number of validation crops.
        held_out_fraction: Share of the speakers that is kept for validation, see :func:`is_held_out`.
        held_out_speakers: Further speakers to keep for validation, by name.
        gain_db: Lowest and highest gain of training crops, in dB.
        speed: Lowest and highest speed of training crops.
        cache: Keep decoded recordings in memory as 16-bit samples (115 MB per hour at 16 kHz).
        num_workers: Loader processes; with ``cache`` each keeps a cache of its own.
        seed: Start of the random stream.
        allow_outside: Accept absolute paths in a manifest, and paths that lead out of its folder.
        validation_source: Manifest or folder to validate on, where the speakers were divided already; ``source`` is
            trained on whole then, and its held-out speakers are not asked for.
        join: Fill up crops that are longer than their recording with the speaker's next recordings, not with silence.
    """

    def __init__(
        self,
        source: str,
        sample_rate: int = 16000,
        crop_seconds: float = 1.0,
        batch_size: int = 16,
        crops_per_epoch: int = 16000,
        validation_seconds: float = 3.0,
        validation_crops: int = 64,
        held_out_fraction: float = 0.1,
        held_out_speakers: list[str] | None = None,
        gain_db: tuple[float, float] = (0.0, 0.0),
        speed: tuple[float, float] = (1.0, 1.0),
        cache: bool = True,
        num_workers: int = 0,
        seed: int = 0,
        allow_outside: bool = False,
        validation_source: str | None = None,
        join: bool = False,
    ) -> None:
        super().__init__()
        self.allow_outside, self.validation_source = allow_outside, validation_source
        self.source, self.sample_rate, self.batch_size, self.crops_per_epoch = (
            source,
            sample_rate,
            batch_size,
            crops_per_epoch,
        )
        self.crop_samples = round(crop_seconds * sample_rate)
        self.validation_samples, self.validation_crops = round(validation_seconds * sample_rate), validation_crops
        self.held_out_fraction, self.held_out_speakers = held_out_fraction, frozenset(held_out_speakers or ())
        self.gain_db, self.speed, self.cache, self.num_workers, self.seed = gain_db, speed, cache, num_workers, seed
        self.join = join

    def setup(self, stage: str) -> None:
        """Read the list of recordings and divide the speakers.

        Raises:
            ValueError: If nothing is left to train or to validate on, or somebody is in both.
        """
        training, validation = self._divide(read_clips(Path(self.source).expanduser(), self.allow_outside))
        self.training = CropDataset(
            training, self.sample_rate, self.crop_samples, self.seed, self.gain_db, self.speed, self.cache, self.join
        )
        self.validation = CropDataset(
            validation, self.sample_rate, self.validation_samples, self.seed, cache=self.cache, join=self.join
        )

    def _divide(self, clips: list[Clip]) -> tuple[list[Clip], list[Clip]]:
        """Return the recordings to train on and those to validate on."""
        if self.validation_source is not None:
            unheard = read_clips(Path(self.validation_source).expanduser(), self.allow_outside)
            if both := sorted({clip.speaker for clip in clips if clip.speaker} & {clip.speaker for clip in unheard}):
                raise ValueError(
                    f"speaker {both[0]!r} ({len(both)} in all) is in {self.source} and in {self.validation_source};"
                    " keep each speaker to one of them"
                )
            return clips, unheard
        held_out = [
            clip
            for clip in clips
            if clip.speaker in self.held_out_speakers or is_held_out(clip.speaker, self.held_out_fraction)
        ]
        kept = set(held_out)
        training = [clip for clip in clips if clip not in kept]
        if not training or not held_out:
            raise ValueError(
                f"{self.source}: {len(training)} recordings to train on, {len(held_out)} to validate"
                " on; change held_out_fraction, name held_out_speakers or give a validation_source"
            )
        return training, held_out

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return batches of random crops."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            self.training,
            self.batch_size,
            sampler=CropSampler(self.crops_per_epoch, rank, world_size),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Return the same crops every time."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            self.validation,
            self.batch_size,
            sampler=CropSampler(self.validation_crops, rank, world_size, same=True),
            num_workers=self.num_workers,
        )
