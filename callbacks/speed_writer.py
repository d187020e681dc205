"""Measures how long a generator takes, with and without the codec."""

import functools
import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.results_writer import describe_device
from modules.atomic import write_atomically
from modules.batches import GeneratedBatch, SoftTokens, TokenBatch
from modules.codec.codec import AudioCodec


class SpeedWriter(Callback):
    """Times ``predict_step`` and the codec's decoder before a prediction, and writes ``speed.jsonl``.

    Random tokens of every duration stand in for speech: they take as long. One utterance at a time, the medians of the
    repeats after a warm-up count. ``soundstorm report FOLDER ...`` makes the figure of it; lines of other systems and
    devices that the folder holds already are kept. Run it on a machine that does nothing else, with
    ``--trainer.limit_predict_batches 1``.

    Args:
        codec: Decoder of the codes.
        output_dir: The folder; the same for all systems that are compared.
        system: What generates: ``soundstorm``, ``audiolm``, ...
        durations: Seconds of audio, the prompt included.
        repeats: Runs that count.
        warmup: Runs before them.
        prompt_seconds: Leading seconds of each duration that are given, not generated; 0 for none, at most half of it.
        stages: Stage -> method of the model that does it, such as ``coarse: generate_coarse``; their times and passes
            are written apart, and what is left stands under the system's name. Without it everything does.
        passes: Methods of the model whose calls are its forward passes, such as ``network.contextualize``.
        seed: Of the tokens.
    """

    def __init__(
        self,
        codec: AudioCodec,
        output_dir: str | Path,
        system: str,
        durations: Sequence[float] = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0),
        repeats: int = 5,
        warmup: int = 1,
        prompt_seconds: float = 3.0,
        stages: dict[str, str] | None = None,
        passes: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if repeats < 1 or min(durations, default=0) <= 0:
            raise ValueError("there have to be a repeat and a duration, and durations are positive")
        self.codec = codec
        self.output_dir = Path(output_dir)
        self.system = system
        self.durations = tuple(durations)
        self.repeats = repeats
        self.warmup = warmup
        self.prompt_seconds = prompt_seconds
        self.stages = dict(stages or {})
        self.passes = tuple(passes)
        self.seed = seed

    @torch.inference_mode()
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time every duration, on the first process.

        Raises:
            ValueError: The folder holds a file of times that is damaged.
        """
        if not trainer.is_global_zero:
            return
        card = trainer.datamodule.card  # ty: ignore[missing-attribute]
        file, device = self.output_dir / "speed.jsonl", describe_device(pl_module.device)
        kept = other_timings(file, self.system, device)  # before the work: what cannot be read would end it
        self.codec.to(pl_module.device).eval()
        pl_module.eval()
        lines = []
        for seconds in self.durations:
            batch = random_batch(card, seconds, self.prompt_seconds, self.seed)
            spans = {"audio_seconds": seconds, "prompt_seconds": int(batch.prompt_frames) / card.frame_rate}
            lines += [{**spans, **line} for line in self._time(pl_module, batch)]
        self.output_dir.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in [*kept, *(json.dumps(line) for line in lines)])
        write_atomically(file, text)
        rank_zero_info(f"Times of {self.system} in {file}")

    def _time(self, module: LightningModule, batch: TokenBatch) -> list[dict[str, Any]]:
        batch = module.transfer_batch_to_device(batch, module.device, 0)
        times: dict[str, list[float]] = {self.system: [], **{stage: [] for stage in self.stages}, "codec": []}
        calls = dict.fromkeys(times, 0)
        for run in range(self.warmup + self.repeats):
            spent = dict.fromkeys(self.stages, 0.0)
            calls = dict.fromkeys(times, 0)
            with _watched(module, self.stages, self.passes, self.system, spent, calls):
                total, generated = _clocked(lambda: module.predict_step(batch, 0), module.device)
            if not isinstance(generated, GeneratedBatch):
                raise TypeError(f"{type(module).__name__} predicts {type(generated).__name__}, not codes")
            codes: torch.Tensor = generated.codes
            decoding, _ = _clocked(lambda codes=codes: self.codec.decode(codes), module.device)
            if run >= self.warmup:
                measured = {self.system: total - sum(spent.values()), **spent, "codec": decoding}
                for stage, value in measured.items():
                    times[stage].append(value)
        shared = {"system": self.system, "device": describe_device(module.device), "warmup": self.warmup}
        return [{**shared, "stage": s, "seconds": found, "passes": calls[s]} for s, found in times.items()]


def other_timings(file: Path, system: str, device: str) -> list[str]:
    """Read the lines that a new timing of a system on a device leaves as they are.

    Raises:
        ValueError: A line is damaged.
    """
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    kept = []
    for number, line in enumerate(lines, start=1):
        try:
            timing = json.loads(line)
            replaced = (timing["system"], timing["device"]) == (system, device)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{file} line {number} is no timing: remove it, or the file") from None
        if not replaced:
            kept.append(line)
    return kept


def random_batch(card: Any, seconds: float, prompt_seconds: float, seed: int) -> TokenBatch:
    """Make a batch of one utterance of random tokens.

    Args:
        card: What the tokens mean: a ``TokenSetCard``.
        seconds: Its duration.
        prompt_seconds: Of the prompt; at most half of the duration is given.
        seed: Of the draws.
    """
    random = torch.Generator().manual_seed(seed)
    frames = max(2, round(seconds * card.frame_rate))
    prompt = min(round(prompt_seconds * card.frame_rate), frames // 2)
    semantic = torch.randint(card.semantic_vocab_size, (1, frames), generator=random)
    codes = torch.randint(card.codebook_size, (1, card.num_quantizers, frames), generator=random)
    soft = None
    if card.soft_semantic:
        shape = (1, frames, card.soft_semantic["num_tokens"])
        tokens = torch.randint(card.semantic_vocab_size, shape, generator=random)
        soft = SoftTokens(tokens, torch.rand(shape, generator=random).softmax(dim=-1))
    return TokenBatch(
        ids=["random"],
        semantic=semantic,
        codes=codes,
        lengths=torch.tensor([frames]),
        prompt_frames=torch.tensor([prompt]),
        seeds=torch.tensor([seed]),
        speakers=[""],
        texts=[""],
        soft_semantic=soft,
    )


def _clocked(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    _wait(device)
    started = time.perf_counter()
    result = work()
    _wait(device)
    return time.perf_counter() - started, result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _watched(
    module: LightningModule,
    stages: dict[str, str],
    passes: Sequence[str],
    rest: str,
    spent: dict[str, float],
    calls: dict[str, int],
) -> Generator[None]:
    """Time stages and count their passes, those outside of any stage for the rest; then everything is as before."""
    replaced: list[tuple[Any, str, Any]] = []
    running = [rest]

    def watch(path: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        parent, _, name = path.rpartition(".")
        owner: Any = functools.reduce(getattr, parent.split("."), module) if parent else module
        watched = around(getattr(owner, name))
        replaced.append((owner, name, vars(owner).get(name)))
        object.__setattr__(owner, name, watched)

    def timing(stage: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def around(method: Callable[..., Any]) -> Callable[..., Any]:
            def timed(*args: Any, **kwargs: Any) -> Any:
                running.append(stage)
                try:
                    seconds, result = _clocked(lambda: method(*args, **kwargs), module.device)
                finally:
                    running.pop()
                spent[stage] += seconds
                return result

            return timed

        return around

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[running[-1]] += 1
            return method(*args, **kwargs)

        return counted

    try:
        # Passes first: a method that is a stage and a pass is a pass of its stage.
        for path in passes:
            watch(path, counting)
        for stage, path in stages.items():
            watch(path, timing(stage))
        yield
    finally:
        for owner, name, before in reversed(replaced):
            if before is None:
                object.__delattr__(owner, name)
            else:
                object.__setattr__(owner, name, before)
