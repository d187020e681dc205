"""Synthetic tokens as batches: for tests, continuous integration and a first look without any data."""

import numpy as np
from lightning.pytorch import LightningDataModule

from datamodules.loaders import ResumableDataLoader
from datamodules.samplers import BucketDataset
from datamodules.synthetic_speech import SyntheticSpeech, SyntheticUtterances
from datamodules.token_card import TokenSetCard
from datamodules.token_windows import Prompts, TrainingWindows, WholeUtterances
from datamodules.tokens import MIN_TARGET_SECONDS, make_loader


class SyntheticTokenDataModule(LightningDataModule):
    """Batches of :class:`~modules.batches.TokenBatch` in an artificial language, made on the fly.

    The same windows, batches, seeds, prompts and resuming as :class:`~datamodules.tokens.TokenDataModule`. Training,
    validation and prediction have utterances of their own, by the same speakers.

    Args:
        num_quantizers: Levels Q.
        codebook_size: Entries C per level.
        semantic_vocab_size: Number of semantic tokens.
        num_speakers: Number of hidden speakers.
        noise: Probability that a code is replaced by a random one.
        num_train: Utterances to train on.
        num_validation: Utterances to validate on.
        num_predict: Utterances to test on and to generate.
        min_seconds: Shortest utterance and training window.
        max_seconds: Longest utterance and training window.
        frame_rate: Frames per second.
        batch_frames: Frames per batch and device, padding included.
        bucket_frames: Batches are padded to a multiple of this.
        prompt_seconds: Length of the acoustic prompt in validation, test and predict: the utterance's own beginning.
        seed: Of the language and of all draws.
        num_workers: Processes per device that make batches ahead.

    Attributes:
        language: The artificial language; its ``speaker_consistency`` and ``level_agreement`` judge generated codes.
        card: What the tokens mean.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        num_quantizers: int = 4,
        codebook_size: int = 64,
        semantic_vocab_size: int = 32,
        num_speakers: int = 8,
        noise: float = 0.0,
        num_train: int = 512,
        num_validation: int = 32,
        num_predict: int = 16,
        min_seconds: float = 1.0,
        max_seconds: float = 4.0,
        frame_rate: float = 50.0,
        batch_frames: int = 2000,
        bucket_frames: int = 48,
        prompt_seconds: float = 0.0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < min_seconds <= max_seconds:
            raise ValueError(f"min_seconds ({min_seconds}) must be positive and at most max_seconds ({max_seconds})")
        if not 0 <= prompt_seconds <= max_seconds - MIN_TARGET_SECONDS:
            raise ValueError(
                f"prompt_seconds is {prompt_seconds}; it must lie between 0 and {max_seconds - MIN_TARGET_SECONDS:g}, "
                "so that something is left to generate"
            )
        self.language = SyntheticSpeech(
            num_quantizers, codebook_size, semantic_vocab_size, num_speakers, noise, frame_rate, seed
        )
        self.batch_frames = batch_frames
        self.bucket_frames = bucket_frames
        self.seed = seed
        self.num_workers = num_workers
        shortest, longest = max(1, round(min_seconds * frame_rate)), round(max_seconds * frame_rate)
        prompt, least = round(prompt_seconds * frame_rate), round(MIN_TARGET_SECONDS * frame_rate)

        train = SyntheticUtterances(self.language, 0, num_train, shortest, longest)
        self._train = TrainingWindows(train, np.arange(num_train), min_frames=shortest, max_frames=longest, seed=seed)
        if prompt:  # utterances long enough to be prompted
            shortest = max(shortest, prompt + least)
        evaluation = []
        for first, count in ((num_train, num_validation), (num_train + num_validation, num_predict)):
            utterances = SyntheticUtterances(self.language, first, count, shortest, longest)
            prompts = Prompts(np.full(count, prompt, dtype=np.int64))
            evaluation.append(WholeUtterances(utterances, np.arange(count), prompts, seed=seed))
        self._validation, self._predict = evaluation

    @property
    def card(self) -> TokenSetCard:
        """What the tokens mean."""
        return self.language.card

    def train_dataloader(self) -> ResumableDataLoader:
        """Give this rank's training batches; fixed and in order where the trainer overfits on a few batches."""
        overfit = self.trainer is not None and bool(getattr(self.trainer, "overfit_batches", 0))
        return self._loader(self._train, shuffle=not overfit)

    def val_dataloader(self) -> ResumableDataLoader:
        """Give this rank's validation batches, longest first."""
        return self._loader(self._validation)

    def test_dataloader(self) -> ResumableDataLoader:
        """Give this rank's test batches, longest first."""
        return self._loader(self._predict)

    def predict_dataloader(self) -> ResumableDataLoader:
        """Give this rank's batches to generate, longest first."""
        return self._loader(self._predict)

    def _loader(self, dataset: BucketDataset, shuffle: bool = False) -> ResumableDataLoader:
        return make_loader(
            dataset,
            self.trainer,
            batch_frames=self.batch_frames,
            bucket_frames=self.bucket_frames,
            shuffle=shuffle,
            seed=self.seed,
            num_workers=self.num_workers,
        )
