"""Seconds that each system takes for the codes of one utterance, beside SoundStorm's: random weights, equal sizes.

python -m benchmarks.systems --json runs/benchmarks/systems.json                       (20 M parameters each, CPU)
python -m benchmarks.systems --size paper --device cuda --dtype bfloat16               (350 M parameters each, one GPU)

AudioLM and VALL-E keep keys and values from token to token; on a GPU each of their steps is a captured graph, and
SoundStorm's trunk is compiled to graphs, too. The first 3 s of each utterance, at most half of it, are a prompt:
real-time factors are seconds per second generated after it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.measure import arguments, measure, report
from callbacks.speed_writer import random_batch
from datamodules.token_set import TokenSetCard
from modules.audiolm import AudioLM, AudioLMCoarse, AudioLMFine, CoarseNetwork, FineNetwork
from modules.soundstorm import SoundStorm, SoundStormNetwork
from modules.token_generator import TokenGenerator
from modules.valle import (
    AutoregressiveNetwork,
    NonAutoregressiveNetwork,
    VallE,
    VallEAutoregressive,
    VallENonAutoregressive,
)

CONFIGS = Path(__file__).parents[1] / "configs"
CARD = TokenSetCard({"name": "random"}, {"name": "random"}, 16_000, 50.0, 12, 1024, 1024)


def sizes(file: str) -> dict[str, Any]:
    """Read the arguments of a network."""
    return yaml.safe_load((CONFIGS / file).read_text())["init_args"]


def systems(size: str) -> dict[str, TokenGenerator]:
    """Make all systems in one size, ``small`` or ``paper``."""
    return {
        "SoundStorm": SoundStorm(SoundStormNetwork(**sizes(f"network/{size}.yaml"))),
        "AudioLM": AudioLM(
            AudioLMCoarse(CoarseNetwork(**sizes(f"audiolm/networks/coarse_{size}.yaml"))),
            AudioLMFine(FineNetwork(**sizes(f"audiolm/networks/fine_{size}.yaml"))),
        ),
        "VALL-E": VallE(
            VallEAutoregressive(AutoregressiveNetwork(**sizes(f"valle/networks/ar_{size}.yaml"))),
            VallENonAutoregressive(NonAutoregressiveNetwork(**sizes(f"valle/networks/nar_{size}.yaml"))),
        ),
    }


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        seconds={"type": float, "nargs": "+", "default": [5.0, 10.0, 30.0]},
        size={"choices": ["small", "paper"], "default": "small"},
        device={"default": "cpu"},
        dtype={"choices": ["float32", "bfloat16"], "default": "float32"},
    )
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    made = {name: system.to(device, dtype).eval() for name, system in systems(options.size).items()}
    generate: dict[str, Callable[..., Any]] = {name: system.generate for name, system in made.items()}
    if device.type == "cuda":
        soundstorm: Any = made["SoundStorm"]
        soundstorm.network.trunk.compile(dynamic=False, mode="reduce-overhead")
        for name in ("AudioLM", "VALL-E"):
            generate[name] = partial(generate[name], cached="static")
    rows = []
    for seconds in options.seconds:
        batch, first = random_batch(CARD, seconds, 3.0, seed=0), None
        generated = int(batch.lengths - batch.prompt_frames) / CARD.frame_rate
        for name, system in made.items():
            given = system.transfer_batch_to_device(batch, device, 0)
            timing = measure(partial(generate[name], given), device, dtype, options.repeats)
            first = first or timing.seconds
            row = timing.row(f"{name}, {seconds:g} s") | {"parameters": sum(p.numel() for p in system.parameters())}
            rows.append(
                row | {"real_time_factor": timing.seconds / generated, "times_soundstorm": timing.seconds / first}
            )
            print(rows[-1], flush=True)
    report(rows, options.json, f"Systems, {options.size}, {options.dtype} on {device}, batch 1")


if __name__ == "__main__":
    main()
