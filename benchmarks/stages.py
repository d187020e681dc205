"""Every stage in x real time, with peak memory, against duration and batch size.

python -m benchmarks.stages --json runs/benchmarks/stages.json

Tokenise (our 16 kHz codec, log-mel semantic tokens), generate (a network of the comparison size, random weights),
decode to audio, evaluate (mel distance; scorers with models of their own are as fast as those models). Each row runs
in a process of its own, whose peak memory is therefore that of the stage.
"""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import COMPARISON, TINY, Shape, arguments, measure, peak_memory, report
from modules.batches import AudioBatch
from modules.codec.soundstream import SoundStream
from modules.evaluation import MelDistance
from modules.evaluation.items import EvaluationItem
from modules.semantic import LogMelFeatures, SemanticTokenizer
from modules.soundstorm import DecodingSchedule, decode
from modules.tokenization import Tokenization

CODEC = Path(__file__).parents[1] / "checkpoints/small-16k/codec"


def speech(batch: int, seconds: float, sample_rate: int = 16_000) -> list[torch.Tensor]:
    """Make noise, which is as much work as speech."""
    return list(0.1 * torch.randn(batch, round(seconds * sample_rate)))


def tokenise(shape: Shape, batch: int, seconds: float) -> Callable[[], object]:
    """Prepare tokenising a batch."""
    features = LogMelFeatures()
    semantic = SemanticTokenizer(features, num_clusters=64)
    semantic.set_codebook(torch.zeros(features.dim), torch.ones(features.dim), torch.randn(64, features.dim))
    stage = Tokenization(SoundStream.from_pretrained(CODEC), semantic).eval()
    names = [str(row) for row in range(batch)]
    audio = AudioBatch(names, speech(batch, seconds), 16_000, names, names, [])
    return torch.inference_mode()(lambda: stage.predict_step(audio, 0))


def generate(shape: Shape, batch: int, seconds: float) -> Callable[[], object]:
    """Prepare generating a batch."""
    network = shape.network().eval()
    schedule = DecodingSchedule(iterations=(16,) + (1,) * (shape.num_quantizers - 1))
    semantic = torch.randint(0, network.semantic_vocab_size, (batch, round(50 * seconds)))
    return lambda: decode(network, semantic, schedule=schedule)


def codec_decode(shape: Shape, batch: int, seconds: float) -> Callable[[], object]:
    """Prepare decoding codes to audio, one utterance at a time as the audio writer does."""
    codec = SoundStream.from_pretrained(CODEC)
    codes = torch.randint(0, codec.codebook_size, (batch, codec.num_quantizers, round(codec.frame_rate * seconds)))
    return torch.inference_mode()(lambda: [codec.decode(row[None]) for row in codes])


def evaluate(shape: Shape, batch: int, seconds: float) -> Callable[[], object]:
    """Prepare scoring a batch."""
    scorer = MelDistance()
    items = [
        EvaluationItem("a", "s", "unprompted", "other", a, a.flip(0), 16_000, 0.0, True, 0, "", "")
        for a in speech(batch, seconds)
    ]
    return lambda: scorer.score_batch(items)


STAGES = {"tokenise": tokenise, "generate": generate, "decode to audio": codec_decode, "evaluate": evaluate}


def run(job: tuple[str, Shape, int, float, int, int]) -> dict[str, Any]:
    """Measure one row, in a process of its own."""
    name, shape, batch, seconds, repeats, threads = job
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    timing = measure(STAGES[name](shape, batch, seconds), torch.device("cpu"), repeats=repeats)
    return {
        "what": name,
        "batch": batch,
        "audio_seconds": seconds,
        "seconds": timing.seconds,
        "times_real_time": batch * seconds / timing.seconds,
        "peak_gb": peak_memory(torch.device("cpu")),
        "repeats": timing.repeats,
        "discarded": timing.discarded,
    }


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        durations={"type": float, "nargs": "+", "default": [5.0, 15.0, 30.0, 60.0, 120.0]},
        batches={"type": int, "nargs": "+", "default": [1, 8]},
        batch_seconds={"type": float, "default": 10.0, "help": "Duration at which batch sizes are compared."},
    )
    shape = TINY if options.tiny else COMPARISON
    cases = [(1, seconds) for seconds in options.durations]
    cases += [(batch, options.batch_seconds) for batch in options.batches]
    jobs = [
        (name, shape, batch, seconds, options.repeats, options.threads) for name in STAGES for batch, seconds in cases
    ]
    # Forked before torch has started threads, which do not survive it; one row each, or a row would inherit the peak.
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        rows = []
        for row in pool.imap(run, jobs, chunksize=1):
            print(row, flush=True)
            rows.append(row)
    report(rows, options.json, "Stages on the CPU")


if __name__ == "__main__":
    main()
