"""Word and character error rate of what a recogniser hears."""

from collections.abc import Sequence
from typing import Any

import jiwer

from modules.evaluation.items import EvaluationItem
from modules.evaluation.recognition import Recognizer
from modules.evaluation.scorer import Score, Scorer, Scores
from modules.measure import Measure


def word_errors(reference: str, hypothesis: str) -> int:
    """Count the words substituted, deleted and inserted."""
    counts = jiwer.process_words(reference, hypothesis)
    return counts.substitutions + counts.deletions + counts.insertions


def character_errors(reference: str, hypothesis: str) -> int:
    """Count the characters substituted, deleted and inserted."""
    counts = jiwer.process_characters(reference, hypothesis)
    return counts.substitutions + counts.deletions + counts.insertions


def spoken_after_prompt(text: str, heard: str) -> str:
    """Find the end of a text that was heard when the beginning of its recording was cut off.

    Args:
        text: Normalised text of the whole recording.
        heard: Normalised transcript of the recording without its beginning.

    Returns:
        The trailing words of ``text`` that differ least from ``heard``; of two such ends the longer one.
    """
    words, heard_words = text.split(), heard.split()
    # Edit distance of every suffix of the text to what was heard, by one pass over both from their ends: after the
    # loop over the words that follow it, row[0] holds the distance of the suffix to the whole of `heard`.
    row = list(range(len(heard_words), -1, -1))
    best, start = row[0], len(words)
    for index in range(len(words) - 1, -1, -1):
        diagonal, row[-1] = row[-1], row[-1] + 1
        for column in range(len(heard_words) - 1, -1, -1):
            substituted = diagonal + (words[index] != heard_words[column])
            diagonal = row[column]
            row[column] = min(substituted, row[column] + 1, row[column + 1] + 1)
        if row[0] <= best:
            best, start = row[0], index
    return " ".join(words[start:])


def error_rates(reference: str, hypothesis: str, prefix: str = "") -> dict[str, Score]:
    """Count errors in words and in characters: ``word_errors``, ``words``, ``wer``, and the same of characters.

    Args:
        reference: Normalised text; where it is empty all counts and rates are NaN.
        hypothesis: Normalised transcript.
        prefix: Of all keys.
    """
    counted = {
        "word": ("wer", word_errors, len(reference.split())),
        "character": ("cer", character_errors, len(reference)),
    }
    values: dict[str, Score] = {}
    for unit, (rate, count, total) in counted.items():
        errors = count(reference, hypothesis) if total else float("nan")
        length = total or float("nan")
        values |= {f"{unit}_errors": errors, f"{unit}s": length, rate: errors / length}
    return {prefix + key: value for key, value in values.items()}


class WordErrors(Scorer):
    """WER and CER, at corpus level (errors over words) and as the mean over utterances.

    The whole utterance is scored against the whole text, its own beginning included where that was the prompt. The
    paper does not say whether its scores include the prompt, and its recogniser, a Conformer Transducer-L, is not
    public: compare systems within a table.

    Args:
        recognizer: What listens.
        continuation: Also score the audio after the prompt alone, against those last words of the text that the
            recogniser hears in the original after the same cut. Doubles the work on rows that have a prompt.
        name: Key of the scorer in the results.
    """

    def __init__(self, recognizer: Recognizer, continuation: bool = False, name: str = "wer") -> None:
        super().__init__()
        self.recognizer = recognizer
        self.continuation = continuation
        self.name = name
        self.sample_rate = recognizer.sample_rate
        self._heard: dict[tuple[str, float], str] = {}

    @property
    def measures(self) -> Sequence[Measure]:
        """Corpus-level WER and CER, and their means over utterances."""
        return self._measures(continuation=False) + (self._measures(continuation=True) if self.continuation else [])

    @staticmethod
    def _measures(continuation: bool) -> list[Measure]:
        prefix, suffix = ("continuation_", "_continuation") if continuation else ("", "")
        after = " after the prompt" if continuation else ""
        percent: dict[str, Any] = {"scale": 100.0, "higher_is_better": False}
        words = (f"{prefix}word_errors", f"{prefix}words")
        characters = (f"{prefix}character_errors", f"{prefix}characters")
        published = {rate: None if continuation else rate for rate in ("wer", "cer")}
        return [
            Measure(f"wer{suffix}", f"WER %{after}", *words, published=published["wer"], **percent),
            Measure(f"cer{suffix}", f"CER %{after}", *characters, published=published["cer"], **percent),
            Measure(f"wer{suffix}_mean", f"WER %{after}, mean of utterances", f"{prefix}wer", **percent),
            Measure(f"cer{suffix}_mean", f"CER %{after}, mean of utterances", f"{prefix}cer", **percent),
        ]

    def load(self) -> None:
        """Fetch the recogniser's model."""
        self.recognizer.load()

    def score(self, item: EvaluationItem) -> Scores:
        """Score one utterance; see :meth:`score_batch`."""
        return self.score_batch([item])[0]

    def score_batch(self, items: Sequence[EvaluationItem]) -> list[Scores]:
        """Transcribe the utterances and count the errors.

        Returns:
            ``hypothesis`` and ``reference`` as compared, ``transcript`` as heard, ``word_errors``, ``words``, ``wer``,
            ``character_errors``, ``characters`` and ``cer``; of the audio after the prompt the same, all but the
            transcript, with ``continuation_`` before the name. An utterance without text has a hypothesis only; an
            empty hypothesis is scored, all words being deleted, and is named as a problem.
        """
        transcripts = self.recognizer.transcribe([item.spoken for item in items])
        scores = [self._compare(item, transcript) for item, transcript in zip(items, transcripts, strict=True)]
        if self.continuation:
            self._compare_continuations(items, scores)
        return scores

    def _compare(self, item: EvaluationItem, transcript: str) -> Scores:
        normalize = self.recognizer.normalizer
        reference, hypothesis = normalize(item.text), normalize(transcript)
        values: dict[str, Score] = {"transcript": transcript, "hypothesis": hypothesis, "reference": reference}
        values |= error_rates(reference, hypothesis)
        if not reference:
            return Scores(values, {measure.name: "no reference text" for measure in self._measures(continuation=False)})
        return Scores(values, {} if hypothesis else {"wer": "empty transcript, all words counted as deleted"})

    def _compare_continuations(self, items: Sequence[EvaluationItem], scores: list[Scores]) -> None:
        rows = [row for row, item in enumerate(items) if item.prompt_seconds > 0 and item.own_prompt and item.text]
        normalize = self.recognizer.normalizer
        scorable = [row for row in rows if items[row].continuation.numel()]
        for row in set(rows) - set(scorable):
            self._no_continuation(scores[row], "no audio after the prompt")
        unheard = {self._key(items[row]): items[row] for row in scorable if self._key(items[row]) not in self._heard}
        originals = [item.original_continuation for item in unheard.values()]
        heard = self.recognizer.transcribe([*originals, *(items[row].continuation for row in scorable)])
        # The systems' renderings of an utterance follow one another: only the utterances at hand need remembering.
        remembered = {key: self._heard[key] for row in scorable if (key := self._key(items[row])) in self._heard}
        self._heard = remembered | dict(zip(unheard, map(normalize, heard), strict=False))
        for row, transcript in zip(scorable, heard[len(originals) :], strict=True):
            reference = spoken_after_prompt(normalize(items[row].text), self._heard[self._key(items[row])])
            hypothesis = normalize(transcript)
            if not reference:
                self._no_continuation(scores[row], "nothing is said after the prompt")
            elif not hypothesis:
                scores[row].problems["wer_continuation"] = "empty transcript, all words counted as deleted"
            scores[row].values.update(continuation_hypothesis=hypothesis, continuation_reference=reference)
            scores[row].values.update(error_rates(reference, hypothesis, "continuation_"))

    def _no_continuation(self, scores: Scores, reason: str) -> None:
        scores.values.update(error_rates("", "", "continuation_"))
        scores.problems.update({measure.name: reason for measure in self._measures(continuation=True)})

    @staticmethod
    def _key(item: EvaluationItem) -> tuple[str, float]:
        return item.id, item.prompt_seconds

    def identity(self) -> dict[str, Any]:
        """The recogniser's identity, and the normaliser's."""
        return {**self.recognizer.identity(), "normalizer": self.recognizer.normalizer.identity()}
