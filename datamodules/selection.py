"""Which utterances a stage works on: filters that count what they leave out, hold-out speakers, prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.seeding import hash_text, hash_texts, mix
from datamodules.token_store import TokenStore

_LIMIT_STREAM, _PARTNER_STREAM = 0x11A1, 0x9A27
_NAMED = 5  # ids listed in a message


@dataclass(frozen=True)
class Selection:
    """Utterances to generate or test on.

    Attributes:
        split: Split, or splits, of the token set.
        min_seconds: Shortest utterance.
        max_seconds: Utterances must be shorter than this: the paper's splits are [4, 10), [10, 20) and [20, 30.01) s.
        limit: At most this many, chosen by a hash of their ids: a smaller limit chooses among those of a larger one.
        ids: Only these.
        held_out: Only the speakers that ``validation_speakers`` holds out of training.
    """

    split: str | list[str] = "test"
    min_seconds: float = 0.0
    max_seconds: float | None = None
    limit: int | None = None
    ids: list[str] | None = None
    held_out: bool = False


class UtteranceFilter:
    """Narrows a store's utterances down and keeps account, for the log and for the error when nothing is left.

    Args:
        store: The utterances.
        purpose: What they are for, such as ``training``; begins the messages.
    """

    def __init__(self, store: TokenStore, purpose: str) -> None:
        self.store = store
        self.purpose = purpose
        self.rows = np.arange(len(store))
        self.removed: list[str] = []

    def keep(self, kept: np.ndarray, reason: str, *, name: bool = False) -> None:
        """Leave out what is not kept.

        Args:
            kept: bool ``[len(self.rows)]``.
            reason: Why the others go, such as ``shorter than 4 s``.
            name: Whether to list (the first of) the ids that go.
        """
        if kept.all():
            return
        gone = self.rows[~kept]
        listed = ""
        if name:
            ids = self.store.column("id").take(pa.array(gone[:_NAMED])).to_pylist()
            listed = f": {', '.join(ids)}{', ...' if len(gone) > _NAMED else ''}"
        self.removed.append(f"{len(gone)} {reason}{listed}")
        self.rows = self.rows[kept]

    def take(self, values: str) -> list[str]:
        """Give a column (``id`` or ``speaker``) of the utterances kept."""
        return self.store.column(values).take(pa.array(self.rows)).to_pylist()

    def summary(self) -> str:
        """Say in one line how many utterances and hours are left and what went."""
        hours = float(self.store.frames[self.rows].sum()) / self.store.card.frame_rate / 3600
        gone = f"; left out: {', '.join(self.removed)}" if self.removed else ""
        return f"{self.purpose}: {len(self.rows)} utterances, {hours:.2f} h, {self.store.name}{gone}"

    def insist(self) -> None:
        """Make sure that something is left.

        Raises:
            ValueError: Nothing is; the message says which filter took what.
        """
        if not len(self.rows):
            why = ", ".join(self.removed) if self.removed else "the split is empty"
            raise ValueError(
                f"{self.purpose}: no utterance is left of the {len(self.store)} in {self.store.name}: {why}"
            )

    def limit_duration(self, min_seconds: float, max_seconds: float | None = None) -> None:
        """Keep utterances of at least ``min_seconds`` (and at least one frame) and of less than ``max_seconds``."""
        rate = self.store.card.frame_rate
        self.keep(self.store.frames[self.rows] >= max(1, min_seconds * rate), f"shorter than {min_seconds:g} s")
        if max_seconds is not None:
            self.keep(self.store.frames[self.rows] < max_seconds * rate, f"not shorter than {max_seconds:g} s")

    def choose(self, selection: Selection) -> None:
        """Keep what a selection names, its ``limit`` excepted.

        Raises:
            ValueError: An id that it names does not exist.
        """
        if selection.ids is not None:
            options = pc.SetLookupOptions(value_set=pa.array(selection.ids, type=pa.string()))
            named = pc.call_function("is_in", [self.store.column("id")], options).to_numpy()
            found = self.store.column("id").take(pa.array(np.flatnonzero(named))).to_pylist()
            if missing := sorted(set(selection.ids) - set(found)):
                listed = ", ".join(missing[:_NAMED])
                raise ValueError(f"{self.purpose}: {len(missing)} of the ids are not in {self.store.name}: {listed}")
            self.keep(named[self.rows], "not among the ids named")
        self.limit_duration(selection.min_seconds, selection.max_seconds)

    def limit(self, number: int | None) -> None:
        """Keep at most so many, chosen by a hash of their ids."""
        if number is not None and number < len(self.rows):
            ranks = np.argsort(np.argsort(mix(_LIMIT_STREAM, hash_texts(self.take("id"))), kind="stable"))
            self.keep(ranks < number, f"over the limit of {number}")

    def insist_unique(self) -> None:
        """Make sure that no id comes twice, as one would be written over the other.

        Raises:
            ValueError: An id does.
        """
        ids = self.take("id")
        if len(set(ids)) < len(ids):
            twice = next(id for position, id in enumerate(ids) if id in ids[:position])
            raise ValueError(f"{self.purpose}: id {twice!r} comes twice in {self.store.name}: name one set and split")


def held_out(store: TokenStore, fraction: float) -> np.ndarray:
    """Choose speakers to hold out, by a hash of their names; the same on every machine.

    Of at least two speakers at least one is held out and at least one is kept. Where there are fewer, or the speaker
    of an utterance is unknown, single utterances take the place of speakers.

    Args:
        store: The utterances.
        fraction: Of the speakers, in (0, 1).

    Returns:
        bool ``[len(store)]``.
    """
    speakers, owners = _speakers(store)
    known = np.array([bool(name) for name in speakers])
    if known.sum() < 2:
        known[:] = False
    single = np.flatnonzero(~known[owners])
    names = store.column("id").take(pa.array(single)).to_pylist()
    # Units are the known speakers and the single utterances; the hash of a speaker not known is never looked at.
    units = np.concatenate([np.flatnonzero(known), len(known) + np.arange(len(single))])
    owners[single] = len(known) + np.arange(len(single))
    hashes = np.concatenate([hash_texts(speakers), hash_texts(names)])[units]
    number = min(max(1, round(fraction * len(units))), len(units) - 1)
    return np.isin(owners, units[np.argsort(hashes, kind="stable")[:number]])


def find_partners(store: TokenStore, rows: np.ndarray, min_frames: int) -> np.ndarray:
    """Find for each utterance another one of the same speaker, long enough to give the prompt.

    The choice is made by a hash of both ids: it depends neither on the order nor on what else is selected.

    Args:
        store: All utterances that may give a prompt.
        rows: The utterances that need one, ``[N]``.
        min_frames: Shortest utterance that may give a prompt.

    Returns:
        int64 ``[N]``, the number of the other utterance; -1 where there is none or the speaker is unknown.
    """
    speakers, owners = _speakers(store)
    partners = np.full(len(rows), -1, dtype=np.int64)
    targets = store.column("id").take(pa.array(rows)).to_pylist()
    long_enough = store.frames >= min_frames
    for speaker in np.unique(owners[rows]):
        if not speakers[speaker]:
            continue
        givers = np.flatnonzero((owners == speaker) & long_enough)
        hashes = hash_texts(store.column("id").take(pa.array(givers)).to_pylist())
        for place in np.flatnonzero(owners[rows] == speaker):
            others = givers != rows[place]
            if others.any():
                scores = mix(_PARTNER_STREAM, hash_text(targets[place]), hashes[others])
                partners[place] = givers[others][scores.argmin()]
    return partners


def find_listed(store: TokenStore, rows: np.ndarray, listed: Mapping[str, str], min_frames: int) -> np.ndarray:
    """Find for each utterance the one that a list names as its prompt.

    Args:
        store: All utterances that may give a prompt.
        rows: The utterances that need one, ``[N]``.
        listed: Their ids, and the ids of their prompts.
        min_frames: Shortest utterance that may give a prompt.

    Returns:
        int64 ``[N]``, the number of the prompt; -1 where it is not in the store or too short.
    """
    options = pc.SetLookupOptions(value_set=pa.array(sorted(set(listed.values())), type=pa.string()))
    givers = np.flatnonzero(pc.call_function("is_in", [store.column("id")], options).to_numpy())
    givers = givers[store.frames[givers] >= min_frames]
    places = dict(zip(store.column("id").take(pa.array(givers)).to_pylist(), givers.tolist(), strict=True))
    targets = store.column("id").take(pa.array(rows)).to_pylist()
    return np.array([places.get(listed[target], -1) for target in targets], dtype=np.int64)


def as_list(names: str | Sequence[str]) -> list[str]:
    """Give one name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def _speakers(store: TokenStore) -> tuple[list[str], np.ndarray]:
    """Give the names of the speakers, and per utterance the position of its speaker among them, ``[N]``."""
    encoded = store.column("speaker").dictionary_encode().combine_chunks()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
