"""Seconds to decode 10 s of speech (500 frames, Q = 12, 27 passes), beside the time its arithmetic takes at least.

python -m benchmarks.decode --threads 2 --json runs/benchmarks/decode.json
"""

import torch

from benchmarks.measure import COMPARISON, TINY, arguments, decode_flops, measure, report
from modules.soundstorm import DecodingSchedule, decode


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, batch={"type": int, "default": 1})
    shape = TINY if options.tiny else COMPARISON
    network = shape.network().eval()
    schedule = DecodingSchedule(iterations=(16,) + (1,) * (shape.num_quantizers - 1))
    semantic = torch.randint(0, network.semantic_vocab_size, (options.batch, shape.frames))
    timing = measure(lambda: decode(network, semantic, schedule=schedule), torch.device("cpu"), repeats=options.repeats)
    name = f"decode, {shape.frames} frames, {schedule.num_passes} passes, batch {options.batch}, fp32"
    report([timing.row(name, decode_flops(shape, schedule, options.batch))], options.json, "Decoding")


if __name__ == "__main__":
    main()
