"""Lists that say which utterance is to be spoken after which prompt: those of Seed-TTS and of LibriSpeech-PC."""

import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from datamodules.audio_sources import AudioSource, Utterance, one_line, safe_id, split_lines


class ListedPair(NamedTuple):
    """One line of a list."""

    target: Utterance
    prompt: Utterance


class EvaluationList(AudioSource):
    """The utterances of a list, and the recordings that prompt them, each once.

    Two kinds of lists are read, told apart by how they separate columns:

    * Seed-TTS (``meta.lst``), separated by ``|``: name, transcript of the prompt, its file, text to speak and, in some
      lists, the recording of that text. Files are relative to the list; without the last column it is
      ``wavs/<name>.wav``.
    * LibriSpeech-PC test-clean (cross-sentence), separated by tabs: prompt, its seconds, its transcript; utterance, its
      seconds, its text. A name such as ``4992-41806-0009`` is the file ``4992/41806/4992-41806-0009.flac`` of
      LibriSpeech's folder.

    Tokenize the list, and give the same list to ``TokenDataModule.prompt_list``.

    Args:
        path: The list.
        audio: Folder of the recordings; the list's own if None.

    Raises:
        FileNotFoundError: At first use: there is no such list.
        ValueError: At first use: a line is bad; it is named.
    """

    def __init__(self, path: str, audio: str | None = None) -> None:
        self.path = path
        self.audio = audio

    def __len__(self) -> int:
        """Count the recordings."""
        return len(self._utterances)

    def __getitem__(self, index: int) -> Utterance:
        """Return a recording."""
        return self._utterances[index]

    @cached_property
    def _utterances(self) -> list[Utterance]:
        made: dict[str, Utterance] = {}
        for pair in read_pairs(self.path, self.audio):
            for utterance in pair:
                made.setdefault(utterance.id, utterance)
        return list(made.values())


def read_pairs(path: str, audio: str | None = None) -> list[ListedPair]:
    """Read a list, see :class:`EvaluationList`.

    Returns:
        Its lines in their order.

    Raises:
        FileNotFoundError: There is no such list.
        ValueError: A line is bad, or an utterance comes twice or as its own prompt; the line is named.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file; give a list of Seed-TTS or LibriSpeech-PC")
    folder = file.parent if audio is None else Path(audio)
    pairs: list[ListedPair] = []
    seen: set[str] = set()
    try:
        lines = split_lines(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error})") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        tabs, bars = line.split("\t"), line.split("|")
        if len(tabs) == 6:
            target, prompt = (_librispeech, tabs[3], tabs[5]), (_librispeech, tabs[0], tabs[2])
        elif len(bars) in (4, 5):
            recording = bars[4] if len(bars) == 5 else f"wavs/{bars[0].strip().removesuffix('.wav')}.wav"
            target, prompt = (_seed_tts, recording, bars[3]), (_seed_tts, bars[2], bars[1])
        else:
            raise ValueError(
                f"{file} line {number} has neither 4 or 5 columns separated by | (Seed-TTS) nor 6 separated by tabs "
                "(LibriSpeech-PC)"
            )
        try:
            pair = ListedPair(*(read(folder, name.strip(), text) for read, name, text in (target, prompt)))
        except ValueError as error:
            raise ValueError(f"{file} line {number}: {error}") from None
        if pair.target.id == pair.prompt.id:
            raise ValueError(f"{file} line {number}: {pair.target.id} is its own prompt, which gives the answer away")
        if pair.target.id in seen:
            raise ValueError(f"{file} line {number}: {pair.target.id} is to be spoken twice; name each utterance once")
        seen.add(pair.target.id)
        pairs.append(pair)
    if not pairs:
        raise ValueError(f"{file} lists nothing")
    return pairs


def _librispeech(folder: Path, name: str, text: str) -> Utterance:
    if not re.fullmatch(r"\w+-\w+-\w+", name):
        raise ValueError(f"{name!r} is no name of LibriSpeech, such as 4992-41806-0009")
    speaker, chapter, _ = name.split("-")
    return Utterance(name, str(folder / speaker / chapter / f"{name}.flac"), speaker, one_line(text))


def _seed_tts(folder: Path, name: str, text: str) -> Utterance:
    # Nothing leads out of the folder: a list may come from anywhere.
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or name.startswith("/"):
        raise ValueError(f"{name!r} leads out of {folder}")
    return Utterance(
        safe_id("/".join(parts).rpartition(".")[0] or parts[-1]), str(folder.joinpath(*parts)), "", one_line(text)
    )
