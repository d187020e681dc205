"""What bf16 and int8 on the CPU save, and how many codes they change (greedy decoding, one pass per level and paper's).

python -m benchmarks.precision --checkpoint runs/base/checkpoints/last.ckpt --json runs/benchmarks/precision.json

Random weights give nearly equal logits, whose order any rounding turns over: for the share of codes that change, give a
trained network (--checkpoint, of the comparison shape or with --config, a YAML of the network).
"""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from benchmarks.measure import COMPARISON, TINY, Shape, arguments, decode_flops, measure, report
from modules.soundstorm import DecodingSchedule, SoundStormNetwork, decode


def quantized(network: SoundStormNetwork) -> SoundStormNetwork:
    """Copy a network with its linear layers in int8, their inputs quantised on the fly."""
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(network), {nn.Linear}, dtype=torch.qint8)  # ty: ignore[deprecated]


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__, checkpoint={"type": Path}, config={"type": Path, "default": Path("configs/network/base.yaml")}
    )
    shape = TINY if options.tiny else COMPARISON
    network = shape.network().eval()
    if options.checkpoint:
        sizes = yaml.safe_load(options.config.read_text())["init_args"]
        network = SoundStormNetwork(**sizes).eval()
        state = torch.load(options.checkpoint, weights_only=True, map_location="cpu")["state_dict"]
        prefix = "network."
        network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        shape = Shape(
            *(sizes[n] for n in ("dim", "num_layers", "num_heads", "ffn_dim", "conv_kernel_size", "num_quantizers")),
            sizes["codebook_size"],
            shape.frames,
        )
    semantic = torch.randint(0, network.semantic_vocab_size, (1, shape.frames))
    greedy = DecodingSchedule(iterations=(1,) * shape.num_quantizers)
    paper = DecodingSchedule(iterations=(16,) + (1,) * (shape.num_quantizers - 1))
    eight_bit = quantized(network)

    def plain(schedule: DecodingSchedule) -> Tensor:
        return decode(network, semantic, schedule=schedule)

    def bf16(schedule: DecodingSchedule) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return decode(network, semantic, schedule=schedule)

    def int8(schedule: DecodingSchedule) -> Tensor:
        return decode(eight_bit, semantic, schedule=schedule)

    kinds: dict[str, Callable[[DecodingSchedule], Tensor]] = {
        "fp32": plain,
        "bf16 autocast": bf16,
        "int8 dynamic": int8,
    }
    device, expected, rows = torch.device("cpu"), {True: plain(greedy), False: plain(paper)}, []
    for name, run in kinds.items():
        timing = measure(lambda run=run: run(paper), device, repeats=options.repeats)
        row = timing.row(name, decode_flops(shape, paper))
        for is_greedy, schedule in ((True, greedy), (False, paper)):
            changed = (run(schedule) != expected[is_greedy]).float().mean().item()
            row["codes_changed_greedy" if is_greedy else "codes_changed_sampled"] = changed
        rows.append(row)
    for row in rows:
        row["speedup"] = rows[0]["seconds"] / row["seconds"]
    weights = "trained" if options.checkpoint else "random"
    report(rows, options.json, f"Precision on the CPU, {shape.frames} frames, {weights} weights")


if __name__ == "__main__":
    main()
