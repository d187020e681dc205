"""Reads the folder of one evaluation, and names what is damaged in it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xxhash

from datamodules.audio_sources import split_lines
from modules.measure import Measure

MAKE_THEM = "make results with `soundstorm test -c configs/evaluate/<preset>.yaml`"


def read_folder(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Read what ``ResultsWriter`` wrote.

    Args:
        folder: The folder.

    Returns:
        Rows of its ``results.jsonl``, to which ``folder`` is added, and its ``run.json``.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged or of another run.
    """
    for name in ("results.jsonl", "run.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no results (it has no {name}); {MAKE_THEM}")
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        run.setdefault("cards", [])  # which results of old do not have
        measures = _check_run(run)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'run.json'} is damaged ({error!r}); {MAKE_THEM}") from None
    utterances = []
    try:
        text = (folder / "results.jsonl").read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{folder / 'results.jsonl'} is damaged ({error}); {MAKE_THEM}") from None
    for number, line in enumerate(split_lines(text), start=1):
        try:
            utterance = json.loads(line)
            utterance.setdefault("normalizers", {})  # which results of old do not have
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


def _check_run(run: dict[str, Any]) -> list[tuple[str, Measure]]:
    """Insist that a ``run.json`` holds all that a report needs; return the measures, each with its scorer."""
    _check_texts(run["rejected"], "id", "reason")
    _check_texts(run["absent"], "name", "reason", "remedy")
    _check_texts(run["cards"], "condition", "system")
    _check_texts(run["scorers"], "name")
    for card in run["cards"]:
        for key in ("codec", "sampling"):
            if not isinstance(card.get(key), dict | None):
                raise TypeError(f"{key} of a card is {card[key]!r}, no mapping")
    for reason, ids in run["data"].items():
        if not (isinstance(ids, list) and all(isinstance(id, str) for id in ids)):
            raise TypeError(f"data: {reason!r} lists {ids!r}, no ids")
    measures = []
    for scorer in run["scorers"]:
        if scorer["identity"] is not None:
            _ = [scorer["identity"][key] for key in ("name", "revision")]
        for values in scorer["measures"]:
            _check_texts([values], "name", "label", "numerator")
            measure = Measure(**values)
            if not (isinstance(measure.denominator, str | None) and is_number(measure.scale) and measure.scale):
                raise TypeError(f"measure {measure.name!r} is damaged: {values}")
            if measure.digits not in range(10):
                raise ValueError(f"measure {measure.name!r} has digits={measure.digits!r}")
            measures.append((scorer["name"], measure))
    return measures


def _check_texts(entries: Sequence[dict[str, Any]], *keys: str) -> None:
    for entry in entries:
        for key in keys:
            if not isinstance(entry[key], str):
                raise TypeError(f"{key} is {entry[key]!r}, no text")


def _check_utterance(utterance: dict[str, Any], measures: Sequence[tuple[str, Measure]]) -> None:
    """Insist that a line of ``results.jsonl`` holds all that a report needs, and numbers where it computes."""
    for key in ("problems", "revisions", "normalizers"):
        if not isinstance(utterance[key], dict):
            raise TypeError(f"{key} is {utterance[key]!r}, no mapping")
    for problem in utterance["problems"].values():
        if not isinstance(problem, str):
            raise TypeError(f"a problem is {problem!r}, no text")
    for key in ("text", "speaker", "clip"):
        if not isinstance(utterance.get(key), str | None):
            raise TypeError(f"{key} is {utterance[key]!r}, no text")
    _check_texts([utterance], "id", "condition", "system", "split")
    for key in ("condition", "system"):
        if not utterance[key].isprintable():
            raise ValueError(f"{key} is {utterance[key]!r}, no name")
    _ = utterance["prompt_seconds"]
    for key in ("seconds", "original_seconds", "prompt_seconds"):
        value = utterance.get(key)
        if not is_number(value) or (value is not None and not 0 <= value < math.inf):
            raise TypeError(f"{key} is {value!r}, no duration")
    for scorer, values in utterance["scores"].items():
        for name, value in values.items():
            if isinstance(value, list) and not all(map(is_number, value)):
                raise ValueError(f"{scorer}/{name} is {value!r}, no numbers")
    for scorer, measure in measures:
        values = utterance["scores"].get(scorer, {})
        for name in (measure.numerator, measure.denominator):
            if not is_number(values.get(name)):
                raise ValueError(f"{scorer}/{measure.name}: {name} is {values[name]!r}, no number")
        if (values.get(measure.denominator) or 0) < 0:
            raise ValueError(f"{scorer}/{measure.name}: {measure.denominator} is {values[measure.denominator]!r}")
    clip = utterance.get("clip")
    if clip is not None and utterance.get("seconds") is None:
        raise ValueError("it has a clip and no seconds")
    if clip is not None and (Path(clip).is_absolute() or ".." in Path(clip).parts):
        raise ValueError(f"its clip {clip} lies outside of the folder")


def is_number(value: Any) -> bool:
    """Tell a number that can be computed with, or what is written where there is none, from all else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value.bit_length() < 1024  # what a float can hold
    return value is None or isinstance(value, float)


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
            normalizer = identity.get("normalizer")
            found = utterance["normalizers"].get(scorer["name"], normalizer)
            if found != normalizer:
                raise ValueError(
                    f"{wrong}: {scorer['name']!r} normalised {utterance['id']} by {found}, not {normalizer}"
                )


def results_digest(text: bytes) -> str:
    """Digest a results file, to tell whether it is the one a ``run.json`` was written with."""
    return f"xxh3:{xxhash.xxh3_64_hexdigest(text)}"
