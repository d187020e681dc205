"""Reads results folders, and refuses to average what does not belong together."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from datamodules.audio_sources import one_line
from modules.measure import Measure

CONDITIONS = {
    "reference": "recordings",
    "unprompted": "unprompted",
    "prompted": "prompted",
    "prompted_other": "prompted by another utterance",
}
SYSTEMS = {"original": "Original", "reconstruction": "Codec reconstruction", "soundstorm": "SoundStorm"}
SYSTEMS |= {
    "audiolm": "AudioLM",
    "valle": "VALL-E",
    "valle2": "VALL-E 2",
    "original_soundstream_rec": "SoundStream reconstruction",
}
PAPER_SPLITS = ("short", "mid", "long")  # by duration, see modules.evaluation.items.split_of
ROUNDING = 0.01  # seconds by which two readings of one recording may differ, resampled to different rates
MAKE_THEM = "make results with `soundstorm test -c configs/evaluate/<preset>.yaml`"


# How the systems of the paper's iteration ablation (Figure 4) are named: soundstorm-level1-8, soundstorm-finer-2.
SWEEP_NAME = re.compile(r"(?P<system>.+)-(?P<levels>level1|finer)-(?P<iterations>[1-9]\d*)")
SWEEP_LABELS = {"level1": "at level 1", "finer": "at each finer level"}


class Sweep(NamedTuple):
    """One point of a curve over decoding iterations."""

    system: str
    levels: str  # "level1" or "finer": where the iterations are varied
    iterations: int


class Row(NamedTuple):
    """A row of the table."""

    condition: str
    system: str

    @property
    def name(self) -> str:
        """The system's name."""
        if (sweep := self.sweep) is not None:
            name, plural = SYSTEMS.get(sweep.system, sweep.system), "s" if sweep.iterations > 1 else ""
            return f"{name}, {sweep.iterations} iteration{plural} {SWEEP_LABELS[sweep.levels]}"
        return SYSTEMS.get(self.system, self.system)

    @property
    def sweep(self) -> Sweep | None:
        """The point of an ablation over iterations that the system's name says it is, if it does."""
        found = SWEEP_NAME.fullmatch(self.system)
        return Sweep(found["system"], found["levels"], int(found["iterations"])) if found else None

    @property
    def condition_name(self) -> str:
        """What the system was given."""
        return CONDITIONS.get(self.condition, self.condition)

    @property
    def label(self) -> str:
        """The system's name, and the condition where it is not a recording's."""
        return self.name if self.condition == "reference" else f"{self.name}, {self.condition_name}"


class Fact(NamedTuple):
    """What one folder says of something that several folders may speak of."""

    subject: str
    name: str
    value: Any  # None or "" where unknown
    folder: Path


class Column(NamedTuple):
    """A measure and the scorer that filled it."""

    scorer: str
    measure: Measure
    label: str
    identity: dict[str, Any] | None  # None: the scorer was not available


@dataclass
class Results:
    """Everything that was found by one or several evaluations.

    Attributes:
        utterances: Rows of ``results.jsonl``; ``folder`` is added, where their clips lie.
        columns: Measures, in the order of the configuration.
        absent: Scorer -> why it has no numbers, and the remedy.
        remarks: What a reader has to know: what was missing, double, unreadable.
    """

    utterances: list[dict[str, Any]] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """Rows of the table: recordings first, then unprompted and prompted systems."""
        found = {Row(utterance["condition"], utterance["system"]) for utterance in self.utterances}
        return sorted(found, key=row_order)

    def of(self, row: Row, split: str | None = None) -> list[dict[str, Any]]:
        """Utterances of a row, of one split or of all."""
        return [
            utterance
            for utterance in self.utterances
            if (utterance["condition"], utterance["system"]) == row and split in (None, utterance["split"])
        ]


def read_results(folders: Sequence[Path]) -> Results:
    """Read and join results folders.

    Args:
        folders: Folders that ``ResultsWriter`` made, or the ``results.jsonl`` in them.

    Returns:
        The results. Of an utterance that two folders hold for the same system the first is taken, and counted.

    Raises:
        FileNotFoundError: A folder holds no results.
        ValueError: A file is damaged or of another run, scores of one name come from different models, or two runs
            mean different recordings by one id, or different weights by one system.
    """
    results = Results()
    runs: list[tuple[Path, dict[str, Any]]] = []
    seen: set[tuple[str, str, str]] = set()
    everything: list[dict[str, Any]] = []
    for given in folders:
        folder = given.parent if given.suffix == ".jsonl" else given
        utterances, run = _read_folder(folder)
        runs.append((folder, run))
        _add_run(results, run, str(folder) if len(folders) > 1 else "")
        double = []
        everything += utterances
        for utterance in utterances:
            key = (utterance["id"], utterance["condition"], utterance["system"])
            if key in seen:
                double.append(utterance["id"])
                continue
            seen.add(key)
            results.utterances.append(utterance)
        if double:
            results.remarks.append(f"{len(double)} results in {folder} are double and left out{_such_as(double)}")
    _refuse_mixtures(runs, results.utterances)
    _refuse_other_recordings(everything)
    _refuse_other_systems(runs)
    # A scorer that one of several runs could not load is not absent from the table.
    present = {column.scorer for column in results.columns if column.identity is not None}
    results.absent = {name: reason for name, reason in results.absent.items() if name not in present}
    _mark_missing(results)
    results.remarks += _problems(results)
    results.remarks += _unscored(results)
    results.remarks += _missing_clips(results)
    results.remarks += _different_prompts(results)
    results.remarks += _outside_of_splits(results)
    return results


def _read_folder(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    for name in ("results.jsonl", "run.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no results (it has no {name}); {MAKE_THEM}")
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        _ = [run[key] for key in ("absent", "data", "rejected")]
        run.setdefault("cards", [])  # which results of old do not have
        _ = [(card["condition"], card["system"]) for card in run["cards"]]
        _ = [(reason, len(ids)) for reason, ids in run["data"].items()]
        _ = [(rejection["id"], rejection["reason"]) for rejection in run["rejected"]]
        measures = [(scorer["name"], Measure(**values)) for scorer in run["scorers"] for values in scorer["measures"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'run.json'} is damaged ({error!r}); {MAKE_THEM}") from None
    utterances = []
    try:
        text = (folder / "results.jsonl").read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{folder / 'results.jsonl'} is damaged ({error}); {MAKE_THEM}") from None
    # Not splitlines, which takes more than "\n" for the end of a line.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        try:
            utterance = json.loads(line)
            _check_utterance(utterance, measures)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder / 'results.jsonl'} line {number} is no result ({error!r}); {MAKE_THEM}"
            ) from None
        utterances.append({**utterance, "folder": folder})
    if not utterances:
        raise ValueError(f"{folder / 'results.jsonl'} is empty; {MAKE_THEM}")
    _check_same_run(folder, utterances, run)
    return utterances, run


def _check_utterance(utterance: dict[str, Any], measures: Sequence[tuple[str, Measure]]) -> None:
    """Insist that a line of ``results.jsonl`` holds all that a report needs, and numbers where it computes."""
    for key in ("problems", "revisions"):
        if not isinstance(utterance[key], dict):
            raise TypeError(f"{key} is {utterance[key]!r}, no mapping")
    for key in ("text", "speaker", "clip"):
        if not isinstance(utterance.get(key), str | None):
            raise TypeError(f"{key} is {utterance[key]!r}, no text")
    for key in ("id", "condition", "system", "split"):
        if not isinstance(utterance[key], str):
            raise TypeError(f"{key} is {utterance[key]!r}, no text")
    for key in ("seconds", "original_seconds", "prompt_seconds"):
        if not _is_number(utterance.get(key)):
            raise TypeError(f"{key} is {utterance[key]!r}, no number")
    for scorer, values in utterance["scores"].items():
        for name, value in values.items():
            if isinstance(value, list) and not all(map(_is_number, value)):
                raise ValueError(f"{scorer}/{name} is {value!r}, no numbers")
    for scorer, measure in measures:
        values = utterance["scores"].get(scorer, {})
        for name in (measure.numerator, measure.denominator):
            if not _is_number(values.get(name)):
                raise ValueError(f"{scorer}/{measure.name}: {name} is {values[name]!r}, no number")
    clip = utterance.get("clip")
    if clip is not None and utterance.get("seconds") is None:
        raise ValueError("it has a clip and no seconds")
    if clip is not None and (Path(clip).is_absolute() or ".." in Path(clip).parts):
        raise ValueError(f"its clip {clip} lies outside of the folder")


def _is_number(value: Any) -> bool:
    """Tell a number, or what is written in its place where there is none, from all else."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _check_same_run(folder: Path, utterances: Sequence[dict[str, Any]], run: dict[str, Any]) -> None:
    """Insist that the results of a folder are those its ``run.json`` describes."""
    wrong = f"{folder / 'results.jsonl'} is of another run than the run.json beside it"
    written = run.get("digest")
    if written is not None and written != results_digest((folder / "results.jsonl").read_bytes()):
        raise ValueError(f"{wrong} (its digest is not {written}), or was changed by hand; {MAKE_THEM}")
    for scorer in run["scorers"]:
        if (identity := scorer["identity"]) is None:
            continue
        revision = f"{identity['name']}@{identity['revision']}"
        for utterance in utterances:
            found = utterance["revisions"].get(scorer["name"], revision)
            if found != revision:
                raise ValueError(f"{wrong}: {scorer['name']!r} scored {utterance['id']} with {found}, not {revision}")


def results_digest(text: bytes) -> str:
    """Digest a results file, to tell whether it is the one a ``run.json`` was written with."""
    return f"xxh3:{xxhash.xxh3_64_hexdigest(text)}"


def _add_run(results: Results, run: dict[str, Any], source: str) -> None:
    known = {(column.scorer, column.measure.name): at for at, column in enumerate(results.columns)}
    for scorer in run["scorers"]:
        for values in scorer["measures"]:
            measure = Measure(**values)
            column = Column(scorer["name"], measure, measure.label, scorer["identity"])
            at = known.get((column.scorer, measure.name))
            if at is None:
                results.columns.append(column)
            elif results.columns[at].identity is None:
                results.columns[at] = column
    labels = Counter(column.measure.label for column in results.columns)
    results.columns = [
        column._replace(label=f"{column.measure.label} ({column.scorer})")
        if labels[column.measure.label] > 1
        else column
        for column in results.columns
    ]
    for absent in run["absent"]:
        results.absent[absent["name"]] = one_line(f"{absent['reason']}; {absent['remedy']}")
    where = f" ({source})" if source else ""
    for reason, ids in run["data"].items():
        results.remarks.append(one_line(f"{len(ids)} utterances {reason}{where}{_such_as(ids)}"))
    for rejection in run["rejected"]:
        results.remarks.append(one_line(f"{rejection['id']} was left out{where}: {rejection['reason']}"))


def _refuse_mixtures(runs: Sequence[tuple[Path, dict[str, Any]]], utterances: Sequence[dict[str, Any]]) -> None:
    """Insist that scores of one name come from one model, in one setting."""
    scored = Counter((utterance["folder"], name) for utterance in utterances for name in utterance["scores"])
    scorers: dict[str, dict[str, int]] = defaultdict(dict)
    for folder, run in dict(runs).items():
        for scorer in run["scorers"]:
            if scorer["identity"] is not None:
                counts, identity = scorers[scorer["name"]], json.dumps(scorer["identity"], sort_keys=True)
                counts[identity] = counts.get(identity, 0) + scored[folder, scorer["name"]]
    for name, counts in scorers.items():
        if len(counts) > 1:
            identities = [json.loads(identity) for identity in counts]
            named = " and ".join(
                f"{identity['name']}@{identity['revision']}{_settings(identity, identities)} ({number} results)"
                for identity, number in zip(identities, counts.values(), strict=True)
            )
            raise ValueError(f"scores named {name!r} come from {named}: report them apart, or rename a scorer")


def _settings(identity: dict[str, Any], identities: Sequence[dict[str, Any]]) -> str:
    """Say what a scorer's identity holds, besides name and revision, that not all of several hold."""
    keys = sorted({key for one in identities for key in one} - {"name", "revision"})
    values = {key: [one.get(key, "unknown") for one in identities] for key in keys}
    different = [key for key in keys if any(value != values[key][0] for value in values[key])]
    return "".join(f" with {key} {json.dumps(identity.get(key, 'unknown'))}" for key in different)


def _refuse_other_recordings(utterances: Sequence[dict[str, Any]]) -> None:
    facts = (Fact(u["id"], *fact, u["folder"]) for u in utterances for fact in _recording(u).items())
    if found := _contradiction(facts, ROUNDING):
        one, other = found
        raise ValueError(
            f"{one.subject} has {one.name} {one.value!r} in {one.folder} and {other.value!r} in {other.folder}: "
            "results of different recordings under the same ids do not compare"
        )


def _refuse_other_systems(runs: Sequence[tuple[Path, dict[str, Any]]]) -> None:
    """Insist that the clips of a row were rendered by the same weights and settings."""
    cards = (
        (Row(card["condition"], card["system"]).label, card, folder) for folder, run in runs for card in run["cards"]
    )
    if found := _contradiction(Fact(label, *fact, folder) for label, card, folder in cards for fact in card.items()):
        one, other = found
        raise ValueError(
            f"{one.subject} was rendered with {one.name}={json.dumps(one.value)} in {one.folder} and "
            f"{json.dumps(other.value)} in {other.folder}: report them apart, or give one system another name"
        )


def _contradiction(facts: Iterable[Fact], tolerance: float = 0.0) -> tuple[Fact, Fact] | None:
    """Find two facts of one name about one subject that differ; what is not known contradicts nothing."""
    known: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        if fact.value in (None, ""):
            continue
        first = known.setdefault((fact.subject, fact.name), fact)
        numbers = _is_number(first.value) and _is_number(fact.value)
        near = numbers and abs(first.value - fact.value) <= tolerance
        if first.value != fact.value and not near:
            return first, fact
    return None


def _recording(utterance: dict[str, Any]) -> dict[str, Any]:
    """What a result says of the recording that all systems render."""
    # Results of before `original_seconds` tell the duration where the recording itself was scored.
    seconds = utterance.get("seconds") if utterance["system"] == "original" else None
    return {
        "text": utterance.get("text"),
        "speaker": utterance.get("speaker"),
        "split": utterance["split"],
        "seconds": utterance.get("original_seconds", seconds),
    }


def _mark_missing(results: Results) -> None:
    """Mark scores that an utterance lacks and others of its row have: what applies to a row applies to all of it."""
    for row in results.rows:
        scores = [utterance["scores"] for utterance in results.of(row)]
        for column in results.columns:
            found = [of_utterance[column.scorer] for of_utterance in scores if column.scorer in of_utterance]
            if any(column.measure.numerator in values for values in found):
                for values in found:
                    values.setdefault(column.measure.numerator, None)


def _unscored(results: Results) -> list[str]:
    """Name what a scorer saw nothing of, and values that are missing without a stated reason."""
    remarks = []
    for column in results.columns:
        if column.identity is None:
            continue
        for row in results.rows:
            found = results.of(row)
            unseen = [u for u in found if column.scorer not in u["scores"]]
            if unseen:
                which = f"{len(unseen)} of {len(found)} results"
                # A run that names the scorer in every row had it, and this row lost its scores since.
                had_it = all(column.scorer in u["revisions"] for u in unseen)
                how = f"hold no scores of {column.scorer!r}" if had_it else f"come from a run without {column.scorer!r}"
                remarks.append(f"{column.label}, {row.label}: {which} {how}")
            key = f"{column.scorer}/{column.measure.name}"
            silent = []
            for utterance in found:
                terms = column.measure.terms(utterance["scores"].get(column.scorer, {}))
                if terms is not None and not all(map(math.isfinite, terms)) and key not in utterance["problems"]:
                    silent.append(utterance["id"])
            if silent:
                remarks.append(f"{column.label}, {row.label}: {len(silent)} × no finite value{_such_as(silent)}")
    return remarks


def _missing_clips(results: Results) -> list[str]:
    """Name rows that lack utterances other rows of the table have: their cells do not compare."""
    everything = {utterance["id"] for utterance in results.utterances}
    remarks = []
    for row in results.rows:
        missing = sorted(everything - {utterance["id"] for utterance in results.of(row)})
        if missing:
            remarks.append(f"{row.label}: {len(missing)} clips that other rows have are missing{_such_as(missing)}")
    return remarks


def _different_prompts(results: Results) -> list[str]:
    """Name rows whose clips were given prompts of different lengths, or of different kinds."""
    remarks = []
    for row in results.rows:
        if row.condition == "reference":  # whose prompts are what the scorers leave out
            continue
        lengths = Counter(round(u["prompt_seconds"] or 0.0, 1) for u in results.of(row))
        if len(lengths) > 1:
            named = ", ".join(f"{seconds:g} s ({clips})" for seconds, clips in sorted(lengths.items()))
            remarks.append(f"{row.label}: prompts of different lengths are averaged: {named}")
        if len({u.get("own_prompt", True) for u in results.of(row) if u["prompt_seconds"]}) > 1:
            remarks.append(f"{row.label}: prompts of the utterances themselves and of others are averaged")
    return remarks


def _outside_of_splits(results: Results) -> list[str]:
    outside: dict[str, set[str]] = defaultdict(set)
    for utterance in results.utterances:
        if utterance["split"] not in PAPER_SPLITS:
            outside[utterance["split"]].add(utterance["id"])
    why = {"other": "last less than 4 or more than 30 s"}
    return [
        f"{len(ids)} clips {why.get(split, f'are of a split {split!r}')}: in no split of the table, only in “all”"
        for split, ids in outside.items()
    ]


def _problems(results: Results) -> list[str]:
    problems: dict[tuple[str, str, Row], list[str]] = defaultdict(list)
    labels = {f"{column.scorer}/{column.measure.name}": column.label for column in results.columns}
    for utterance in results.utterances:
        for score, problem in utterance["problems"].items():
            row = Row(utterance["condition"], utterance["system"])
            problems[labels.get(score, score), problem, row].append(utterance["id"])
    return [
        one_line(f"{label}, {row.label}: {len(ids)} × {problem}{_such_as(ids)}")
        for (label, problem, row), ids in problems.items()
    ]


def _such_as(ids: Sequence[str]) -> str:
    return f": {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}" if ids else ""


def row_order(row: Row) -> tuple[int, str, int, str]:
    """Sort recordings first, then unprompted and prompted systems, then conditions of the user's own."""
    condition = list(CONDITIONS).index(row.condition) if row.condition in CONDITIONS else len(CONDITIONS)
    base, levels, iterations = row.sweep or (row.system, "", 0)
    system = list(SYSTEMS).index(base) if base in SYSTEMS else len(SYSTEMS)
    return condition, row.condition, system, f"{base} {levels} {iterations:06d}"
