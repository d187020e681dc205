"""Decoding and training of the paper's 354 M preset on one GPU: eager, compiled, CUDA graphs; fp32, bf16 and FP8.

python -m benchmarks.gpu --json runs/benchmarks/gpu.json
python -m benchmarks.gpu --codec checkpoints/small-16k/codec        (milliseconds with the codec's decoder, too)

30 s of speech are 1500 frames and 27 passes, 29.5 TFLOP: about 37 ms at 790 TFLOP/s. The codes of every fast path are
compared with those of eager fp32 under greedy decoding; bf16 may differ, and the table says by how much.
"""

import copy
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measure import PAPER, TINY, Shape, arguments, decode_flops, measure, peak_memory, report
from benchmarks.train_step import Step
from modules.codec.soundstream import SoundStream
from modules.soundstorm import DecodingSchedule, SoundStormNetwork, decode

# How the trunk is run: torch.compile's settings, or none.
COMPILERS: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "compile": {"dynamic": False},
    "compile + CUDA graphs": {"dynamic": False, "mode": "reduce-overhead"},
}
# Kernels of attention, each alone, in bfloat16 and eager; elsewhere torch chooses.
ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "matrix products": SDPBackend.MATH,
}


class Decoder(NamedTuple):
    """One way to decode."""

    network: Callable[[], SoundStormNetwork]
    dtype: torch.dtype
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def decoders(network: SoundStormNetwork) -> dict[str, Decoder]:
    """Give every way to run a network; copies are made when they are asked for."""
    made = {}
    for dtype in (torch.float32, torch.bfloat16):
        for name, settings in COMPILERS.items():
            made[f"{str(dtype).removeprefix('torch.')}, {name}"] = Decoder(
                partial(_prepared, network, dtype, settings), dtype
            )
    for name, backend in ATTENTION.items():
        around = partial(sdpa_kernel, backend)
        made[f"bfloat16, eager, attention by {name}"] = Decoder(
            partial(_prepared, network, torch.bfloat16, None), torch.bfloat16, around
        )
    for name in ("compile", "compile + CUDA graphs"):
        made[f"FP8 products, {name}"] = Decoder(
            partial(_prepared, network, torch.bfloat16, COMPILERS[name], fp8=True), torch.bfloat16
        )
    return made


def _prepared(
    network: SoundStormNetwork, dtype: torch.dtype, settings: dict[str, Any] | None, fp8: bool = False
) -> SoundStormNetwork:
    """Copy a network to a type, its linear layers to FP8 where asked for, and compile its trunk.

    Raises:
        RuntimeError: FP8 needs torchao, which is not installed.
    """
    copied = copy.deepcopy(network).to(dtype)
    if fp8:
        try:
            from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, quantize_  # ty: ignore[import-not-found]
        except ImportError as error:
            raise RuntimeError("FP8 needs torchao: pip install torchao") from error
        quantize_(copied.trunk, Float8DynamicActivationFloat8WeightConfig())
    if settings is not None:
        copied.trunk.compile(**settings)
    return copied


def decoding(shape: Shape, batches: list[int], repeats: int, codec: SoundStream | None) -> list[dict[str, Any]]:
    """Time decoding for each batch size and way to run it."""
    device = torch.device("cuda")
    schedule = DecodingSchedule(iterations=(16,) + (1,) * (shape.num_quantizers - 1))
    greedy = DecodingSchedule(iterations=(1,) * shape.num_quantizers)
    ways = decoders(shape.network().to(device).eval())
    rows = []
    for batch in batches:
        semantic = torch.randint(0, 1024, (batch, shape.frames), device=device)
        expected = None
        for name, way in ways.items():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            row: dict[str, Any] = {"what": f"decode, {name}, batch {batch}"}
            try:
                network = way.network()

                def run(network: SoundStormNetwork = network, semantic: Tensor = semantic) -> Tensor:
                    # Without this the outputs of CUDA graphs are overwritten by the next pass while still in use.
                    torch.compiler.cudagraph_mark_step_begin()
                    return decode(network, semantic, schedule=schedule)

                with way.around():
                    codes = decode(network, semantic, schedule=greedy)
                    expected = codes if expected is None else expected
                    timing = measure(run, device, way.dtype, repeats)
                    row = timing.row(row["what"], decode_flops(shape, schedule, batch))
                    row["tokens_ms"] = 1000 * timing.seconds
                    if codec is not None:
                        timing = measure(with_codec(run, codec), device, way.dtype, repeats)
                        row["with_codec_ms"] = 1000 * timing.seconds
                row["codes_changed_greedy"] = (codes != expected).float().mean().item()
                row["peak_gb"] = peak_memory(device)
            except (RuntimeError, AssertionError) as error:  # out of memory is a RuntimeError
                row["error"] = " ".join(str(error).split())[:120]
            print(row, flush=True)
            rows.append(row)
    return rows


def with_codec(run: Callable[[], Tensor], codec: SoundStream) -> Callable[[], Tensor]:
    """Decode to audio after decoding to codes; the codec may have fewer levels and codes than the network."""
    return lambda: codec.decode(run()[:, : codec.num_quantizers] % codec.codebook_size)


def training(shape: Shape, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Time training steps in bf16, and give the share of the matrix rate that they reach."""
    device, rows = torch.device("cuda"), []
    for name, compiled, checkpointing in (
        ("eager", False, False),
        ("compile", True, False),
        ("compile, activation checkpointing", True, True),
    ):
        row: dict[str, Any] = {"what": f"train step, bf16, {name}, batch {batch}"}
        try:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            network = shape.network(activation_checkpointing=checkpointing).to(device).train()
            if compiled:
                network.trunk.compile(dynamic=False)
            optimizer = torch.optim.AdamW(network.parameters(), fused=True)
            step = Step(network, shape, batch, optimizer, {"device_type": "cuda", "dtype": torch.bfloat16})
            timing = measure(step, device, torch.bfloat16, repeats)
            row = timing.row(row["what"], step.flops)
            row["mfu_of_measured_rate"] = 1 / row["times_bound"]
            row["frames_per_second"] = batch * shape.frames / timing.seconds
            row["peak_gb"] = peak_memory(device)
        except (RuntimeError, AssertionError) as error:  # out of memory is a RuntimeError
            row["error"] = " ".join(str(error).split())[:120]
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        batches={"type": int, "nargs": "+", "default": [1, 8, 32]},
        train_batch={"type": int, "default": 16},
        codec={"type": Path, "help": "Folder of a codec, to time its decoder as well."},
    )
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a GPU that torch can use, and finds none; benchmarks.decode runs on the CPU")
    torch.set_float32_matmul_precision("high")
    codec = SoundStream.from_pretrained(options.codec).cuda() if options.codec else None
    shape = TINY if options.tiny else PAPER
    rows = decoding(shape, options.batches, options.repeats, codec) + training(
        shape, options.train_batch, options.repeats
    )
    report(rows, options.json, f"{torch.cuda.get_device_name()}, {shape.frames} frames")


if __name__ == "__main__":
    main()
