"""Refuses to put into one table what does not belong together."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.results_folder import is_number
from pipeline.rows import Row

ROUNDING = 0.01  # seconds by which two readings of one recording may differ, resampled to different rates


class Fact(NamedTuple):
    """What one folder says of something that several folders may speak of."""

    subject: str
    name: str
    value: Any  # None or "" where unknown
    folder: Path


def refuse_mixtures(runs: Sequence[tuple[Path, dict[str, Any]]], utterances: Sequence[dict[str, Any]]) -> None:
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


def refuse_other_recordings(utterances: Sequence[dict[str, Any]]) -> None:
    """Insist that an id means the same recording in all runs."""
    facts = (Fact(u["id"], *fact, u["folder"]) for u in utterances for fact in _recording(u).items())
    if found := _contradiction(facts, ROUNDING):
        one, other = found
        raise ValueError(
            f"{one.subject} has {one.name} {one.value!r} in {one.folder} and {other.value!r} in {other.folder}: "
            "results of different recordings under the same ids do not compare"
        )


def refuse_other_systems(runs: Sequence[tuple[Path, dict[str, Any]]]) -> None:
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
        numbers = is_number(first.value) and is_number(fact.value)
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
