"""Reads results folders, and refuses to average what does not belong together."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.audio_sources import one_line
from modules.measure import Measure
from pipeline.compatibility import refuse_mixtures, refuse_other_recordings, refuse_other_systems
from pipeline.remarks import (
    different_prompts,
    in_the_figure_only,
    missing_clips,
    other_prompts,
    outside_of_splits,
    problems,
    such_as,
    unscored,
)
from pipeline.results_folder import read_folder
from pipeline.rows import Column, Results


def read_results(folders: Sequence[Path]) -> Results:
    """Read and join results folders.

    Args:
        folders: Folders that ``ResultsWriter`` made, or the ``results.jsonl`` in them.

    Returns:
        The results. Of an utterance that two folders hold for the same system the first is taken, and counted, to which
        come scores by scorers that only the other one has.

    Raises:
        FileNotFoundError: A folder holds no results.
        ValueError: A file is damaged or of another run, scores of one name come from different models, or two runs
            mean different recordings by one id, or different weights by one system.
    """
    results = Results()
    runs: list[tuple[Path, dict[str, Any]]] = []
    seen: dict[tuple[str, str, str], int] = {}
    everything: list[dict[str, Any]] = []
    for given in folders:
        folder = given.parent if given.suffix == ".jsonl" else given
        utterances, run = read_folder(folder)
        runs.append((folder, run))
        _add_run(results, run, str(folder) if len(folders) > 1 else "")
        double, contradicting = [], []
        everything += utterances
        for utterance in utterances:
            at = seen.setdefault((utterance["id"], utterance["condition"], utterance["system"]), len(seen))
            if at == len(results.utterances):
                results.utterances.append(utterance)
                continue
            joined = _join(results.utterances[at], utterance)
            if joined is None:
                double.append(utterance["id"])
            else:
                results.utterances[at] = joined
            if _contradict(results.utterances[at], utterance):
                contradicting.append(utterance["id"])
        if double:
            results.remarks.append(f"{len(double)} results in {folder} are double and left out{such_as(double)}")
        if contradicting:
            found = f"{len(contradicting)} results in {folder} contradict those that were read first"
            results.remarks.append(f"{found}{such_as(contradicting)}")
    refuse_mixtures(runs, results.utterances)
    refuse_other_recordings(everything)
    refuse_other_systems(runs)
    # A scorer that one of several runs could not load is not absent from the table.
    present = {column.scorer for column in results.columns if column.identity is not None}
    results.absent = {name: reason for name, reason in results.absent.items() if name not in present}
    _mark_missing(results)
    results.remarks += problems(results)
    results.remarks += unscored(results)
    results.remarks += missing_clips(results)
    results.remarks += different_prompts(results)
    results.remarks += other_prompts(results)
    results.remarks += outside_of_splits(results)
    results.remarks += in_the_figure_only(results)
    return results


def _join(known: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """Add to a result what other scorers found in the same sound; None where there are none, or the sound differs."""
    more = other["scores"].keys() - known["scores"].keys()
    if not more or any(known.get(fact) != other.get(fact) for fact in ("seed", "seconds", "prompt_seconds")):
        return None
    problems = {key: problem for key, problem in other["problems"].items() if key.partition("/")[0] in more}
    by_scorer = {name: {**other[name], **known[name]} for name in ("scores", "revisions", "normalizers")}
    return {**known, **by_scorer, "problems": {**problems, **known["problems"]}}


def _contradict(known: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two results of one name have different scores by one scorer."""
    return any(known["scores"].get(scorer, found) != found for scorer, found in other["scores"].items())


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
    results.cards += [card for card in run["cards"] if card not in results.cards]
    for reason, ids in run["data"].items():
        results.remarks.append(one_line(f"{len(ids)} utterances {reason}{where}{such_as(ids)}"))
    for rejection in run["rejected"]:
        results.remarks.append(one_line(f"{rejection['id']} was left out{where}: {rejection['reason']}"))


def _mark_missing(results: Results) -> None:
    """Mark scores that an utterance lacks and others of its row have: what applies to a row applies to all of it."""
    for row in results.rows:
        scores = [utterance["scores"] for utterance in results.of(row)]
        for column in results.columns:
            found = [of_utterance[column.scorer] for of_utterance in scores if column.scorer in of_utterance]
            if any({column.measure.numerator, column.measure.denominator} & values.keys() for values in found):
                for values in found:
                    values.setdefault(column.measure.numerator, None)
