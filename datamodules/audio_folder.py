"""Speech in a folder of audio files."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from datamodules.audio_files import AUDIO_SUFFIXES
from datamodules.audio_sources import AudioSource, Utterance, one_line, safe_id, split_lines

_NO_TRANSCRIPTS = {"README", "LICENSE", "LICENCE", "COPYING", "SPEAKERS", "BOOKS", "CHAPTERS"}


class _Listed(NamedTuple):
    id: str
    path: str
    speaker: str
    text: str | Path  # a path: of a sidecar, read with the audio
    problem: str = ""


class AudioFolder(AudioSource):
    """Every wav, flac, ogg, opus and mp3 file below a folder, in the order of their relative paths.

    Transcripts come from ``<name>.txt`` beside ``<name>.wav`` (LibriTTS: ``<name>.normalized.txt``), or from
    LibriSpeech's ``*.trans.txt``. A transcript whose audio is missing is listed as an utterance with a problem. Files
    of the layout ``<speaker>/<chapter>/<speaker>-<chapter>-0000.flac`` (LibriSpeech, LibriTTS) keep their name as id
    and get their speaker from it; the id of other files is their relative path.

    Args:
        path: The folder.
        speaker_level: Which folder names the speaker where the layout does not: 1 the one the file lies in, 2 the one
            above (Libri-Light), ``None`` if none does.
    """

    def __init__(self, path: str, speaker_level: int | None = None) -> None:
        if speaker_level is not None and speaker_level < 1:
            raise ValueError(f"speaker_level is {speaker_level}; 1 is the folder the file lies in")
        self.path = path
        self.speaker_level = speaker_level

    def __len__(self) -> int:
        """Count the utterances."""
        return len(self._files)

    def __getitem__(self, index: int) -> Utterance:
        """Return an utterance; its sidecar is read now."""
        listed, text, problem = self._files[index], "", self._files[index].problem
        if isinstance(listed.text, str):
            text = listed.text
        elif not problem:
            try:
                text = one_line(listed.text.read_text(encoding="utf-8-sig", errors="replace"))
            except OSError as error:
                problem = f"its transcript {listed.text} cannot be read ({error.strerror})"
        if "\N{REPLACEMENT CHARACTER}" in text:
            text, problem = "", "its transcript is not UTF-8; convert it, with iconv for instance"
        return Utterance(listed.id, listed.path, listed.speaker, text, problem=problem)

    def ids(self) -> Sequence[str]:
        """Return the id of every utterance."""
        return [file.id for file in self._files]

    def speakers(self) -> Sequence[str]:
        """Return the speaker of every utterance."""
        return [file.speaker for file in self._files]

    @cached_property
    def _files(self) -> list[_Listed]:
        root = Path(self.path)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is no folder; give the folder of audio files")
        listed = [file for folder, _, names in os.walk(root) for file in self._list(Path(folder), sorted(names))]
        if not any(not file.problem for file in listed):
            raise FileNotFoundError(f"{root} holds no audio ({', '.join(AUDIO_SUFFIXES)})")
        return sorted(listed, key=lambda file: file.path)

    def _list(self, folder: Path, names: list[str]) -> Iterator[_Listed]:
        names = [name for name in names if not name.startswith(".")]
        transcripts: dict[str, str | Path] = {}
        for name in names:
            if name.endswith(".trans.txt"):
                transcripts |= _libri_transcripts(folder / name)
        # LibriTTS has an original and a normalised text; the normalised one is what is spoken.
        for suffix in (".txt", ".normalized.txt"):
            transcripts |= {name.removesuffix(suffix): folder / name for name in names if _is_sidecar(name, suffix)}
        audio = [name for name in names if Path(name).suffix.lower() in AUDIO_SUFFIXES]
        for name in audio:
            yield self._entry(folder / name, transcripts.get(Path(name).stem, ""))
        if not audio and not any(name.endswith(".trans.txt") for name in names):
            return  # texts of something else
        for stem in sorted(set(transcripts) - {Path(name).stem for name in audio}):
            yield self._entry(folder / stem, "", "has a transcript but no audio file")

    def _entry(self, file: Path, text: str | Path, problem: str = "") -> _Listed:
        stem = file.name if problem else file.stem
        libri = re.fullmatch(r"(\d+)([-_])(\d+)\2\d+(?:_\d+)?", stem)
        if libri and (libri[1], libri[3]) == (file.parent.parent.name, file.parent.name):
            return _Listed(stem, str(file), libri[1], text, problem)
        relative = file.relative_to(self.path)
        level = self.speaker_level
        speaker = relative.parts[-1 - level] if level is not None and level < len(relative.parts) else ""
        return _Listed(safe_id(str(relative.with_name(stem))), str(file), speaker, text, problem)


def _is_sidecar(name: str, suffix: str) -> bool:
    stem = name.removesuffix(suffix)
    if stem == name or stem.endswith((".trans", ".normalized", ".original")):
        return False
    return stem.upper() not in _NO_TRANSCRIPTS


def _libri_transcripts(file: Path) -> dict[str, str | Path]:
    lines = split_lines(file.read_text(encoding="utf-8-sig", errors="replace"))
    return {id: one_line(text) for id, _, text in (line.strip().partition(" ") for line in lines) if id}
