"""Where speech comes from: the contract that folders, manifests and `datasets` audio sets keep."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import xxhash


class Utterance(NamedTuple):
    """One recording of a source, not yet read."""

    id: str
    path: str  # the file; for content out of a data set, what to call it in messages
    speaker: str = ""  # "" where unknown
    text: str = ""  # "" where unknown
    content: bytes | None = None  # of the file, where it is no file of its own
    problem: str = ""  # why it cannot be used, where that is known without reading
    speed: float = 1.0  # to play it at: tempo and pitch change together

    @property
    def file(self) -> Path | BytesIO:
        """What to open."""
        return Path(self.path) if self.content is None else BytesIO(self.content)


class AudioSource(ABC):
    """A sequence of utterances in a fixed order, with ids that are the same on every machine and in every run.

    Constructors only store their arguments, so that a configuration can be built where the data are not.
    """

    def prepare(self) -> None:  # noqa: B027 - most sources have nothing to fetch
        """Fetch what has to be downloaded; called in one process per machine, before anything is read."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the utterances."""

    @abstractmethod
    def __getitem__(self, index: int) -> Utterance:
        """Return an utterance; a damaged one has a ``problem`` and is no reason to raise."""

    def ids(self) -> Sequence[str]:
        """Return the id of every utterance."""
        return [self[index].id for index in range(len(self))]

    def speakers(self) -> Sequence[str]:
        """Return the speaker of every utterance."""
        return [self[index].speaker for index in range(len(self))]


def one_line(text: str) -> str:
    """Put a transcript on one line, with single spaces."""
    return " ".join(text.split())


def split_lines(text: str) -> list[str]:
    r"""Split a text at ``\n`` alone: ``str.splitlines`` also does at characters that a transcript may hold (U+2028)."""
    return text.removesuffix("\n").split("\n") if text else []


def safe_id(name: str) -> str:
    """Turn a relative path without suffix into an id that is a file name everywhere: ``ann/one`` to ``ann__one``."""
    name = "__".join(part for part in re.split(r"[/\\]+", unicodedata.normalize("NFC", name)) if part.strip("."))
    name = re.sub(r"[^\w.\-]+", "_", name).lstrip(".") or "_"
    if len(name.encode()) <= 120:
        return name
    return f"{name.encode()[:100].decode(errors='ignore')}-{xxhash.xxh64_hexdigest(name.encode())}"


def distinct_file_name(name: str) -> str:
    """Turn a name into one of a file; of names that differ, into ones that differ."""
    safe = safe_id(name)
    return safe if safe == name else f"{safe}-{xxhash.xxh64_hexdigest(name.encode())[:8]}"


class AudioSources(AudioSource):
    """Several sources, one after the other. Ids that two of them share are an error.

    Args:
        sources: The sources.
    """

    def __init__(self, sources: list[AudioSource]) -> None:
        self.sources = sources

    def prepare(self) -> None:
        """Prepare every source."""
        for source in self.sources:
            source.prepare()

    def __len__(self) -> int:
        """Count the utterances of all sources."""
        return sum(len(source) for source in self.sources)

    def __getitem__(self, index: int) -> Utterance:
        """Return an utterance."""
        for source in self.sources:
            if index < len(source):
                return source[index]
            index -= len(source)
        raise IndexError("no such utterance")

    def ids(self) -> Sequence[str]:
        """Return the id of every utterance."""
        return [id for source in self.sources for id in source.ids()]

    def speakers(self) -> Sequence[str]:
        """Return the speaker of every utterance."""
        return [speaker for source in self.sources for speaker in source.speakers()]


class SpeedPerturbation(AudioSource):
    """Every recording at several speeds, pitch and formants along: more voices of the same words (Ko et al. 2015).

    Ids and speakers get the speed as a suffix, ``ann-x0.9``, except at speed 1: what is played slower counts as another
    speaker. Perturb the speech to train on only: where speakers are held out by their names, their copies are not.

    Args:
        source: The recordings.
        speeds: 1.1 is a tenth faster and higher.
    """

    def __init__(self, source: AudioSource, speeds: Sequence[float] = (0.9, 1.0, 1.1)) -> None:
        if not speeds or len(set(speeds)) < len(speeds) or any(not 0.25 <= speed <= 4 for speed in speeds):
            raise ValueError(f"speeds={list(speeds)} must be different numbers between 0.25 and 4, at least one")
        self.source = source
        self.speeds = tuple(speeds)

    def prepare(self) -> None:
        """Prepare the source."""
        self.source.prepare()

    def __len__(self) -> int:
        """Count the utterances, each at each speed."""
        return len(self.source) * len(self.speeds)

    def __getitem__(self, index: int) -> Utterance:
        """Return an utterance at a speed; all of one speed come before those of the next."""
        number, index = divmod(range(len(self))[index], len(self.source))
        utterance, speed = self.source[index], self.speeds[number]
        return utterance._replace(
            id=_at_speed(utterance.id, speed),
            speaker=_at_speed(utterance.speaker, speed),
            speed=utterance.speed * speed,
        )

    def ids(self) -> Sequence[str]:
        """Return the id of every utterance."""
        ids = self.source.ids()
        return [_at_speed(id, speed) for speed in self.speeds for id in ids]

    def speakers(self) -> Sequence[str]:
        """Return the speaker of every utterance."""
        speakers = self.source.speakers()
        return [_at_speed(speaker, speed) for speed in self.speeds for speaker in speakers]


def _at_speed(name: str, speed: float) -> str:
    return name if speed == 1 or not name else f"{name}-x{speed:g}"
