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


def safe_id(name: str) -> str:
    """Turn a relative path without suffix into an id that is a file name everywhere: ``ann/one`` to ``ann__one``."""
    name = "__".join(part for part in re.split(r"[/\\]+", unicodedata.normalize("NFC", name)) if part.strip("."))
    name = re.sub(r"[^\w.\-]+", "_", name).lstrip(".") or "_"
    if len(name.encode()) <= 120:
        return name
    return f"{name.encode()[:100].decode(errors='ignore')}-{xxhash.xxh64_hexdigest(name.encode())}"


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
