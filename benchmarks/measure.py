"""What the benchmarks share: arithmetic counted by hand, the machine's own speed, and a table with its json.

A machine that is busy is slower than itself a minute ago. So each repeat is held against the rate of matrix products
just before and just after it, and repeats where that rate fell are left out.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from modules.soundstorm import DecodingSchedule, SoundStormNetwork

STEADY = 0.85  # a repeat counts if the rate around it was at least this share of the best rate seen


class Shape(NamedTuple):
    """Sizes of a network and its input."""

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    kernel: int
    num_quantizers: int
    codebook_size: int
    frames: int

    def network(self, **options: Any) -> SoundStormNetwork:
        """Build the network."""
        torch.manual_seed(0)
        return SoundStormNetwork(
            self.dim,
            self.num_layers,
            self.num_heads,
            self.ffn_dim,
            self.kernel,
            self.num_quantizers,
            self.codebook_size,
            **options,
        )


COMPARISON = Shape(256, 6, 4, 1024, 5, 12, 1024, 500)
PAPER = Shape(1024, 12, 16, 4096, 5, 12, 1024, 1500)
TINY = Shape(64, 2, 2, 128, 5, 4, 64, 100)  # to see that a script runs


def trunk_flops(shape: Shape) -> float:
    """Count the operations of one pass over one row; a multiplication and an addition are two."""
    d, inner = shape.dim, 2 * shape.dim
    per_frame = (
        8 * d * shape.ffn_dim  # two feed-forward layers of two products each
        + 8 * d * d  # queries, keys, values, output
        + 4 * shape.frames * d  # scores and their sums
        + 6 * d * inner  # convolution module: widen twice, project
        + 2 * shape.kernel * inner
    )
    return float(shape.num_layers * per_frame * shape.frames)


def decode_flops(shape: Shape, schedule: DecodingSchedule, batch: int = 1) -> float:
    """Count the operations of decoding whole utterances without prompt; heads see the masked tokens only."""
    plans = [schedule.plan(shape.frames, level) for level in range(shape.num_quantizers)]
    heads = sum(2 * shape.dim * shape.codebook_size * one.num_masked for plan in plans for one in plan)
    return batch * (trunk_flops(shape) * sum(map(len, plans)) + heads)


def train_flops(shape: Shape, batch: int, num_masked: int) -> float:
    """Count the operations of a training step: forward once, backward twice that."""
    return 3 * (batch * trunk_flops(shape) + 2 * shape.dim * shape.codebook_size * num_masked)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.float32, size: int | None = None) -> float:
    """Measure the rate of square matrix products now, in operations per second: the best of some."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        synchronize(device)
        best = min(best, (time.perf_counter() - start) / 4)
    return 2 * size**3 / best


class Timing(NamedTuple):
    """One thing measured."""

    seconds: float  # median of the repeats that count
    rate: float  # matrix products around them, operations per second
    repeats: int  # that count
    discarded: int

    def row(self, name: str, flops: float | None = None) -> dict[str, Any]:
        """Lay out a row of a table; with ``flops`` also the bound, operations over rate, and the ratio to it."""
        row: dict[str, Any] = {"what": name, "seconds": self.seconds, "matmul_gflops": self.rate / 1e9}
        if flops is not None:
            row |= {"gflop": flops / 1e9, "bound_seconds": flops / self.rate}
            row["times_bound"] = self.seconds * self.rate / flops
        return row | {"repeats": self.repeats, "discarded": self.discarded}


def measure(
    function: Callable[[], object],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    repeats: int = 5,
    patience: float = 60.0,
) -> Timing:
    """Time a function, after one call to warm up.

    Args:
        function: What is timed.
        device: Where it runs.
        dtype: Type whose matrix products are the measure.
        repeats: How often.
        patience: Seconds after which what is slow is not repeated any more.

    Returns:
        The median over the repeats around which the machine was steady.
    """
    function()
    seconds: list[float] = []
    rates: list[tuple[float, float]] = []
    for _ in range(repeats):
        if sum(seconds) > patience:
            break
        before = matmul_rate(device, dtype)
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        rates.append((before, matmul_rate(device, dtype)))
    best = max(max(pair) for pair in rates)
    kept = [i for i, pair in enumerate(rates) if min(pair) >= STEADY * best]
    if not kept:  # nowhere steady: the steadiest one, and the row says that all others went
        kept = [max(range(len(rates)), key=lambda i: min(rates[i]))]
    rate = statistics.median(sum(rates[i]) / 2 for i in kept)
    return Timing(statistics.median(seconds[i] for i in kept), rate, len(kept), len(rates) - len(kept))


def peak_memory(device: torch.device) -> float:
    """Give the largest memory of this process so far, in GB: of the device where that is a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def arguments(description: str | None, **extra: dict[str, Any]) -> argparse.Namespace:
    """Parse what all scripts take, and set the number of threads.

    Args:
        description: The script's docstring.
        extra: More options, as keyword arguments of ``add_argument``.

    Returns:
        ``repeats``, ``threads``, ``json``, ``tiny`` and the extra ones.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="Where to write the rows.")
    parser.add_argument("--tiny", action="store_true", help="Toy sizes, to see that the script runs.")
    for name, options in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    return parsed


def report(rows: list[dict[str, Any]], file: Path | None, title: str) -> None:
    """Print rows as a Markdown table, and write them with the machine they were measured on."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([_shown(row.get(name)) for name in columns] for row in rows)]
    print(f"\n{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines), flush=True)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"title": title, "machine": machine(), "rows": rows}, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """Say what measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
