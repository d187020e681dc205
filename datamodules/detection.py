"""Recordings and what systems made of them, split by speaker: for classifiers that tell them apart."""

from collections.abc import Sequence

import torch
import xxhash
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DataLoader, DistributedSampler

from datamodules.audio_sources import AudioSource
from datamodules.generated import GeneratedAudioDataModule, Rendering, RenderingDataset, collate


class DetectionDataModule(GeneratedAudioDataModule):
    """As :class:`~datamodules.generated.GeneratedAudioDataModule`, with speakers of their own for every stage.

    Which speaker goes where depends on the hash of the name alone: not on the order, and not on the systems. An
    utterance without a speaker counts as a speaker of its own.

    Args:
        systems: Folders of audio sets as ``AudioWriter`` makes them.
        reference: The recordings, found by the ids of the audio sets.
        sample_rate: What everything is resampled to, in Hz.
        batch_size: Items per batch.
        paired: Whether to use only what all systems rendered, so that no text tells the classes apart.
        limit: At most this many utterances, the first by id; ``None`` for all.
        reference_prompt_seconds: How much at the beginning of recordings and reconstructions is left out, as the
            prompt of a system is.
        num_workers: Processes per device that read ahead.
        validation_fraction: Share of the speakers for ``validate``; at least one.
        test_fraction: Share of the speakers for ``test``; at least one.
        seed: Of the shuffling and of the choice.
    """

    def __init__(
        self,
        systems: dict[str, str],
        reference: AudioSource,
        sample_rate: int = 16_000,
        batch_size: int = 32,
        paired: bool = True,
        limit: int | None = None,
        reference_prompt_seconds: float = 3.0,
        num_workers: int = 0,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(
            systems, reference, sample_rate, batch_size, paired, limit, reference_prompt_seconds, num_workers
        )
        if min(validation_fraction, test_fraction) < 0 or validation_fraction + test_fraction >= 1:
            raise ValueError(f"shares of {validation_fraction:g} and {test_fraction:g} leave no speakers to train on")
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction
        self.seed = seed
        self.speakers: dict[str, list[str]] = {}

    def setup(self, stage: str) -> None:
        """Find out what there is, and give every stage its speakers.

        Raises:
            FileNotFoundError: A folder is no audio set.
            ValueError: Nothing is left, or there are less than three speakers.
        """
        super().setup(stage)
        names = {_speaker(rendering) for rendering in self.renderings}
        if len(names) < 3:
            raise ValueError(f"there are {len(names)} speakers, and three at least are needed: one for every stage")
        order = sorted(names, key=lambda name: xxhash.xxh64_intdigest(name.encode(), seed=self.seed))
        test = max(1, round(self.test_fraction * len(order)))
        validation = max(1, min(round(self.validation_fraction * len(order)), len(order) - test - 1))
        test = min(test, len(order) - validation - 1)
        self.speakers = {
            "test": order[:test],
            "val": order[test : test + validation],
            "train": order[test + validation :],
        }

    def train_dataloader(self) -> DataLoader:
        """Read the speakers to train on, in another order every epoch."""
        dataset = self._dataset("train")
        if self.trainer is not None and self.trainer.world_size > 1:
            sampler = DistributedSampler(dataset, self.trainer.world_size, self.trainer.global_rank, seed=self.seed)
            return self._loader(dataset, sampler)
        generator = torch.Generator().manual_seed(self.seed)
        return self._loader(dataset, torch.utils.data.RandomSampler(dataset, generator=generator))

    def val_dataloader(self) -> DataLoader:
        """Read the speakers to validate with."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader:
        """Read the speakers to test with."""
        return self._in_order("test")

    def _dataset(self, stage: str) -> RenderingDataset:
        chosen = set(self.speakers[stage])
        renderings: Sequence[Rendering] = [r for r in self.renderings if _speaker(r) in chosen]
        return RenderingDataset(list(renderings), self.sample_rate, self.reference_prompt_seconds)

    def _in_order(self, stage: str) -> DataLoader:
        dataset = self._dataset(stage)
        world_size = self.trainer.world_size if self.trainer is not None else 1
        rank = self.trainer.global_rank if self.trainer is not None else 0
        return self._loader(dataset, UnrepeatedDistributedSampler(dataset, world_size, rank, shuffle=False))

    def _loader(self, dataset: RenderingDataset, sampler: torch.utils.data.Sampler) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
        )


def _speaker(rendering: Rendering) -> str:
    return rendering.utterance.speaker or f"\0{rendering.utterance.id}"
