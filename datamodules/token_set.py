"""The token set on disk: what ``tokenize`` writes and every later stage reads.

A token set is a folder::

    card.json               which codec and semantic tokenizer made it
    data/<split>-*.parquet  shards; columns as in SCHEMA, and SOFT_FIELDS where the card says so
    rejected.jsonl          inputs that were left out, with the reason
    .cache/                 memory-mappable copy made on first reading; may be deleted at any time

Tokens are stored as flat lists of uint16: ``acoustic`` is frame-major, frame 0 level 0 to Q-1, then frame 1; so are the
soft tokens, K per frame. Nested lists would be a hundred times slower to read. Nothing here needs Lightning.
"""

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.exceptions import DatasetGenerationError

from datamodules.audio_sources import split_lines
from datamodules.token_card import MAKE_IT
from datamodules.token_card import TokenSetCard as TokenSetCard  # part of what this module offers
from modules.atomic import write_atomically
from modules.batches import Rejection

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("speaker", pa.string()),
        ("text", pa.string()),
        ("num_frames", pa.int32()),
        ("semantic", pa.list_(pa.uint16())),
        ("acoustic", pa.list_(pa.uint16())),
    ]
)
SOFT_FIELDS = [("soft_tokens", pa.list_(pa.uint16())), ("soft_probabilities", pa.list_(pa.float16()))]
ROW_GROUP_ROWS = 1000


class SoftRow(NamedTuple):
    """What the semantic tokens of an utterance may be, see :class:`modules.batches.SoftTokens`."""

    tokens: npt.NDArray[np.uint16]  # [T, K]
    probabilities: npt.NDArray[np.float16]  # [T, K]


class TokenRow(NamedTuple):
    """One utterance of a token set."""

    id: str
    speaker: str  # "" where unknown
    text: str  # "" where unknown
    semantic: npt.NDArray[np.uint16]  # [T]
    codes: npt.NDArray[np.uint16]  # [Q, T], a transposed view of what is stored
    soft: SoftRow | None = None  # None where the set has none

    def cut(self, start: int, stop: int) -> Self:
        """Keep some frames; the arrays are views."""
        soft = self.soft and SoftRow(self.soft.tokens[start:stop], self.soft.probabilities[start:stop])
        return self._replace(semantic=self.semantic[start:stop], codes=self.codes[:, start:stop], soft=soft)


class TokenSetWriter:
    """Add utterances to one split of a token set, in shards that appear whole or not at all.

    Shards are named ``<split>-r<rank>-<number>.parquet``; the number goes on where an earlier run stopped, so that
    neither ranks nor runs overwrite one another. As a context manager it also keeps what was buffered when its block
    raises: every row was complete.

    Args:
        folder: Folder of the token set; made if it does not exist.
        card: What the tokens mean.
        split: Name of the split, such as ``train``.
        rank: Which of several writing processes this is.
        world_size: How many processes write.
        shard_rows: Utterances per shard.

    Raises:
        ValueError: The folder holds a token set with another card; both values of each field are named.
    """

    def __init__(
        self,
        folder: str | Path,
        card: TokenSetCard,
        split: str = "train",
        rank: int = 0,
        world_size: int = 1,
        shard_rows: int = 2000,
    ) -> None:
        if not re.fullmatch(r"\w[\w.-]*", split):
            raise ValueError(f"split {split!r} becomes part of file names; use letters, digits, '_', '-' and '.'")
        if shard_rows < 1:
            raise ValueError(f"shard_rows is {shard_rows}; it must be at least 1")
        self.folder = Path(folder)
        self.card = card
        self.split = split
        self.rank = rank
        self.shard_rows = shard_rows
        self.num_written = 0
        self.num_rejected = 0
        self._rows: list[dict[str, Any]] = []
        if (self.folder / "card.json").exists():
            TokenSetCard.load(self.folder).check_matches(
                card,
                f"the token set in {self.folder}",
                "the one to be written (name another output folder, or tokenize with the same models and soft tokens)",
            )
        else:
            card.save(self.folder)
        (self.folder / "data").mkdir(exist_ok=True)
        rejected = self.folder / "rejected.jsonl"
        if rejected.exists() and not rejected.read_bytes().endswith(b"\n"):
            self._append(b"\n")  # a line was cut short by a crash
        for file in (self.folder / "data").glob(f"{split}-r*.parquet.tmp"):
            # Left by a run that was killed. Of a larger world, too: somebody has to own the files of missing ranks.
            owner = re.fullmatch(rf"{re.escape(split)}-r(\d+)-\d+\.parquet\.tmp", file.name)
            if owner and int(owner[1]) % world_size == rank:
                file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(
        self,
        id: str,
        semantic: npt.NDArray[np.integer],
        codes: npt.NDArray[np.integer],
        speaker: str = "",
        text: str = "",
        soft: SoftRow | None = None,
    ) -> None:
        """Add an utterance; it is on disk after the shard is full, or after :meth:`flush`.

        Args:
            id: Name of the utterance, unique in the split.
            semantic: Semantic tokens at the codec's frame rate, shape ``[T]``.
            codes: Acoustic tokens, shape ``[Q, T]``.
            speaker: Name of the speaker, ``""`` where unknown.
            text: Transcript, ``""`` where unknown.
            soft: What the semantic tokens may be, ``[T, K]``; where the card has it, and nowhere else.

        Raises:
            ValueError: Shapes or values do not fit the card.
        """
        if codes.ndim != 2 or codes.shape[0] != self.card.num_quantizers or semantic.shape != codes.shape[1:]:
            raise ValueError(
                f"{id}: semantic {list(semantic.shape)} and codes {list(codes.shape)} are not [T] and [Q, T] "
                f"with Q = {self.card.num_quantizers}"
            )
        kinds = [("semantic", semantic, self.card.semantic_vocab_size), ("codes", codes, self.card.codebook_size)]
        if soft is not None or self.card.soft_semantic:
            kinds.append(("soft semantic tokens", self._check_soft(id, soft, len(semantic)), kinds[0][2]))
        for name, tokens, size in kinds:
            if tokens.size and not 0 <= tokens.min() <= tokens.max() < size:
                raise ValueError(f"{id}: {name} run from {tokens.min()} to {tokens.max()}, not from 0 to {size - 1}")
        self._rows.append(
            {
                "id": id,
                "speaker": speaker,
                "text": text,
                "num_frames": codes.shape[1],
                "semantic": semantic.astype(np.uint16),
                "acoustic": codes.T.astype(np.uint16).reshape(-1),
            }
        )
        if soft is not None:
            self._rows[-1]["soft_tokens"] = soft.tokens.astype(np.uint16).reshape(-1)
            self._rows[-1]["soft_probabilities"] = soft.probabilities.astype(np.float16).reshape(-1)
        if len(self._rows) >= self.shard_rows:
            self.flush()

    def reject(self, rejection: Rejection) -> None:
        """Append a line to ``rejected.jsonl`` at once."""
        line = json.dumps({"split": self.split, **rejection._asdict()}, ensure_ascii=False) + "\n"
        self._append(line.encode())
        self.num_rejected += 1

    def flush(self) -> None:
        """Put what is buffered into a shard of its own."""
        if not self._rows:
            return
        schema = schema_of(self.card)
        table = pa.table({name: [row[name] for row in self._rows] for name in schema.names}, schema=schema)
        target = self._next_shard()
        temporary = target.with_name(target.name + ".tmp")
        try:
            with open(temporary, "wb") as file:
                # Checksums, because a flipped bit in a shard may well be a valid token.
                pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_checksum=True)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"{target} cannot be written ({error.strerror or error}); the shards before it are complete: make room "
                "and run the command again, it goes on where it stopped",
            ) from error
        self.num_written += len(self._rows)
        self._rows = []

    def close(self) -> None:
        """Write the last, shorter shard. The writer may be used again afterwards."""
        self.flush()

    def _check_soft(self, id: str, soft: SoftRow | None, frames: int) -> npt.NDArray[np.integer]:
        count = (self.card.soft_semantic or {}).get("num_tokens", 0)
        shapes = [] if soft is None else [list(values.shape) for values in soft]
        if soft is None or not count or shapes != [[frames, count]] * 2:
            raise ValueError(f"{id}: soft semantic tokens {shapes} are not [T, K] twice, with K = {count}")
        if not (np.isfinite(soft.probabilities).all() and (soft.probabilities >= 0).all()):
            raise ValueError(f"{id}: probabilities of its soft semantic tokens are negative, or no numbers")
        if not soft.probabilities.astype(np.float16).sum(axis=1, dtype=np.float32).all():
            raise ValueError(f"{id}: all probabilities of the soft semantic tokens of a frame are 0")
        return soft.tokens

    def _append(self, line: bytes) -> None:
        # One write call on a file opened for appending: lines of several processes do not mix.
        with open(self.folder / "rejected.jsonl", "ab", buffering=0) as file:
            file.write(line)

    def _next_shard(self) -> Path:
        names = (self.folder / "data" / f"{self.split}-r{self.rank:03d}-{number:05d}.parquet" for number in count())
        return next(name for name in names if not name.exists())


def schema_of(card: TokenSetCard) -> pa.Schema:
    """Give the columns of a token set's shards."""
    return pa.schema([*SCHEMA, *(SOFT_FIELDS if card.soft_semantic else [])])


def shard_files(folder: str | Path, split: str) -> list[Path]:
    """List the shards of a split, in order; empty where there are none."""
    pattern = re.compile(rf"{re.escape(split)}-(r\d+-\d+|\d+-of-\d+)\.parquet")
    return sorted(file for file in (Path(folder) / "data").glob("*.parquet") if pattern.fullmatch(file.name))


def split_names(folder: str | Path) -> list[str]:
    """List the splits of a token set."""
    names = (re.fullmatch(r"(.+)-(?:r\d+-\d+|\d+-of-\d+)", file.stem) for file in Path(folder).glob("data/*.parquet"))
    return sorted({name[1] for name in names if name})


def done_ids(folder: str | Path, split: str = "train") -> set[str]:
    """Read the ids of the utterances a split holds, and nothing else of it.

    Raises:
        ValueError: A shard is damaged; it is named.
    """
    ids: set[str] = set()
    for file in shard_files(folder, split):
        try:
            table = pq.read_table(file, columns=["id"], page_checksum_verification=True)
            table.validate(full=True)
            ids.update(table["id"].to_pylist())
        except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
            raise _damaged(file, error) from None
    return ids


def read_rejected(folder: str | Path, split: str = "train") -> list[Rejection]:
    """Read what was left out of a split, each id once; a line cut short by a crash is passed over."""
    file = Path(folder) / "rejected.jsonl"
    rejected: dict[str, Rejection] = {}
    for line in _lines(file):
        try:
            row = json.loads(line)
            if row["split"] == split:
                rejected[row["id"]] = Rejection(row["id"], row["path"], row["reason"])
        except (ValueError, KeyError, TypeError):
            continue
    return list(rejected.values())


def forget_rejected(folder: str | Path, split: str = "train") -> None:
    """Take the lines of a split out of ``rejected.jsonl``, atomically, so that its inputs are tried again."""
    file = Path(folder) / "rejected.jsonl"
    others = [
        json.dumps({"split": name, **rejection._asdict()}, ensure_ascii=False) + "\n"
        for name in _rejected_splits(file) - {split}
        for rejection in read_rejected(folder, name)
    ]
    if file.exists():
        write_atomically(file, "".join(others))


def open_token_set(
    folder: str | Path, split: str = "train", cache_dir: str | Path | None = None, num_proc: int | None = None
) -> datasets.Dataset:
    """Open a split memory-mapped, in Arrow format; use :func:`read_rows` and :func:`frame_counts` on it.

    The first call copies the shards into an uncompressed cache, about 7000 rows per second and process; later calls
    only map it. The network is not touched.

    Args:
        folder: Folder of the token set.
        split: Name of the split.
        cache_dir: Where the cache lies, for sets on read-only or slow disks; ``None``: ``.cache`` in the folder.
        num_proc: Processes that fill the cache.

    Returns:
        A ``datasets.Dataset`` with the columns of :func:`schema_of` its card.

    Raises:
        FileNotFoundError: There is no such folder or split.
        ValueError: A shard is damaged or has other columns; it is named.
    """
    expected = schema_of(TokenSetCard.load(folder))
    files = shard_files(folder, split)
    if not files:
        raise FileNotFoundError(f"{folder} has no split {split!r}, only {split_names(folder)}; {MAKE_IT}")
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _damaged(file, error) from None
        if not schema.equals(expected):
            found = ", ".join(f"{field.name}: {field.type}" for field in schema)
            raise ValueError(f"{file} is no shard of a token set: its columns are {found}; remove it")
    cache = Path(cache_dir or Path(folder) / ".cache")
    _verify(files, cache)
    try:
        dataset = datasets.Dataset.from_parquet(
            [str(file) for file in files],
            features=datasets.Features.from_arrow_schema(expected),
            cache_dir=str(cache),
            num_proc=num_proc,
        )
    except DatasetGenerationError as error:
        for file in files:
            _read_whole(file)
        raise ValueError(f"{folder} cannot be read ({error.__cause__ or error})") from error
    except PermissionError as error:
        raise PermissionError(f"{folder} is read-only ({error}); give a cache_dir") from None
    assert isinstance(dataset, datasets.Dataset)
    return dataset.with_format("arrow")


def frame_counts(dataset: datasets.Dataset) -> npt.NDArray[np.int32]:
    """Return the frames of every utterance, shape ``[len(dataset)]``, without reading a token."""
    return dataset.data.column("num_frames").to_numpy()


def read_rows(dataset: datasets.Dataset, indices: Sequence[int], num_quantizers: int) -> list[TokenRow]:
    """Read utterances of an open token set by index, in the order asked for.

    Args:
        dataset: What :func:`open_token_set` returned.
        indices: Row numbers.
        num_quantizers: Levels Q, from the card.

    Returns:
        One row per index. Its arrays are read-only views of the mapped file.

    Raises:
        ValueError: A row's columns disagree about its length; it is named.
    """
    table: pa.Table = dataset.with_format("arrow")[list(indices)]
    ids, speakers, texts = (table[name].to_pylist() for name in ("id", "speaker", "text"))
    rows = []
    for number, (frames, semantic, acoustic) in enumerate(
        zip(table["num_frames"].to_pylist(), table["semantic"], table["acoustic"], strict=True)
    ):
        flat, tokens = acoustic.values.to_numpy(), semantic.values.to_numpy()
        if len(tokens) != frames or len(flat) != frames * num_quantizers:
            raise ValueError(
                f"{ids[number]}: {len(tokens)} semantic and {len(flat)} acoustic tokens are not those of {frames} "
                f"frames of {num_quantizers} levels; make the token set anew"
            )
        codes = flat.reshape(-1, num_quantizers).T
        soft = _read_soft(table, number, frames, ids[number])
        rows.append(TokenRow(ids[number], speakers[number], texts[number], tokens, codes, soft))
    return rows


def _read_soft(table: pa.Table, number: int, frames: int, id: str) -> SoftRow | None:
    if SOFT_FIELDS[0][0] not in table.column_names or not frames:
        return None
    tokens, probabilities = (table[name][number].values.to_numpy() for name, _ in SOFT_FIELDS)
    if len(tokens) != len(probabilities) or len(tokens) % frames or not len(tokens):
        raise ValueError(
            f"{id}: {len(tokens)} soft semantic tokens and {len(probabilities)} probabilities are not those of "
            f"{frames} frames; make the token set anew"
        )
    return SoftRow(tokens.reshape(frames, -1), probabilities.reshape(frames, -1))


def _rejected_splits(file: Path) -> set[str]:
    return {match[1] for match in (re.match(r'\{"split": "([^"]+)"', line) for line in _lines(file)) if match}


def _lines(file: Path) -> list[str]:
    return split_lines(file.read_text(encoding="utf-8", errors="replace")) if file.exists() else []


def _verify(files: Sequence[Path], cache: Path) -> None:
    """Read shards that are new or have changed once, with their checksums; the list of those known is in the cache.

    Raises:
        ValueError: A shard is damaged.
    """
    record = cache / "verified.json"
    try:
        known = dict(json.loads(record.read_bytes()))
    except (OSError, ValueError, TypeError):
        known = {}
    stamps = {str(file.resolve()): [(stat := file.stat()).st_size, stat.st_mtime_ns] for file in files}
    fresh = [name for name, stamp in stamps.items() if known.get(name) != stamp]
    for name in fresh:
        _read_whole(Path(name))
    if fresh:
        with suppress(OSError):  # a cache that cannot be written is judged by who fills it
            cache.mkdir(parents=True, exist_ok=True)
            write_atomically(record, json.dumps(known | stamps))


def _read_whole(file: Path) -> None:
    try:
        pq.read_table(file, page_checksum_verification=True).validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{file} is damaged ({reason}); delete it and run the tokenize command again")
