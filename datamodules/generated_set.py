"""Rendered audio on disk: what ``generate`` writes and ``evaluate`` reads.

An audio set is a folder::

    card.json           which system, under which condition, with which codec
    audio/<id>.flac     16-bit, the prompt included
    manifest.jsonl      one row per file, see :class:`GeneratedRow`
    manifest-r0.jsonl   rows of a run that has not ended yet, one file per process
    rejected.jsonl      what could not be written, with the reason

Nothing here needs Lightning.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np

from datamodules.audio_export import write_audio
from datamodules.audio_sources import safe_id
from modules.atomic import write_atomically
from modules.batches import Rejection

MAKE_IT = "make it with `soundstorm predict -c configs/generate/<preset>.yaml`"
RECORDED = "reference"  # the condition whose audio comes from a recording; under all others nobody said what is heard


@dataclass(frozen=True)
class GeneratedCard:
    """What an audio set holds.

    Attributes:
        system: What rendered it: ``original``, ``reconstruction``, ``soundstorm``, ``audiolm``, ...
        condition: ``reference``, ``unprompted``, ``prompted`` or ``prompted_other``.
        sample_rate: Hz.
        codec: Identity of the codec, see ``AudioCodec.identity``.
        weights: Digest of all weights that made the audio; None where nothing was made yet, or nobody said.
        sampling: How tokens were chosen, see ``TokenGenerator.sampling_settings``; None where none were or nobody said.
    """

    system: str
    condition: str
    sample_rate: int
    codec: dict[str, Any]
    weights: str | None = None
    sampling: dict[str, Any] | None = None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the card of an audio set.

        Raises:
            FileNotFoundError: There is no such audio set.
            ValueError: The card is damaged.
        """
        file = folder / "card.json"
        if not file.is_file():
            raise FileNotFoundError(f"{folder} is no audio set (it has no card.json); {MAKE_IT}")
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged or of another kind ({error}); {MAKE_IT}") from None

    def compare(self, folder: Path) -> None:
        """Insist that a card that lies in a folder says the same; what this one does not know does not count.

        Raises:
            ValueError: The folder holds audio of another system, condition, codec, sample rate, training or sampling.
        """
        if not (folder / "card.json").is_file():
            return
        there = GeneratedCard.load(folder)
        for name in (field.name for field in fields(self)):
            mine, theirs = (json.loads(json.dumps(getattr(card, name))) for card in (self, there))
            if mine is not None and mine != theirs:
                raise ValueError(
                    f"{folder} already holds audio with {name}={theirs}, this run has {name}={mine}: "
                    "choose another output_dir, or delete the folder"
                )

    def save(self, folder: Path) -> None:
        """Write the card, or insist that the one already there says the same.

        Raises:
            ValueError: See :meth:`compare`.
        """
        self.compare(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "card.json", json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class GeneratedRow:
    """One file of an audio set.

    Attributes:
        id: Utterance.
        path: File, relative to the folder.
        text: What is said; "" where unknown.
        speaker: Who says it; "" where unknown.
        num_frames: Codec frames, prompt included.
        prompt_seconds: Leading seconds that were given; 0 for none.
        seconds: Duration, prompt included.
        sample_rate: Hz.
        seed: Random stream the codes were drawn from; ``None`` for recordings.
        system: As on the card.
        condition: As on the card.
        own_prompt: Whether the prompt is the utterance's own beginning, rather than put before the utterance.
        prompt_id: The other utterance whose beginning was put before; "" where none was, and in older audio sets.
    """

    id: str
    path: str
    text: str
    speaker: str
    num_frames: int
    prompt_seconds: float
    seconds: float
    sample_rate: int
    seed: int | None
    system: str
    condition: str
    own_prompt: bool = True
    prompt_id: str = ""


def read_rows(folder: Path) -> list[GeneratedRow]:
    """Read the rows of an audio set, those of an unfinished run included.

    A row that a crash cut off at the end of a file is passed over; of rows that are equal one is kept.

    Raises:
        ValueError: A row is damaged; file and line are named.
    """
    names = {field.name for field in fields(GeneratedRow)}
    needed = {field.name for field in fields(GeneratedRow) if field.default is MISSING}  # the others came later
    rows: dict[GeneratedRow, None] = {}
    for file in [folder / "manifest.jsonl", *sorted(folder.glob("manifest-r*.jsonl"))]:
        for number, values in _json_lines(file):
            if not isinstance(values, dict) or not needed <= set(values) or not _is_row(values):
                raise ValueError(f"{file} line {number} is no row of an audio set; {MAKE_IT}")
            rows[GeneratedRow(**{name: value for name, value in values.items() if name in names})] = None
    return list(rows)


def finished_ids(folder: Path) -> set[str]:
    """Ids whose audio is in a folder already."""
    return {row.id for row in read_rows(folder) if (folder / row.path).is_file()}


def _is_row(values: dict[str, Any]) -> bool:
    """Tell whether a row's values are of the right kinds, and its path stays in the folder."""
    if any(not isinstance(values[name], str) for name in ("id", "path", "text", "speaker", "system", "condition")):
        return False
    if not isinstance(values.get("prompt_id", ""), str):
        return False
    numbers = (values[name] for name in ("num_frames", "prompt_seconds", "seconds", "sample_rate"))
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in numbers):
        return False
    return not (os.path.isabs(values["path"]) or ".." in Path(values["path"]).parts or "\0" in values["path"])


def _json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    if not file.is_file():
        return
    for number, line in enumerate(file.read_bytes().splitlines(keepends=True), start=1):
        try:
            yield number, json.loads(line)
        except ValueError:
            if line.endswith(b"\n"):  # else it is the last line, and the process died writing it
                raise ValueError(f"{file} line {number} is damaged; delete the line, its audio is made again") from None


class GeneratedSetWriter:
    """Adds files to an audio set; each file appears whole or not at all, before its row does.

    Args:
        folder: Folder of the audio set; made if it does not exist.
        card: What it holds.
        rank: Which of several writing processes this is.

    Raises:
        ValueError: The folder holds something else.
    """

    def __init__(self, folder: Path, card: GeneratedCard, rank: int = 0) -> None:
        self.folder = folder
        self.card = card
        card.save(folder)
        (folder / "audio").mkdir(exist_ok=True)
        self.part = folder / f"manifest-r{rank}.jsonl"
        self._rows = _open_for_appending(self.part)

    def write(self, row: GeneratedRow, audio: np.ndarray) -> None:
        """Write one file and its row.

        Args:
            row: The row; its path is the file.
            audio: Mono audio in [-1, 1], ``[N]``; what is louder is clipped.
        """
        write_flac(self.folder / row.path, audio, self.card.sample_rate, row.id, self.card.system, self.card.condition)
        self._rows.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        self._rows.flush()

    def reject(self, rejection: Rejection) -> None:
        """Record what could not be written."""
        with open(self.folder / "rejected.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(rejection._asdict(), ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the part; its rows stay readable."""
        self._rows.close()


def write_flac(file: Path, audio: np.ndarray, sample_rate: int, id: str, system: str, condition: str) -> None:
    """Write 16-bit FLAC, atomically, that says in its metadata whether anybody said what it holds.

    Args:
        file: The file.
        audio: Mono audio in [-1, 1], ``[N]``; what is louder is clipped.
        sample_rate: Hz.
        id: Utterance.
        system: What rendered it.
        condition: Under which condition.
    """
    if condition == RECORDED:
        comment = f"Recorded speech ({system})"
    else:
        comment = f"Synthetic speech generated by {system} ({condition}); nobody said this"
    write_audio(file, audio, sample_rate, comment, title=id)


def merge_parts(folder: Path) -> int:
    """Put the rows of all processes into ``manifest.jsonl``, ordered by id; call it when all have closed.

    Returns:
        Number of rows.
    """
    rows = sorted(read_rows(folder), key=lambda row: row.id)
    text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    write_atomically(folder / "manifest.jsonl", text)
    for part in folder.glob("manifest-r*.jsonl"):
        part.unlink()
    return len(rows)


def audio_path(id: str) -> str:
    """Where the audio of an utterance lies in its set."""
    return f"audio/{safe_id(id)}.flac"


def _open_for_appending(file: Path) -> TextIO:
    """Open a file of lines after its last complete line."""
    if file.is_file():
        content = file.read_bytes()
        os.truncate(file, content.rfind(b"\n") + 1)
    return open(file, "a", encoding="utf-8")
