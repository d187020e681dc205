"""What a reader of a report has to know: what is missing, unscored, or averaged although it differs."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from datamodules.audio_sources import one_line
from pipeline.rows import PAPER_SPLITS, Results, Row


def problems(results: Results) -> list[str]:
    """Name what scorers found wrong with clips."""
    found: dict[tuple[str, str, Row], list[str]] = defaultdict(list)
    labels = {f"{column.scorer}/{column.measure.name}": column.label for column in results.columns}
    for utterance in results.utterances:
        for score, problem in utterance["problems"].items():
            row = Row(utterance["condition"], utterance["system"])
            found[labels.get(score, score), problem, row].append(utterance["id"])
    return [
        one_line(f"{label}, {row.label}: {len(ids)} × {problem}{such_as(ids)}")
        for (label, problem, row), ids in found.items()
    ]


def unscored(results: Results) -> list[str]:
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
                remarks.append(f"{column.label}, {row.label}: {len(silent)} × no finite value{such_as(silent)}")
    return remarks


def missing_clips(results: Results) -> list[str]:
    """Name rows that lack utterances other rows of the table have: their cells do not compare."""
    everything = {utterance["id"] for utterance in results.utterances}
    remarks = []
    for row in results.rows:
        missing = sorted(everything - {utterance["id"] for utterance in results.of(row)})
        if missing:
            remarks.append(f"{row.label}: {len(missing)} clips that other rows have are missing{such_as(missing)}")
    return remarks


def different_prompts(results: Results) -> list[str]:
    """Name rows whose clips were given prompts of different lengths, or of different kinds."""
    remarks = []
    for row in results.rows:
        if row.condition == "reference":  # whose prompts are what the scorers leave out
            continue
        lengths = Counter(round(u["prompt_seconds"] or 0.0, 1) for u in results.of(row))
        if len(lengths) > 1:
            named = ", ".join(f"{seconds:g} s ({clips})" for seconds, clips in sorted(lengths.items()))
            named = named if len(lengths) <= 4 else f"{min(lengths):g} to {max(lengths):g} s"
            remarks.append(f"{row.label}: prompts of different lengths are averaged: {named}")
        if len({u.get("own_prompt", True) for u in results.of(row) if u["prompt_seconds"]}) > 1:
            remarks.append(f"{row.label}: prompts of the utterances themselves and of others are averaged")
    return remarks


def other_prompts(results: Results) -> list[str]:
    """Say where similarity to the prompt is across recordings in some rows and within one in others."""
    compared = [column.label for column in results.columns if column.identity and column.measure.name == "sim_o"]
    within = {row.condition for row in results.rows if any(u.get("own_prompt", True) for u in results.of(row))}
    across = [row.label for row in results.rows if any(not u.get("own_prompt", True) for u in results.of(row))]
    if not compared or not across or "reference" not in within:
        return []
    return [
        f"{compared[0]}: recordings and codecs are compared with their own beginnings, which is easier than with "
        f"another utterance, as it is asked of {', '.join(across)}"
    ]


def in_the_figure_only(results: Results) -> list[str]:
    """Name rows that the tables leave out, being points of an ablation over iterations."""
    swept = [row.system for row in results.rows if row.sweep is not None]
    return (
        [f"{len(swept)} rows over iterations are in the figure and table.csv only: {', '.join(swept)}"] if swept else []
    )


def outside_of_splits(results: Results) -> list[str]:
    """Name splits that the table has no column for."""
    outside: dict[str, set[str]] = defaultdict(set)
    for utterance in results.utterances:
        if utterance["split"] not in PAPER_SPLITS:
            outside[utterance["split"]].add(utterance["id"])
    why = {"other": "last less than 4 or more than 30 s"}
    return [
        f"{len(ids)} clips {why.get(split, f'are of a split {split!r}')}: in no split of the table, only in “all”"
        for split, ids in outside.items()
    ]


def such_as(ids: Sequence[str]) -> str:
    """List the first of some ids behind a colon; nothing where there are none."""
    return one_line(f": {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}") if ids else ""
