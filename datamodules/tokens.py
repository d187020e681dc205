"""Token sets as batches for training, validation and generation."""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.evaluation_list import read_pairs
from datamodules.loaders import ResumableDataLoader
from datamodules.samplers import BucketDataset, TokenBucketBatchSampler
from datamodules.selection import Selection, UtteranceFilter, as_list, find_listed, find_partners, held_out
from datamodules.token_card import TokenSetCard
from datamodules.token_set import open_token_set, split_names
from datamodules.token_store import TokenStore, load_common_card
from datamodules.token_windows import Prompts, TrainingWindows, WholeUtterances

MIN_TARGET_SECONDS = 1.0  # what must be left to generate after the prompt


class TokenDataModule(LightningDataModule):
    """Batches of :class:`~modules.batches.TokenBatch` from token sets on disk.

    Training draws one random window per utterance and epoch, U(0, ``max_seconds``) long with a floor of
    ``min_seconds``, in length-bucketed batches of ``batch_frames`` frames per device. It continues exactly where a
    checkpoint was written, in the middle of an epoch too, and does not depend on the number of workers. The sampler
    shards by itself, whatever ``trainer.use_distributed_sampler`` says.

    Validation takes utterances from their beginning up to ``max_seconds``; test and predict take whole utterances.
    Their rows and seeds are the same every time.

    Args:
        token_sets: Folder of a token set, or several with equal cards.
        batch_frames: Frames per batch and device, padding included; a longer utterance is a batch by itself.
        max_seconds: Longest window, in training and validation.
        min_seconds: Shortest window; shorter utterances are left out of training and validation.
        seed: Of windows, order and row seeds.
        num_workers: Processes per device that read ahead.
        train_split: Split, or splits, to train on.
        validation_split: Split to validate on. Where no set has it, speakers are held out of the training split
            instead; ``None`` always does that.
        validation_speakers: Fraction of the speakers to hold out; 0 holds out none.
        predict: Which utterances predict and test work on.
        prompt_seconds: Length of the acoustic prompt in validation, test and predict: 3 in the paper, 0 for none. Test
            and predict leave out utterances that are not at least 1 s longer; validation gives them no prompt.
            ``None``: the whole recordings that ``prompt_list`` names; none in validation.
        prompt_source: ``same``: the utterance's own beginning is the prompt. ``other`` (test and predict only): the
            beginning of another utterance of the speaker is put before the utterance. ``list`` (test and predict only):
            the utterance that ``prompt_list`` names, or its beginning.
        prompt_list: A list of Seed-TTS or LibriSpeech-PC, see :class:`datamodules.evaluation_list.EvaluationList`: with
            ``list``, its utterances are generated, and no others.
        bucket_frames: Batches are padded to a multiple of this: smaller pads less, larger has fewer distinct shapes.
            With 48, windows up to 30 s have 32 shapes and 4.5 % padding.
        cache_dir: Where memory-mappable copies of the token sets lie; ``None``: in each set's folder.
        mixed_semantics: Let the sets' semantic tokens be of different tokenizers, such as a teacher and a student that
            has its centres: one class has to mean the same sound to all of them. The card is the first set's.

    Attributes:
        card: What the tokens mean; a model compares it with its own sizes.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        token_sets: str | list[str],
        batch_frames: int = 24_000,
        max_seconds: float = 30.0,
        min_seconds: float = 1.0,
        seed: int = 0,
        num_workers: int = 0,
        train_split: str | list[str] = "train",
        validation_split: str | None = "validation",
        validation_speakers: float = 0.0,
        predict: Selection | None = None,
        prompt_seconds: float | None = 0.0,
        prompt_source: Literal["same", "other", "list"] = "same",
        prompt_list: str | None = None,
        bucket_frames: int = 48,
        cache_dir: str | None = None,
        mixed_semantics: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= min_seconds <= max_seconds or max_seconds <= 0:
            raise ValueError(f"min_seconds ({min_seconds}) must lie between 0 and max_seconds ({max_seconds})")
        if not 0 <= validation_speakers < 1:
            raise ValueError(f"validation_speakers is {validation_speakers}; it is a fraction of the speakers, below 1")
        if prompt_seconds is not None and prompt_seconds < 0:
            raise ValueError(f"prompt_seconds is {prompt_seconds}; it must not be negative")
        if (prompt_source == "list") != (prompt_list is not None):
            raise ValueError("prompt_source: list and prompt_list go together; set both, or neither")
        if prompt_seconds is None and prompt_source != "list":
            raise ValueError(
                "prompt_seconds: null means the whole prompts of a list; set prompt_source: list, or seconds"
            )
        self.token_sets = as_list(token_sets)
        self.batch_frames = batch_frames
        self.max_seconds = max_seconds
        self.min_seconds = min_seconds
        self.seed = seed
        self.num_workers = num_workers
        self.train_split = as_list(train_split)
        self.validation_split = validation_split
        self.validation_speakers = validation_speakers
        self.selection = predict or Selection()
        self.prompt_seconds = prompt_seconds
        self.prompt_source = prompt_source
        self.prompt_list = prompt_list
        self.bucket_frames = bucket_frames
        self.cache_dir = cache_dir
        self.mixed_semantics = mixed_semantics
        self._card: TokenSetCard | None = None
        self._train: TrainingWindows | None = None
        self._validation: WholeUtterances | None = None
        self._predict: WholeUtterances | None = None
        self._predict_ids: list[str] = []
        self._excluded: frozenset[str] = frozenset()
        # Where few utterances are left of an interrupted prediction, some ranks have nothing to do.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    @property
    def card(self) -> TokenSetCard:
        """What the tokens mean, read from disk when first asked for.

        Raises:
            FileNotFoundError: A folder is no token set.
            ValueError: The cards of the sets differ; both values of each field are named.
        """
        if self._card is None:
            self._card = load_common_card(self.token_sets, self.mixed_semantics)
        return self._card

    def prepare_data(self) -> None:
        """Make the memory-mappable copies of the splits that the trainer is about to use, in one process per node."""
        stage = str(self.trainer.state.fn.value) if self.trainer is not None and self.trainer.state.fn else None
        wanted: set[str] = set()
        if stage in (None, "fit", "validate"):
            wanted.update([str(self.validation_split)] if self._has_validation_split() else self.train_split)
        if stage in (None, "fit"):
            wanted.update(self.train_split)
        if stage in (None, "test", "predict"):
            wanted.update(as_list(self.selection.split))
        for folder in self.token_sets:
            for split in wanted.intersection(split_names(folder)):
                open_token_set(folder, split, cache_dir=self.cache_dir)

    def setup(self, stage: str) -> None:
        """Open what the stage needs.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            FileNotFoundError: A folder is no token set, or lacks the split.
            ValueError: The cards of the sets differ, or the filters leave no utterance; the message says which did.
        """
        if stage == "fit" and self._train is None:
            self._setup_training()
        if stage in ("fit", "validate") and self._validation is None:
            self._setup_validation()
        if stage in ("test", "predict") and self._predict is None:
            self._setup_prediction()

    def exclude(self, ids: Collection[str]) -> None:
        """Leave utterances out of the prediction loader made from now on, such as those generated already.

        What is generated for the others stays the same.
        """
        self._excluded = frozenset(ids)

    def train_dataloader(self) -> ResumableDataLoader:
        """Give this rank's training batches; fixed and in order where the trainer overfits on a few batches."""
        overfit = self.trainer is not None and bool(getattr(self.trainer, "overfit_batches", 0))
        return self._loader(self._train, shuffle=not overfit)

    def val_dataloader(self) -> ResumableDataLoader | list[ResumableDataLoader]:
        """Give this rank's validation batches, longest first; none where nothing is held out."""
        return [] if self._validation is None else self._loader(self._validation)

    def test_dataloader(self) -> ResumableDataLoader:
        """Give this rank's test batches, longest first."""
        return self._loader(self._predict, idle_ranks=True)

    def predict_dataloader(self) -> ResumableDataLoader | list[ResumableDataLoader]:
        """Give this rank's batches to generate, longest first; none where all utterances are excluded."""
        dataset = self._predict
        if dataset is not None and self._excluded:
            dataset = dataset.select(np.array([name not in self._excluded for name in self._predict_ids], dtype=bool))
        return [] if dataset is not None and not len(dataset) else self._loader(dataset, idle_ranks=True)

    def _loader(
        self, dataset: BucketDataset | None, *, shuffle: bool = False, idle_ranks: bool = False
    ) -> ResumableDataLoader:
        assert dataset is not None, "setup() comes before the loaders"
        return make_loader(
            dataset,
            self.trainer,
            batch_frames=self.batch_frames,
            bucket_frames=self.bucket_frames,
            shuffle=shuffle,
            seed=self.seed,
            num_workers=self.num_workers,
            idle_ranks=idle_ranks,
        )

    def _open(self, splits: Sequence[str], every_folder: bool = False) -> TokenStore:
        return TokenStore(
            self.token_sets,
            splits,
            every_folder=every_folder,
            cache_dir=self.cache_dir,
            mixed_semantics=self.mixed_semantics,
        )

    def _frames(self, seconds: float) -> int:
        return round(seconds * self.card.frame_rate)

    def _has_validation_split(self) -> bool:
        return self.validation_split is not None and any(
            self.validation_split in split_names(folder) for folder in self.token_sets
        )

    def _setup_training(self) -> None:
        chosen = UtteranceFilter(self._open(self.train_split, every_folder=True), "training")
        if not self._has_validation_split() and self.validation_speakers:
            chosen.keep(~held_out(chosen.store, self.validation_speakers), "held out for validation")
        chosen.limit_duration(self.min_seconds)
        chosen.insist()
        rank_zero_info(chosen.summary())
        self._train = TrainingWindows(
            chosen.store,
            chosen.rows,
            min_frames=max(1, self._frames(self.min_seconds)),
            max_frames=self._frames(self.max_seconds),
            seed=self.seed,
        )

    def _setup_validation(self) -> None:
        if self._has_validation_split():
            chosen = UtteranceFilter(self._open([str(self.validation_split)]), "validation")
        elif self.validation_speakers:
            chosen = UtteranceFilter(self._open(self.train_split), "validation")
            chosen.keep(held_out(chosen.store, self.validation_speakers), "of the speakers trained on")
        elif self.validation_split is None:
            return
        else:
            existing = sorted({name for folder in self.token_sets for name in split_names(folder)})
            raise FileNotFoundError(
                f"no split {self.validation_split!r} in {', '.join(self.token_sets)}, only {', '.join(existing)}: name "
                "another validation_split, hold speakers out with validation_speakers, or set it to null"
            )
        chosen.limit_duration(self.min_seconds)
        chosen.insist()
        rank_zero_info(chosen.summary())
        prompt, longest = self._frames(self.prompt_seconds or 0.0), self._frames(self.max_seconds)
        frames = np.minimum(chosen.store.frames[chosen.rows], longest)
        given = np.where(frames >= prompt + self._frames(MIN_TARGET_SECONDS), prompt, 0).astype(np.int64)
        self._validation = WholeUtterances(
            chosen.store, chosen.rows, Prompts(given), max_frames=longest, seed=self.seed
        )

    def _setup_prediction(self) -> None:
        chosen = UtteranceFilter(self._open(as_list(self.selection.split)), "predict")
        if self.selection.held_out:
            if not self.validation_speakers:
                raise ValueError("predict.held_out asks for held-out speakers: set validation_speakers as in training")
            chosen.keep(held_out(chosen.store, self.validation_speakers), "of the speakers trained on")
        chosen.choose(self.selection)
        prompt, least = self._frames(self.prompt_seconds or 0.0), self._frames(MIN_TARGET_SECONDS)
        partners, targets = None, chosen.rows
        if prompt and self.prompt_source == "same":
            chosen.keep(
                chosen.store.frames[chosen.rows] >= prompt + least,
                f"shorter than the prompt of {self.prompt_seconds:g} s + {MIN_TARGET_SECONDS:g} s",
                name=True,
            )
        elif self.prompt_list is not None:
            listed = {pair.target.id: pair.prompt.id for pair in read_pairs(self.prompt_list)}
            chosen.keep(np.isin(chosen.take("id"), list(listed)), f"not to be spoken by {self.prompt_list}")
            targets = chosen.rows
            partners = find_listed(chosen.store, chosen.rows, listed, prompt)
            chosen.keep(
                partners >= 0,
                f"whose prompt in {self.prompt_list} is missing"
                + (f" or shorter than {self.prompt_seconds:g} s" if self.prompt_seconds else ""),
                name=True,
            )
        elif prompt:
            partners = find_partners(chosen.store, chosen.rows, prompt)
            chosen.keep(
                partners >= 0,
                f"without another utterance of the speaker of at least {self.prompt_seconds:g} s for the prompt",
                name=True,
            )
        chosen.limit(self.selection.limit)
        chosen.insist()
        chosen.insist_unique()
        self._predict_ids = chosen.take("id")
        rank_zero_info(chosen.summary())
        if partners is not None:
            partners = partners[np.isin(targets, chosen.rows)]
        if self.prompt_seconds is None and partners is not None:
            given = np.asarray(chosen.store.frames[partners], dtype=np.int64)
        else:
            given = np.full(len(chosen.rows), prompt, dtype=np.int64)
        self._predict = WholeUtterances(chosen.store, chosen.rows, Prompts(given, partners), seed=self.seed)


def make_loader(
    dataset: BucketDataset,
    trainer: Trainer | None,
    *,
    batch_frames: int,
    bucket_frames: int,
    shuffle: bool,
    seed: int,
    num_workers: int,
    idle_ranks: bool = False,
) -> ResumableDataLoader:
    """Make the loader of this rank's share of a dataset; of all of it where there is no trainer."""
    sampler = TokenBucketBatchSampler(
        dataset,
        batch_frames,
        bucket_frames=bucket_frames,
        shuffle=shuffle,
        seed=seed,
        rank=trainer.global_rank if trainer is not None else 0,
        world_size=trainer.world_size if trainer is not None else 1,
        idle_ranks=idle_ranks,
    )
    return ResumableDataLoader(sampler, num_workers=num_workers, pin_memory=torch.cuda.is_available())
