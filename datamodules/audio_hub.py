"""Speech in a `datasets` audio set, of the hub or of this machine."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from datasets.packaged_modules.cache.cache import Cache

from datamodules.audio_sources import AudioSource, Utterance, one_line, safe_id


class HuggingFaceAudio(AudioSource):
    """One split of any `datasets` set with a column of audio.

    The audio stays in its compressed form until it is read; `datasets` itself decodes nothing.

    Args:
        path: Hub id (``openslr/librispeech_asr``), a folder of Parquet or Arrow files, or one that
            ``save_to_disk`` made.
        name: Configuration of the set, such as ``clean``.
        split: Split, such as ``train.100`` or ``validation[:10%]``.
        revision: Commit or tag of the set on the hub.
        audio_column: Column of the audio.
        text_column: Column of the transcripts; ``None`` if there is none.
        speaker_column: Column of the speakers; ``None`` if there is none.
        id_column: Column of the ids; ``None``: ``<split>-<row>`` is the id.
        cache_dir: Where `datasets` keeps what it downloads; ``None``: where it always does.
        download: Whether to ask the hub. If not, a set of the hub is what the cache holds of it, in whatever revision.

    Raises:
        ConnectionError: At first use: the hub cannot be reached and the set is not in the cache.
        FileNotFoundError: At first use: neither hub nor machine has this set.
        ValueError: At first use: there is no such configuration, split or column.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        split: str = "train",
        revision: str | None = None,
        audio_column: str = "audio",
        text_column: str | None = "text",
        speaker_column: str | None = "speaker_id",
        id_column: str | None = "id",
        cache_dir: str | None = None,
        download: bool = True,
    ) -> None:
        self.path = path
        self.name = name
        self.split = split
        self.revision = revision
        self.audio_column = audio_column
        self.text_column = text_column
        self.speaker_column = speaker_column
        self.id_column = id_column
        self.cache_dir = cache_dir
        self.download = download

    def prepare(self) -> None:
        """Download the set, if it is not in the cache."""
        _ = self._dataset

    def __len__(self) -> int:
        """Count the utterances."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> Utterance:
        """Return an utterance with the bytes of its file."""
        row: dict[str, Any] = self._dataset[index]
        audio = row[self.audio_column]
        # A column of Audio gives both, a column of strings the path, a column of binary the content.
        content, file = (audio.get("bytes"), audio.get("path")) if isinstance(audio, dict) else (None, audio)
        if isinstance(file, bytes):
            content, file = file, None
        place = f"{self.path} {self.split}[{index}]"
        id = safe_id(str(row[self.id_column])) if self.id_column else self._row_id(index)
        speaker = "" if self.speaker_column is None else _plain(row[self.speaker_column])
        text = "" if self.text_column is None else one_line(_plain(row[self.text_column]))
        if content is None and file and Path(file).is_file():
            return Utterance(id, str(file), speaker, text)
        name = f"{place} {Path(file).name}" if file else place
        problem = "" if content is not None else "has neither content nor a file on this machine"
        return Utterance(id, name, speaker, text, content, problem)

    def ids(self) -> Sequence[str]:
        """Return the id of every utterance."""
        if self.id_column is None:
            return [self._row_id(index) for index in range(len(self))]
        return [safe_id(str(id)) for id in self._dataset[self.id_column]]

    def speakers(self) -> Sequence[str]:
        """Return the speaker of every utterance."""
        if self.speaker_column is None:
            return [""] * len(self)
        return [_plain(speaker) for speaker in self._dataset[self.speaker_column]]

    def _row_id(self, index: int) -> str:
        return f"{safe_id(self.split)}-{index:08d}"

    @cached_property
    def _dataset(self) -> datasets.Dataset:
        dataset = self._load()
        columns = [self.audio_column, self.text_column, self.speaker_column, self.id_column]
        wanted = [column for column in columns if column is not None]
        if missing := [column for column in wanted if column not in dataset.column_names]:
            raise ValueError(
                f"{self.path} {self.split} has no column {', '.join(missing)}, only {', '.join(dataset.column_names)}; "
                "name the columns, or set those that do not exist to null"
            )
        dataset = dataset.select_columns(list(dict.fromkeys(wanted)))
        if isinstance(dataset.features[self.audio_column], datasets.Audio):
            dataset = dataset.cast_column(self.audio_column, datasets.Audio(decode=False))
        return dataset

    def _load(self) -> datasets.Dataset:
        folder = Path(self.path)
        try:
            if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
                loaded = datasets.load_from_disk(self.path)
                if isinstance(loaded, datasets.DatasetDict):
                    if self.split not in loaded:
                        raise ValueError(f"no split {self.split!r}, only {', '.join(map(str, loaded))}")
                    loaded = loaded[self.split]
            elif not self.download and not folder.is_dir():
                loaded = self._cached()
            else:
                loaded = datasets.load_dataset(
                    self.path, self.name, split=self.split, revision=self.revision, cache_dir=self.cache_dir
                )
        except (DatasetNotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(
                f"there is no data set {self.path!r}, on this machine or on the hub ({one_line(str(error))})"
            ) from None
        except ConnectionError as error:
            raise ConnectionError(
                f"{self.path!r} is no folder here and the hub cannot be reached ({one_line(str(error))}); "
                "load it once while online, or give a local folder"
            ) from None
        except DatasetGenerationError as error:
            # A folder of audio files, most likely, which `datasets` wants to decode.
            raise ValueError(
                f"{self.path}: {one_line(str(error.__cause__ or error))}; read folders of audio files with AudioFolder"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.path}: {one_line(str(error))}") from None
        if not isinstance(loaded, datasets.Dataset):
            raise ValueError(f"{self.path}: {self.split!r} is no single split; name one")
        return loaded

    def _cached(self) -> object:
        # What load_dataset itself falls back on when the hub does not answer, without asking the hub.
        try:
            cache = Cache(
                self.cache_dir,
                dataset_name=self.path.rpartition("/")[2],
                config_name=self.name,
                version="auto",
                hash="auto",
                repo_id=self.path,
            )
        except ValueError as error:
            raise FileNotFoundError(f"{one_line(str(error))}; download is false") from None
        return cache.as_dataset(self.split)


def _plain(value: object) -> str:
    return "" if value is None else str(value)
