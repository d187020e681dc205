"""The token store at scale: an epoch's plan over 14.4 million rows, random reads, the loader's rate.

python -m benchmarks.token_store --json runs/benchmarks/token_store.json

60,000 hours of 15 s are 14.4 million utterances; their index holds lengths only. Reads and loader run on a token set
of random tokens of its own (--rows), made in a temporary folder.
"""

import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import arguments, report
from datamodules.loaders import ResumableDataLoader
from datamodules.samplers import TokenBucketBatchSampler
from datamodules.token_set import TokenRow, TokenSetCard, TokenSetWriter
from datamodules.token_store import TokenStore
from datamodules.token_windows import TrainingWindows

CARD = TokenSetCard({"name": "random"}, {"name": "random"}, 16_000, 50.0, 12, 1024, 1024)


class Index:
    """Lengths of utterances, and nothing to read."""

    card = CARD

    def __init__(self, rows: int) -> None:
        self.frames = np.random.default_rng(0).integers(50, 1_500, rows).astype(np.int32)

    def read(self, rows: Sequence[int] | np.ndarray) -> list[TokenRow]:
        """Refuse.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError


def sampler(source: Index | TokenStore, batch_frames: int = 24_000, world_size: int = 1) -> TokenBucketBatchSampler:
    """Make the batches of training."""
    rows = np.arange(len(source.frames))
    windows = TrainingWindows(source, rows, min_frames=50, max_frames=1_500, seed=0)
    return TokenBucketBatchSampler(windows, batch_frames, world_size=world_size)


def plan(rows: int) -> dict[str, Any]:
    """Time the plan of an epoch, and count what it wastes."""
    index = Index(rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    batches = iter(made := sampler(index))
    next(batches)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    next(iter(made))  # the number of batches is known now: this is what each epoch costs
    again = time.perf_counter() - start
    lengths = made.dataset.frames(0)
    real = padded = 0
    for request in batches:
        real += int(lengths[request.rows].sum())
        padded += len(request.rows) * request.width
    return {
        "what": f"plan of an epoch, {rows} rows",
        "first_seconds": seconds,
        "seconds": again,
        "added_gb": (peak - before) * 1024 / 1e9,
        "batches": len(made),
        "padding": 1 - real / padded,
    }


def write(folder: Path, rows: int) -> TokenStore:
    """Write a token set of random tokens."""
    random = np.random.default_rng(0)
    lengths = random.integers(50, 1_500, rows)
    with TokenSetWriter(folder, CARD) as writer:
        for number, length in enumerate(lengths):
            codes = random.integers(0, 1024, (12, length))
            writer.write(f"utterance-{number:06d}", codes[0], codes, f"speaker-{number % 100}")
    return TokenStore([folder], ["train"])


def reads(store: TokenStore, count: int) -> dict[str, Any]:
    """Time random reads, 32 rows at a time."""
    rows = np.random.default_rng(1).integers(0, len(store), (count // 32, 32))
    store.read(rows[0])
    start = time.perf_counter()
    for batch in rows:
        store.read(batch)
    seconds = time.perf_counter() - start
    return {"what": "random reads, one process", "seconds": seconds, "rows_per_second": rows.size / seconds}


def loading(store: TokenStore, workers: int) -> dict[str, Any]:
    """Time an epoch of the training loader."""
    loader = ResumableDataLoader(sampler(store), num_workers=workers)
    utterances, start = 0, time.perf_counter()
    for batch in loader:
        utterances += len(batch.ids)
    seconds = time.perf_counter() - start
    rate = utterances / seconds
    return {
        "what": f"loader, {workers} workers",
        "seconds": seconds,
        "utterances_per_second": rate,
        "per_core_times_16": 16 * rate / max(1, workers),
    }


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        index={"type": int, "default": 14_400_000},
        rows={"type": int, "default": 4_000},
        workers={"type": int, "nargs": "+", "default": [0, 2]},
    )
    index, rows = (100_000, 400) if options.tiny else (options.index, options.rows)
    table = [plan(index)]
    with tempfile.TemporaryDirectory() as folder:
        store = write(Path(folder), rows)
        table.append(reads(store, 20 * rows))
        table += [loading(store, workers) for workers in options.workers]
    report(table, options.json, "Token store")


if __name__ == "__main__":
    main()
