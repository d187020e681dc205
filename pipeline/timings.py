"""How long systems take: read from the ``speed.jsonl`` of benchmarks, summed up as real-time factors."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.rows import SYSTEMS

CODEC = "codec"  # the stage that turns codes into audio
KEYS = ("system", "stage", "audio_seconds", "seconds", "device", "passes", "warmup")


class Timing(NamedTuple):
    """One stage of one system on one duration; a line of ``speed.jsonl``."""

    system: str  # "soundstorm", "audiolm", ...
    stage: str  # "soundstorm", "coarse", "fine", ...; "codec" for the decoder
    audio_seconds: float  # of the audio that was made, the prompt included
    seconds: list[float]  # wall clock of each repeat, the warm-up left out
    device: str
    passes: int  # forward passes of the network for one utterance
    warmup: int = 1  # runs before the first that counts
    batch_size: int = 1
    prompt_seconds: float = 0.0  # of the audio that were given, not generated

    @property
    def subject(self) -> tuple[str, str, float, int]:
        """What was timed, stage by stage."""
        return self.device, self.system, self.audio_seconds, self.batch_size

    @property
    def median(self) -> float:
        """Median of the repeats, in seconds."""
        return statistics.median(self.seconds)


class Speed(NamedTuple):
    """One system at one duration, all stages together."""

    system: str
    device: str
    audio_seconds: float  # the prompt included
    generated_seconds: float  # the prompt left out
    without_codec: float  # seconds
    with_codec: float | None  # seconds; None where the decoder was not timed
    passes: int
    repeats: int  # the fewest of any stage
    stages: tuple[Timing, ...]  # what it is the sum of, the codec included

    @property
    def rtf(self) -> float:
        """Real-time factor of the codes alone: seconds per second generated."""
        return self.without_codec / self.generated_seconds

    @property
    def rtf_with_codec(self) -> float | None:
        """Real-time factor until there is audio, as the paper's 0.017."""
        return None if self.with_codec is None else self.with_codec / self.generated_seconds


def timings_file(given: Path) -> Path | None:
    """Find the ``speed.jsonl`` that a path leads to: itself, or in its folder; None where there is none."""
    file = given if given.name == "speed.jsonl" else given / "speed.jsonl"
    return file if file.is_file() else None


def read_timings(folders: Sequence[Path]) -> list[Timing]:
    """Read the ``speed.jsonl`` of those folders that have one.

    Args:
        folders: Results folders, or folders of benchmarks, or such files themselves.

    Raises:
        ValueError: A line is damaged, or holds times that are no positive numbers, or two benchmarks timed the same, or
            stages that belong together had different prompts.
    """
    timings: list[Timing] = []
    found: dict[tuple[str, str, float, int], tuple[Path, set[str]]] = {}
    prompts: dict[tuple[str, str, float, int], float] = {}
    for given in folders:
        file = timings_file(given)
        if file is None:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                timing = Timing(**json.loads(line))
                problem = _problem(timing)
            except (TypeError, ValueError):
                problem = f"it needs {', '.join(KEYS)}"
            if problem:
                raise ValueError(f"{file} line {number} is no timing: {problem}; measure again")
            there, stages = found.setdefault(timing.subject, (file, set()))
            if prompts.setdefault(timing.subject, timing.prompt_seconds) != timing.prompt_seconds:
                raise ValueError(
                    f"{file} line {number}: the stages of {timing.system} for {timing.audio_seconds:g} s had prompts "
                    f"of {prompts[timing.subject]:g} s and {timing.prompt_seconds:g} s; measure them together"
                )
            if there != file or timing.stage in stages:
                raise ValueError(
                    f"{there} and {file} both hold times of {timing.system} for {timing.audio_seconds:g} s "
                    f"on {timing.device}: report them apart"
                )
            stages.add(timing.stage)
            timings.append(timing)
    return timings


def _problem(timing: Timing) -> str | None:
    """Say what is wrong with the values of a line, if anything is."""
    for name in ("system", "stage", "device"):
        value = getattr(timing, name)
        if not (isinstance(value, str) and value and value.isprintable()):
            return f"{name} is {value!r}, no name"
    if not (isinstance(timing.seconds, list) and timing.seconds and all(map(_is_time, timing.seconds))):
        return f"seconds is {timing.seconds!r}, no times"
    if not (_is_time(timing.audio_seconds) and (timing.prompt_seconds == 0 or _is_time(timing.prompt_seconds))):
        return f"audio_seconds and prompt_seconds are {timing.audio_seconds!r} and {timing.prompt_seconds!r}, no times"
    if timing.prompt_seconds >= timing.audio_seconds:
        return f"its prompt of {timing.prompt_seconds:g} s leaves nothing of {timing.audio_seconds:g} s"
    for name, least in (("passes", 0), ("warmup", 0), ("batch_size", 1)):
        value = getattr(timing, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            return f"{name} is {value!r}, no count"
    return None


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def sum_up(timings: Sequence[Timing]) -> list[Speed]:
    """Add the stages of every system up, for every device and duration, one utterance at a time.

    Batches are left out: their times are no latencies.
    """
    groups: dict[tuple[str, str, float], dict[str, Timing]] = {}
    for timing in timings:
        if timing.batch_size == 1:
            key = (timing.device, timing.system, timing.audio_seconds)
            groups.setdefault(key, {})[timing.stage] = timing
    speeds = []
    for (device, system, audio_seconds), stages in sorted(groups.items()):
        codes = [timing for stage, timing in stages.items() if stage != CODEC]
        if not codes:
            continue
        without = sum(timing.median for timing in codes)
        decoder = stages.get(CODEC)
        together = None if decoder is None else without + decoder.median
        passes, repeats = sum(t.passes for t in codes), min(len(t.seconds) for t in stages.values())
        generated = audio_seconds - codes[0].prompt_seconds
        of_stages = tuple(stages.values())
        speeds.append(Speed(system, device, audio_seconds, generated, without, together, passes, repeats, of_stages))
    return speeds


def speed_cells(speeds: Sequence[Speed]) -> list[list[str]]:
    """Lay out real-time factors as a table: a head, then for every system, device and duration its sum and its stages.

    All are seconds per second generated; the codec decodes the prompt along.
    """
    head = ["System", "Stage", "Device", "Audio s", "Generated s", "RTF (÷ generated s)", "Passes", "Repeats"]
    body = []
    for speed in speeds:
        system = SYSTEMS.get(speed.system, speed.system)
        spans = [speed.device, f"{speed.audio_seconds:g}", f"{speed.generated_seconds:g}"]
        decoded = "not timed" if speed.rtf_with_codec is None else f"{speed.rtf_with_codec:.4f}"
        passes, repeats = str(speed.passes), str(speed.repeats)
        body.append([system, "codes and codec", *spans, decoded, passes, repeats])
        body.append([system, "codes", *spans, f"{speed.rtf:.4f}", passes, repeats])
        stages = [timing for timing in speed.stages if timing.stage != CODEC]
        for timing in speed.stages:
            if [timing] != stages:  # else it is what the codes take
                name = "the rest" if timing.stage == speed.system else timing.stage
                rtf = f"{timing.median / speed.generated_seconds:.4f}"
                body.append([system, name, *spans, rtf, str(timing.passes), str(len(timing.seconds))])
    return [head, *body]
