"""Rendered speech beside its recordings, for evaluation."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.audio_files import AudioReader, UnusableAudio
from datamodules.audio_sources import AudioSource, Utterance
from datamodules.generated_set import GeneratedCard, GeneratedRow, read_rows
from modules.batches import Rejection
from modules.evaluation.items import EvaluationBatch, EvaluationItem, split_of

ORIGINAL = ("original", "reference")
_NAMED = 5  # ids listed in a message


class Rendering(NamedTuple):
    """One utterance as one system rendered it, not read yet."""

    utterance: Utterance
    system: str
    condition: str
    row: GeneratedRow | None  # None: the recording itself
    folder: Path | None
    prompt: Utterance | None = None  # the other utterance that gave the prompt


class GeneratedAudioDataModule(LightningDataModule):
    """Batches of :class:`~modules.evaluation.items.EvaluationBatch`: every system's rendering of every utterance.

    The renderings of an utterance follow one another, the recording first. Under DDP no item is repeated.

    Args:
        systems: Folders of audio sets as ``AudioWriter`` makes them; the keys name them in messages, the systems' own
            names are on the cards.
        reference: The recordings, found by the ids of the audio sets.
        sample_rate: What everything is resampled to, in Hz; the scorers' rate.
        batch_size: Items per batch.
        paired: Whether to evaluate only what all systems rendered, so that rows of a table compare; otherwise each
            system is evaluated on everything it rendered.
        limit: At most this many utterances, the first by id; ``None`` for all.
        reference_prompt_seconds: How much of recordings and reconstructions is taken for the prompt when their voice is
            scored as a prompted system's is; 3 in the paper.
        num_workers: Processes per device that read ahead.

    Attributes:
        rows: System and condition of every row of the table, after ``setup``.
        cards: What rendered each row but the recordings', after ``setup``.
        account: What is wrong with the sets, in words, with the ids concerned; after ``setup``.
    """

    def __init__(
        self,
        systems: dict[str, str],
        reference: AudioSource,
        sample_rate: int = 16_000,
        batch_size: int = 8,
        paired: bool = True,
        limit: int | None = None,
        reference_prompt_seconds: float = 3.0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.systems = systems
        self.reference = reference
        self.sample_rate = sample_rate
        self.batch_size = batch_size
        self.paired = paired
        self.limit = limit
        self.reference_prompt_seconds = reference_prompt_seconds
        self.num_workers = num_workers
        self.rows: list[tuple[str, str]] = []
        self.cards: list[GeneratedCard] = []
        self.account: dict[str, list[str]] = {}
        self.renderings: list[Rendering] = []

    def prepare_data(self) -> None:
        """Fetch the recordings if they are to be downloaded."""
        self.reference.prepare()

    def setup(self, stage: str) -> None:
        """Find out what there is to evaluate, and name what is missing or double.

        Args:
            stage: ``test``.

        Raises:
            FileNotFoundError: A folder is no audio set.
            ValueError: Two folders hold the same system and condition, or nothing is left to evaluate.
        """
        if self.renderings:
            return
        account: dict[str, list[str]] = defaultdict(list)
        recordings = self._recordings(account)
        cards, sets = {}, {}
        for name, folder in self.systems.items():
            cards[name] = GeneratedCard.load(Path(folder))
            sets[name] = _rows_by_id(Path(folder), name, account)
        self.cards = list(cards.values())
        self.rows = [ORIGINAL, *((card.system, card.condition) for card in self.cards)]
        for system, condition in self.rows:
            if self.rows.count((system, condition)) > 1:
                raise ValueError(f"two of {list(self.systems)} hold {system} ({condition}): name each once")
        ids = self._choose(recordings, sets, account)
        # A recording may come with its content: held once, whether it is spoken, prompts, or both.
        take = cache(lambda id: self.reference[recordings[id]])
        for id in ids:
            utterance = _completed(take(id), [rows[id] for rows in sets.values() if id in rows])
            if not utterance.text:
                account["without text: no words are counted"].append(id)
            self.renderings.append(Rendering(utterance, *ORIGINAL, None, None))
            for name, card in cards.items():
                if id in sets[name]:
                    row, folder = sets[name][id], Path(self.systems[name])
                    prompt = None
                    if row.prompt_seconds > 0 and not row.own_prompt:
                        prompt = take(row.prompt_id) if row.prompt_id in recordings else _missing(row)
                    self.renderings.append(Rendering(utterance, card.system, card.condition, row, folder, prompt))
        self.account = {reason: sorted(set(concerned)) for reason, concerned in account.items()}
        for reason, concerned in self.account.items():
            rank_zero_warn(f"{_count(concerned)} {reason}: {_list(concerned)}")

    @property
    def ids(self) -> list[str]:
        """The utterances that are evaluated, in order."""
        return list(dict.fromkeys(rendering.utterance.id for rendering in self.renderings))

    def _recordings(self, account: dict[str, list[str]]) -> dict[str, int]:
        recordings: dict[str, int] = {}
        for index, id in enumerate(self.reference.ids()):
            if id in recordings:
                account["twice among the recordings: the first is taken"].append(id)
            recordings.setdefault(id, index)
        return recordings

    def _choose(
        self, recordings: dict[str, int], sets: dict[str, dict[str, GeneratedRow]], account: dict[str, list[str]]
    ) -> list[str]:
        rendered = set().union(*sets.values()) if sets else set(recordings)
        account["without a recording: left out"].extend(rendered - set(recordings))
        for name, rows in sets.items():
            left_out = "left out of every row" if self.paired else "left out of its row"
            account[f"missing in {name}: {left_out}"].extend(rendered - set(rows))
        if self.paired:
            rendered = rendered.intersection(*sets.values()) if sets else rendered
        for reason in [reason for reason, concerned in account.items() if not concerned]:
            del account[reason]
        ids = sorted(rendered & set(recordings))[: self.limit]
        if not ids:
            examples = [f"the recordings hold {_list(list(recordings))}"]
            examples += [f"{name} holds {_list(list(rows))}" for name, rows in sets.items()]
            raise ValueError(f"no utterance is in all sets; {'; '.join(examples)}")
        return ids

    def test_dataloader(self) -> DataLoader:
        """Give this rank's batches."""
        dataset = RenderingDataset(self.renderings, self.sample_rate, self.reference_prompt_seconds)
        world_size = self.trainer.world_size if self.trainer is not None else 1
        rank = self.trainer.global_rank if self.trainer is not None else 0
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            # Lightning's own sampler would evaluate some utterances twice to give every rank equally many.
            sampler=UnrepeatedDistributedSampler(dataset, num_replicas=world_size, rank=rank, shuffle=False),
            num_workers=self.num_workers,
            collate_fn=collate,
        )


class RenderingDataset(Dataset):
    """Reads renderings and the recordings beside them.

    Args:
        renderings: What to read.
        sample_rate: What everything is resampled to, in Hz.
        reference_prompt_seconds: What is taken for the prompt of recordings and reconstructions.
    """

    def __init__(self, renderings: list[Rendering], sample_rate: int, reference_prompt_seconds: float) -> None:
        self.renderings = renderings
        self.reference_prompt_seconds = reference_prompt_seconds
        self.sample_rate = sample_rate
        self.read_recording = AudioReader(sample_rate, max_seconds=float("inf"))
        # What a system says is scored however short or silent it is.
        self.read_rendering = AudioReader(sample_rate, 0.0, float("inf"), silence_threshold=0.0)

    def __len__(self) -> int:
        """Count the renderings."""
        return len(self.renderings)

    def __getitem__(self, index: int) -> EvaluationItem | Rejection:
        """Read one rendering."""
        utterance, system, condition, row, folder, prompt = self.renderings[index]
        path = utterance.path
        try:
            original = audio = self._read(utterance)
            if row is not None and folder is not None:
                path = str(folder / row.path)
                audio = self.read_rendering(folder / row.path)
        except UnusableAudio as error:
            return Rejection(utterance.id, path, f"{system} ({condition}): {error}")
        given = row is not None and condition != "reference"
        prompt_seconds = row.prompt_seconds if row is not None and given else self.reference_prompt_seconds
        other_prompt, prompt_problem = None, ""
        if prompt is not None:
            try:
                other_prompt = self._read(prompt)[: round(prompt_seconds * self.sample_rate)]
            except UnusableAudio as error:
                prompt_problem = f"the prompt's recording {error}"
        return EvaluationItem(
            id=utterance.id,
            system=system,
            condition=condition,
            split=split_of(original.numel() / self.sample_rate),
            audio=audio,
            original=original,
            sample_rate=self.sample_rate,
            prompt_seconds=prompt_seconds,
            own_prompt=row.own_prompt if row is not None else True,
            seed=row.seed if row is not None else None,
            speaker=utterance.speaker,
            text=utterance.text,
            other_prompt=other_prompt,
            prompt_problem=prompt_problem,
        )

    def _read(self, utterance: Utterance) -> Tensor:
        if utterance.problem:
            raise UnusableAudio(utterance.problem)
        return self.read_recording(utterance.file, speed=utterance.speed)


def collate(items: Sequence[EvaluationItem | Rejection]) -> EvaluationBatch:
    """Put what was read, and what could not be, into one batch."""
    return EvaluationBatch(
        [item for item in items if isinstance(item, EvaluationItem)],
        [item for item in items if isinstance(item, Rejection)],
    )


def _completed(utterance: Utterance, rows: list[GeneratedRow]) -> Utterance:
    """Fill in what a recording does not say of itself by what the audio sets say."""
    text = utterance.text or next((row.text for row in rows if row.text), "")
    speaker = utterance.speaker or next((row.speaker for row in rows if row.speaker), "")
    return utterance._replace(text=text, speaker=speaker)


def _missing(row: GeneratedRow) -> Utterance:
    """Stand in for the recording that gave a row its prompt."""
    problem = "is not among the references" if row.prompt_id else "is not named by the audio set: generate it anew"
    return Utterance(row.prompt_id, "", problem=problem)


def _rows_by_id(folder: Path, name: str, account: dict[str, list[str]]) -> dict[str, GeneratedRow]:
    rows: dict[str, GeneratedRow] = {}
    for row in read_rows(folder):
        if row.id in rows:
            account[f"twice in {name}: the first is taken"].append(row.id)
        elif not (folder / row.path).is_file():
            account[f"in the manifest of {name}, but without a file"].append(row.id)
        else:
            rows[row.id] = row
            if row.prompt_seconds and row.seconds <= row.prompt_seconds:
                account[f"no longer than the prompt in {name}: nothing of it was generated"].append(row.id)
    return rows


def _count(ids: list[str]) -> str:
    return "1 utterance is" if len(ids) == 1 else f"{len(ids)} utterances are"


def _list(ids: list[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "") if ids else "nothing"
