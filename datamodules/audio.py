"""Speech for the stages that hear: tokenizing, fitting the semantic codebook, training a codec."""

from collections.abc import Collection, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler

from datamodules.audio_files import AudioReader, UnusableAudio, audio_seconds, part_count
from datamodules.audio_folder import AudioFolder as AudioFolder  # so that one module names all that a config needs
from datamodules.audio_hub import HuggingFaceAudio as HuggingFaceAudio
from datamodules.audio_manifest import AudioManifest as AudioManifest
from datamodules.audio_sources import AudioSource
from datamodules.audio_sources import AudioSources as AudioSources
from datamodules.audio_sources import SpeedPerturbation as SpeedPerturbation
from datamodules.evaluation_list import EvaluationList as EvaluationList
from modules.batches import AudioBatch, Rejection

_HEADER_THREADS = 8  # reading headers waits for the disk, and the disk serves several at once


class AudioDataModule(LightningDataModule):
    """Batches of whole utterances, or of the parts of long ones, mono and at one sample rate.

    What cannot be used travels as a ``Rejection`` in the batch and stops nothing. ``fit`` leaves out the held-out
    speakers and shuffles anew every epoch; ``validate`` reads the held-out speakers; ``test`` and ``predict`` read
    everything in order. Under DDP ``predict`` reads each utterance once.

    Args:
        source: Where the speech comes from.
        sample_rate: Of the batches, in Hz: what the models ask for.
        batch_size: Utterances per batch.
        num_workers: Processes that read.
        min_seconds: Shorter audio is rejected.
        max_seconds: Longer audio is rejected.
        segment_seconds: Cut longer recordings into consecutive parts of equal length, at most this long, with ids
            ``<id>_0000`` and so on. Each is read by seeking, so that memory does not grow with the recording. Parts
            have no text: nobody knows which words are theirs. The length of every file is read at the start.
        silence_threshold: Audio whose every sample is smaller is rejected.
        sort_by_length: Read long utterances first in ``predict``: batches of like lengths, and too large a batch fails
            at once. The length of every file is read at the start.
        validation_fraction: Share of the speakers to hold out, those whose names' hashes are the smallest: the choice
            does not depend on the order and changes little as a corpus grows. Utterances without a speaker count as
            speakers of their own, and so they do where there is one speaker only.
        limit: Use only the first utterances of the source.
        seed: Seed of the shuffling and of the held-out choice.
        shard: ``predict`` reads one of n shares of the utterances, chosen by a hash of their ids: ``0/4``, ``1/4``,
            ``2/4`` and ``3/4`` are four processes that need not know of each other, each under DDP if need be. They may
            be killed and started again one by one; to change n, end all of them first.

    Attributes:
        shard_index: Which share this is, from 0.
        num_shards: How many there are; 1 where ``shard`` is not set.
    """

    def __init__(
        self,
        source: AudioSource,
        sample_rate: int = 16000,
        batch_size: int = 8,
        num_workers: int = 0,
        min_seconds: float = 0.1,
        max_seconds: float = 60.0,
        segment_seconds: float | None = None,
        silence_threshold: float = 1e-4,
        sort_by_length: bool = False,
        validation_fraction: float = 0.0,
        limit: int | None = None,
        seed: int = 0,
        shard: str | None = None,
    ) -> None:
        super().__init__()
        self.shard_index, self.num_shards = _parse_shard(shard)
        if segment_seconds is not None and not min_seconds * 2 <= segment_seconds <= max_seconds:
            raise ValueError(
                f"segment_seconds is {segment_seconds:g}; it has to lie between twice min_seconds, "
                f"{2 * min_seconds:g}, and max_seconds, {max_seconds:g}"
            )
        if not 0 <= validation_fraction < 1:
            raise ValueError(f"validation_fraction is {validation_fraction:g}; it has to lie in [0, 1)")
        self.source = source
        self.reader = AudioReader(sample_rate, min_seconds, max_seconds, silence_threshold)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.segment_seconds = segment_seconds
        self.sort_by_length = sort_by_length
        self.validation_fraction = validation_fraction
        self.limit = limit
        self.seed = seed
        # A rank may have nothing to do when few utterances are left of an interrupted run.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._excluded: Set[str] = frozenset()
        self._ids: Sequence[str] = ()
        self._clips: _Clips | None = None

    def prepare_data(self) -> None:
        """Download what has to be, once per machine."""
        self.source.prepare()

    def setup(self, stage: str) -> None:
        """List the utterances and check that their ids are unique.

        Raises:
            ValueError: Two utterances have one id, both files are named; or a shard is to be trained or tested on.
        """
        if self.num_shards > 1 and stage != "predict":
            raise ValueError(f"shard is for predict; {stage} needs all of the data: leave it out")
        if self._clips is not None:
            return
        count = len(self.source) if self.limit is None else min(self.limit, len(self.source))
        self._ids = self.source.ids()[:count]
        mine = self._mine()
        seconds = np.zeros(count)
        if self.segment_seconds or self.sort_by_length:
            seconds[mine] = self._read_headers(np.flatnonzero(mine))
        parts = np.ones(count, dtype=np.int64)
        if self.segment_seconds:
            parts = np.array([part_count(length, self.segment_seconds) for length in seconds], dtype=np.int64)
        self._check_ids(parts)
        utterances = np.repeat(np.arange(count), parts)
        first = np.repeat(np.cumsum(parts) - parts, parts)
        self._clips = _Clips(
            utterances, np.arange(len(utterances)) - first, parts[utterances], (seconds / parts)[utterances]
        ).select(mine[utterances])

    def exclude(self, ids: Collection[str]) -> None:
        """Leave utterances, or parts, out of the loaders that are made from now on.

        Args:
            ids: Those to leave out, such as those a token set has already.
        """
        self._excluded = ids if isinstance(ids, (set, frozenset)) else frozenset(ids)

    def train_dataloader(self) -> DataLoader:
        """Read what is not held out, in another order every epoch."""
        clips = self._listed()
        dataset = self._dataset(clips.select(~self._held_out()[clips.utterances]))
        generator = torch.Generator().manual_seed(self.seed)
        return self._loader(dataset, RandomSampler(dataset, generator=generator) if len(dataset) else None)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Read the held-out speakers; there is nothing to read if ``validation_fraction`` is 0."""
        held_out = self._held_out()
        clips = self._listed()
        return self._loader(self._dataset(clips.select(held_out[clips.utterances]))) if held_out.any() else []

    def test_dataloader(self) -> DataLoader:
        """Read everything."""
        return self._loader(self._dataset(self._listed()))

    def predict_dataloader(self) -> DataLoader:
        """Read everything that is not excluded, each once over all ranks."""
        clips = self._listed()
        if self.sort_by_length:
            clips = clips.select(np.argsort(-clips.seconds, kind="stable"))
        dataset = self._dataset(clips)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self._loader(dataset, UnrepeatedSampler(dataset, rank, world_size))

    def _listed(self) -> "_Clips":
        if self._clips is None:
            self.setup("predict")
        assert self._clips is not None
        return self._clips

    def _dataset(self, clips: "_Clips") -> "_AudioDataset":
        if self._excluded:
            keep = [clips.id(index, self._ids) not in self._excluded for index in range(len(clips.utterances))]
            clips = clips.select(np.array(keep, dtype=bool))
        return _AudioDataset(self.source, self.reader, clips)

    def _loader(self, dataset: "_AudioDataset", sampler: torch.utils.data.Sampler | None = None) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=partial(_collate, sample_rate=self.reader.sample_rate),
        )

    def _mine(self) -> npt.NDArray[np.bool_]:
        """Mark the utterances of this shard, ``[len(ids)]``; which they are does not depend on the others."""
        if self.num_shards == 1:
            return np.ones(len(self._ids), dtype=bool)
        hashes = (xxhash.xxh64_intdigest(id.encode()) for id in self._ids)
        return np.array([value % self.num_shards == self.shard_index for value in hashes], dtype=bool)

    def _read_headers(self, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        rank_zero_info(f"Reading the lengths of {len(indices)} recordings")
        with ThreadPoolExecutor(_HEADER_THREADS) as pool:
            return np.fromiter(pool.map(self._seconds, indices), dtype=np.float64, count=len(indices))

    def _seconds(self, index: int) -> float:
        utterance = self.source[int(index)]
        try:
            return audio_seconds(utterance.file) / utterance.speed
        except UnusableAudio:
            return 0.0  # reading it will say why

    def _check_ids(self, parts: npt.NDArray[np.int64]) -> None:
        first: dict[str, int] = {}
        for index, id in enumerate(self._ids):
            if (other := first.setdefault(id, index)) != index:
                one, another = self.source[other].path, self.source[index].path
                if one == another:
                    raise ValueError(f"{one} is listed twice; delete one of the lines, or give each an id of its own")
                raise ValueError(
                    f"{one} and {another} have the same id {id!r}; "
                    "rename one, or list them in a manifest with a column of ids"
                )
        for id in self._ids:
            base, _, part = id.rpartition("_")
            if len(part) >= 4 and part.isdecimal() and base in first and int(part) < parts[first[base]] > 1:
                raise ValueError(
                    f"{self.source[first[id]].path} and a part of {self.source[first[base]].path} have the same id "
                    f"{id!r}; rename one"
                )

    def _held_out(self) -> npt.NDArray[np.bool_]:
        """Mark the utterances of the source that ``fit`` does not see."""
        if not self.validation_fraction:
            return np.zeros(len(self._ids), dtype=bool)
        names = [speaker or f"\0{id}" for speaker, id in zip(self.source.speakers(), self._ids, strict=False)]
        if len(set(names)) == 1:
            names = list(self._ids)
        order = sorted(set(names), key=lambda name: xxhash.xxh64_intdigest(name.encode(), seed=self.seed))
        # At least one, and not all.
        count = min(max(1, round(self.validation_fraction * len(order))), len(order) - 1)
        chosen = set(order[:count])
        return np.array([name in chosen for name in names], dtype=bool)


class UnrepeatedSampler(DistributedSampler):
    """Every ``world_size``-th index, each exactly once over all ranks.

    Lightning's own sampler for ``predict`` does the same, but stops where there are fewer indices than ranks: that is
    how the rest of an interrupted run may look. It leaves samplers of this type in place.

    Args:
        dataset: What is indexed.
        rank: Which process this is.
        world_size: How many there are.
    """

    def __init__(self, dataset: "_AudioDataset", rank: int, world_size: int) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)
        self._indices = range(rank, len(dataset), world_size)

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices."""
        return iter(self._indices)

    def __len__(self) -> int:
        """Count this rank's indices."""
        return len(self._indices)


class _Clips(NamedTuple):
    """What is read: parts of utterances; arrays, for a corpus has millions and workers share them."""

    utterances: npt.NDArray[np.int64]  # [K] index in the source
    parts: npt.NDArray[np.int64]  # [K]
    num_parts: npt.NDArray[np.int64]  # [K] parts of this utterance
    seconds: npt.NDArray[np.float64]  # [K] 0 where not read

    def select(self, which: np.ndarray) -> "_Clips":
        return _Clips(*(column[which] for column in self))

    def id(self, index: int, ids: Sequence[str]) -> str:
        return _clip_id(ids[self.utterances[index]], int(self.parts[index]), int(self.num_parts[index]))


class _Clip(NamedTuple):
    id: str
    audio: Tensor  # [N]
    speaker: str
    text: str
    path: str


class _AudioDataset(Dataset):
    def __init__(self, source: AudioSource, reader: AudioReader, clips: _Clips) -> None:
        self.source = source
        self.reader = reader
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips.utterances)

    def __getitem__(self, index: int) -> _Clip | Rejection:
        utterance = self.source[int(self.clips.utterances[index])]
        part, num_parts = int(self.clips.parts[index]), int(self.clips.num_parts[index])
        id = _clip_id(utterance.id, part, num_parts)
        try:
            if utterance.problem:
                raise UnusableAudio(utterance.problem)
            audio = self.reader(utterance.file, part, num_parts, utterance.speed)
        except UnusableAudio as error:
            return Rejection(id, utterance.path, str(error))
        return _Clip(id, audio, utterance.speaker, utterance.text if num_parts == 1 else "", utterance.path)


def _parse_shard(shard: str | None) -> tuple[int, int]:
    if shard is None:
        return 0, 1
    index, slash, number = shard.partition("/")
    if not (slash and index.isdecimal() and number.isdecimal() and int(index) < int(number)):
        raise ValueError(f"shard is {shard!r}; give which and of how many, from 0/4 to 3/4")
    return int(index), int(number)


def _clip_id(id: str, part: int, num_parts: int) -> str:
    return id if num_parts == 1 else f"{id}_{part:04d}"


def _collate(items: list[_Clip | Rejection], sample_rate: int) -> AudioBatch:
    clips = [item for item in items if isinstance(item, _Clip)]
    return AudioBatch(
        ids=[clip.id for clip in clips],
        audio=[clip.audio for clip in clips],
        sample_rate=sample_rate,
        speakers=[clip.speaker for clip in clips],
        texts=[clip.text for clip in clips],
        rejected=[item for item in items if isinstance(item, Rejection)],
        paths=[clip.path for clip in clips],
    )
