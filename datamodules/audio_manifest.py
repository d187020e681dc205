"""Speech that a table lists."""

import csv
import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from datamodules.audio_sources import AudioSource, Utterance, one_line, safe_id

_OPTIONAL = ("text", "speaker")


class AudioManifest(AudioSource):
    """The recordings that a ``.csv``, ``.tsv`` or ``.jsonl`` file lists, one per row.

    Args:
        path: The manifest. Paths in it are relative to its folder.
        path_column: Column of the audio files.
        text_column: Column of the transcripts; ``None`` if there is none. A column ``text`` may be missing.
        speaker_column: Column of the speakers; ``None`` if there is none. A column ``speaker`` may be missing.
        id_column: Column of the ids; ``None``: ``id`` where there is such a column, else the path without suffix.
        where: Take only rows with these values, for instance ``{source: librispeech}``.
        allow_outside: Accept absolute paths and paths that lead out of the manifest's folder.

    Raises:
        FileNotFoundError: At first use: there is no such manifest.
        ValueError: At first use: a column is missing, or a row is bad; the line is named.
    """

    def __init__(
        self,
        path: str,
        path_column: str = "path",
        text_column: str | None = "text",
        speaker_column: str | None = "speaker",
        id_column: str | None = None,
        where: dict[str, str] | None = None,
        allow_outside: bool = False,
    ) -> None:
        self.path = path
        self.path_column = path_column
        self.text_column = text_column
        self.speaker_column = speaker_column
        self.id_column = id_column
        self.where = where or {}
        self.allow_outside = allow_outside

    def __len__(self) -> int:
        """Count the utterances."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Utterance:
        """Return an utterance."""
        return self._rows[index]

    @cached_property
    def _rows(self) -> list[Utterance]:
        manifest = Path(self.path)
        if not manifest.is_file():
            raise FileNotFoundError(f"{manifest} is no file; give a manifest in csv, tsv or jsonl")
        columns = [self.path_column, self.text_column, self.speaker_column, self.id_column, *self.where]
        utterances = []
        for line, row in read_manifest(manifest):
            for column in columns:
                if column is not None and column not in row and column not in _OPTIONAL:
                    raise ValueError(f"{manifest} line {line} has no {column!r}, only {sorted(row)}; name the columns")
            own_id = row[self.id_column] if self.id_column else row.get("id")
            values = {column: row.get(column, "") for column in columns if column is not None}
            if all(values[column] == str(value) for column, value in self.where.items()):
                utterances.append(self._utterance(manifest, line, values, own_id))
        if not utterances:
            raise ValueError(f"{manifest} lists no audio" + (f" where {self.where}" if self.where else ""))
        return utterances

    def _utterance(self, manifest: Path, line: int, values: dict[str, str], own_id: str | None) -> Utterance:
        name = values[self.path_column]
        relative = os.path.normpath(name)
        if not name.strip() or "\0" in name:
            raise ValueError(f"{manifest} line {line} names no file")
        if not self.allow_outside and (os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir):
            raise ValueError(
                f"{manifest} line {line}: {name!r} is outside the manifest's folder; set allow_outside to accept that"
            )
        return Utterance(
            id=safe_id(own_id or os.path.splitext(relative)[0]),
            path=str(manifest.parent / relative),
            speaker=values[self.speaker_column] if self.speaker_column else "",
            text=one_line(values[self.text_column]) if self.text_column else "",
        )


def read_manifest(manifest: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a manifest.

    Yields:
        The number of each row's last line, and its values.

    Raises:
        ValueError: It is of another kind, or a row is bad; the line is named.
    """
    suffix = manifest.suffix.lower()
    if suffix not in (".csv", ".tsv", ".jsonl"):
        raise ValueError(f"{manifest} is no manifest: its name has to end in .csv, .tsv or .jsonl")
    number = 0
    try:
        with open(manifest, encoding="utf-8-sig", newline="") as lines:
            if suffix == ".jsonl":
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield number, _json_row(line)
                return
            reader = csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
            for row in reader:
                number = reader.line_num
                # csv pads short rows with None and collects what is left over under None.
                if None in row or None in row.values():
                    raise ValueError(f"it does not have {len(reader.fieldnames or ())} values like the first line")
                yield number, row
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{manifest} is bad at line {number}: {error}") from None


def _json_row(line: str) -> dict[str, str]:
    row = json.loads(line)
    if not isinstance(row, dict) or any(isinstance(value, (dict, list)) for value in row.values()):
        raise ValueError("not a JSON object of plain values")
    return {name: "" if value is None else str(value) for name, value in row.items()}
