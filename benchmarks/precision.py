"""What bf16 and int8 save on the CPU, how many codes they change, and what that does to speech.

python -m benchmarks.precision --json runs/benchmarks/precision.json
python -m benchmarks.precision --recognizer openai/whisper-base          (word errors, too)

The trained small system says again what clips of the demo corpus say. Beside the time: the share of codes that differ
from those of fp32, greedily and with the paper's schedule; the cross-entropy of the clips' own first level, all masked,
under the network; and the word error rate. A sample that falls differently in one pass changes all that follows, and
speech is not the worse for it.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import arguments, measure, report
from datamodules.audio_files import AudioReader
from datamodules.audio_manifest import AudioManifest
from modules.evaluation import WhisperRecognizer
from modules.layers import Linear
from modules.soundstorm import DecodingSchedule, SoundStormNetwork, decode
from modules.tokenization.alignment import align_tokens
from pipeline.synthesizer import SpeechSynthesizer

ROOT = Path(__file__).parents[1]


class Clip(NamedTuple):
    """A clip as tokens."""

    semantic: Tensor  # [1, T]
    codes: Tensor  # [1, Q, T]
    text: str


class Kind(NamedTuple):
    """One way to compute."""

    network: SoundStormNetwork
    around: Callable[[], AbstractContextManager[Any]]


def quantized(network: SoundStormNetwork) -> SoundStormNetwork:
    """Copy a network with its linear layers in int8, their inputs quantised on the fly."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if type(module) is Linear:
            module.__class__ = nn.Linear  # the only one that torch quantises
    return torch.ao.quantization.quantize_dynamic(copied, {nn.Linear}, dtype=torch.qint8)  # ty: ignore[deprecated]


def read_clips(synthesizer: SpeechSynthesizer, number: int) -> Iterator[Clip]:
    """Tokenize clips of the demo corpus, of different voices."""
    source = AudioManifest(str(ROOT / "datamodules/demo_speech/manifest.csv"))
    reader = AudioReader(synthesizer.sample_rate)
    for index in range(0, len(source), max(1, len(source) // number)):
        audio = reader(Path(source[index].path))[None]
        codes = synthesizer.codec.encode(audio)
        rates = synthesizer.semantic.frame_rate, synthesizer.codec.frame_rate
        semantic = align_tokens(synthesizer.semantic.encode(audio)[0], codes.shape[2], *rates)
        yield Clip(semantic[None], codes, source[index].text)


def cross_entropy(network: SoundStormNetwork, clips: Sequence[Clip]) -> float:
    """Give the mean cross-entropy of the clips' first level with all of it masked, in nats per token."""
    total, count = 0.0, 0
    for clip in clips:
        masked = torch.full_like(clip.codes, network.mask_id)
        rows = torch.ones_like(clip.semantic, dtype=torch.bool)
        logits = network(clip.semantic, masked, torch.zeros(1, dtype=torch.long), rows).float()
        total += F.cross_entropy(logits, clip.codes[0, 0], reduction="sum").item()
        count += len(logits)
    return total / count


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        model={"default": str(ROOT / "checkpoints/small-16k"), "help": "Folder or hub id of a trained system."},
        clips={"type": int, "default": 8},
        recognizer={"help": "Folder or hub id of a Whisper."},
    )
    synthesizer = SpeechSynthesizer.from_pretrained(options.model)
    clips = list(read_clips(synthesizer, 2 if options.tiny else options.clips))
    network = synthesizer.network
    paper = synthesizer.schedule
    schedules = {"greedy": DecodingSchedule(iterations=(1,) * network.num_quantizers), "sampled": paper}
    kinds = {
        "fp32": Kind(network, nullcontext),
        "bf16 autocast": Kind(network, lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
        "int8 dynamic": Kind(quantized(network), nullcontext),
    }
    recognizer = None
    if options.recognizer:
        recognizer = WhisperRecognizer(options.recognizer)
        recognizer.load()

    def run(kind: Kind, schedule: DecodingSchedule) -> list[Tensor]:
        with kind.around():
            return [decode(kind.network, clip.semantic, schedule=schedule)[0] for clip in clips]

    expected = {name: run(kinds["fp32"], schedule) for name, schedule in schedules.items()}
    seconds, rows = sum(clip.semantic.shape[1] for clip in clips) / synthesizer.codec.frame_rate, []
    for name, kind in kinds.items():
        timing = measure(lambda kind=kind: run(kind, paper), torch.device("cpu"), repeats=options.repeats)
        row = timing.row(name) | {"real_time_factor": timing.seconds / seconds}
        for drawn, schedule in schedules.items():
            found, wanted = torch.cat(run(kind, schedule), dim=1), torch.cat(expected[drawn], dim=1)
            row[f"codes_changed_{drawn}"] = (found != wanted).float().mean().item()
        with kind.around():
            row["cross_entropy"] = cross_entropy(kind.network, clips)
        if recognizer is not None:
            heard = recognizer.transcribe([synthesizer.codec.decode(codes[None])[0] for codes in run(kind, paper)])
            normalize = recognizer.normalizer
            row["wer"] = jiwer.wer([normalize(clip.text) for clip in clips], [normalize(text) for text in heard])
        rows.append(row)
    for row in rows:
        row["speedup"] = rows[0]["seconds"] / row["seconds"]
    report(rows, options.json, f"Precision on the CPU, {len(clips)} clips, {seconds:.0f} s of speech")


if __name__ == "__main__":
    main()
