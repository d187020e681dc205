"""WER and CER."""

import math

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.evaluation import Recognizer, WhisperRecognizer, WordErrors
from modules.evaluation.text import EnglishNormalizer
from modules.evaluation.word_errors import spoken_after_prompt, word_errors


class Script(Recognizer):
    """Says what it was told to, by the length of the clip."""

    sample_rate = 16_000

    def __init__(self, lines):
        super().__init__()
        self.lines, self.normalizer, self.calls = lines, EnglishNormalizer({"colour": "color"}), 0

    def load(self):
        pass

    def transcribe(self, audio):
        self.calls += len(audio)
        return [self.lines[len(clip)] for clip in audio]

    def identity(self):
        return {"name": "script", "revision": "1"}


def test_agrees_with_jiwer_on_the_same_hypotheses(tiny_whisper, make_item):
    recognizer = WhisperRecognizer(str(tiny_whisper))
    scorer = WordErrors(recognizer)
    scorer.load()
    texts = ["Red, green and blue.", "THE COLOUR OF THE SEA", "Twenty-two suns!"]
    items = [make_item(make_item.tone(1 + n, seed=n), text=text) for n, text in enumerate(texts)]
    scores = [found.values for found in scorer.score_batch(items)]
    references = [recognizer.normalizer(text) for text in texts]
    hypotheses = [recognizer.normalizer(heard) for heard in recognizer.transcribe([item.audio for item in items])]
    assert references == ["red green and blue", "the color of the sea", "22 suns"]
    assert [found["hypothesis"] for found in scores] == hypotheses
    assert sum(f["word_errors"] for f in scores) / sum(f["words"] for f in scores) == jiwer.wer(references, hypotheses)
    characters = sum(f["character_errors"] for f in scores) / sum(f["characters"] for f in scores)
    assert characters == jiwer.cer(references, hypotheses)
    for found, reference, hypothesis in zip(scores, references, hypotheses, strict=True):
        assert found["wer"] == jiwer.wer(reference, hypothesis)
        assert found["cer"] == jiwer.cer(reference, hypothesis)


def test_an_utterance_without_text_has_no_error_rate(make_item):
    scores = WordErrors(Script({16_000: "red"})).score(make_item(make_item.tone(1), text=" "))
    assert math.isnan(scores.values["wer"])
    assert scores.problems["wer"] == "no reference text"
    assert scores.values["hypothesis"] == "red"


def test_silence_deletes_all_words_and_is_named(make_item):
    scores = WordErrors(Script({16_000: ""})).score(make_item(make_item.tone(1), text="red green"))
    assert (scores.values["word_errors"], scores.values["wer"]) == (2, 1.0)
    assert "empty transcript" in scores.problems["wer"]


def test_the_prompt_of_another_utterance_is_not_heard(make_item):
    scorer = WordErrors(Script({5 * 16_000: "red green blue", 8 * 16_000: "who else red green blue"}))
    assert scorer.score(make_item(own_prompt=False)).values["word_errors"] == 0
    assert scorer.score(make_item(own_prompt=True)).values["word_errors"] == 2


def test_continuations_are_scored_against_the_end_of_the_text(make_item):
    script = Script({8 * 16_000: "red green blue", 5 * 16_000: "green blue", 5 * 16_000 - 1: "green sky"})
    scorer = WordErrors(script, continuation=True)
    items = [
        make_item(text="Red green, blue"),
        make_item(make_item.tone(8)[:-1], original=make_item.tone(8), text="Red green, blue"),
        make_item(prompt_seconds=0.0),
    ]
    script.lines[8 * 16_000 - 1] = "red green sky"
    first, second, unprompted = (scores.values for scores in scorer.score_batch(items))
    assert (first["continuation_reference"], first["continuation_word_errors"]) == ("green blue", 0)
    assert (second["continuation_hypothesis"], second["continuation_word_errors"]) == ("green sky", 1)
    assert (second["continuation_character_errors"], second["continuation_characters"]) == (4, 10)
    assert "continuation_words" not in unprompted
    # Three whole clips, the original's continuation once, two continuations.
    assert script.calls == 6


def test_a_batch_may_hold_utterances_heard_before_beside_new_ones(make_item):
    script = Script({8 * 16_000: "red green blue", 5 * 16_000: "green blue"})
    scorer = WordErrors(script, continuation=True)
    scorer.score_batch([make_item()])
    scores = scorer.score_batch([make_item(), make_item(id="b")])
    assert [found.values["continuation_word_errors"] for found in scores] == [0, 0]
    # Per rendering the clip and its continuation, per utterance the continuation of the original.
    assert script.calls == 3 * 2 + 2


def test_a_silent_continuation_is_named(make_item, monkeypatch):
    script = Script({})
    answers = iter([["red green blue"], ["green blue", ""]])  # the clip; the original after the prompt, the rendering
    monkeypatch.setattr(script, "transcribe", lambda audio: next(answers))
    scores = WordErrors(script, continuation=True).score(make_item(text="red green blue"))
    assert (scores.values["continuation_word_errors"], scores.values["continuation_words"]) == (2, 2)
    assert scores.problems == {"wer_continuation": "empty transcript, all words counted as deleted"}


def test_a_clip_that_ends_with_its_prompt_has_no_continuation(make_item):
    scorer = WordErrors(Script({3 * 16_000: "red"}), continuation=True)
    scores = scorer.score(make_item(make_item.tone(3), text="red green"))
    assert math.isnan(scores.values["continuation_word_errors"])
    assert math.isnan(scores.values["continuation_characters"])
    assert math.isnan(scores.values["continuation_cer"])
    names = ("wer_continuation", "cer_continuation", "wer_continuation_mean", "cer_continuation_mean")
    assert scores.problems == dict.fromkeys(names, "no audio after the prompt")


@pytest.mark.parametrize(
    ("text", "heard", "rest"),
    [
        ("a b c d", "c d", "c d"),
        ("a b c d", "x d", "c d"),
        ("a b c d", "", ""),
        ("a b c d", "a b c d", "a b c d"),
        ("", "a", ""),
        ("the sun the sea", "the sea", "the sea"),
    ],
)
def test_the_end_of_a_text_is_found(text, heard, rest):
    assert spoken_after_prompt(text, heard) == rest


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_the_end_found_has_the_least_distance_of_all_ends(text, heard):
    found = spoken_after_prompt(" ".join(text), " ".join(heard)).split()

    def distance(words):
        return word_errors(" ".join(words), " ".join(heard)) if words else len(heard)

    distances = [distance(text[start:]) for start in range(len(text) + 1)]
    assert distance(found) == min(distances)
    assert len(found) == len(text) - distances.index(min(distances))


@pytest.mark.parametrize("after", ["", "_continuation"], ids=["whole", "continuation"])
def test_corpus_level_is_not_the_mean_of_utterances(make_item, after):
    said = {1: "red", 2: "red green blue red green blue red green blue sea"}
    texts = {1: "blue", 2: "red green blue red green blue red green blue sky"}
    script = Script({seconds * 16_000: heard for seconds, heard in said.items()})
    # Cut off the original, a prompt of 3 s leaves all of the text.
    script.lines |= {seconds * 16_000 + 1: text for seconds, text in texts.items()}
    script.lines |= {(3 + seconds) * 16_000: heard for seconds, heard in said.items()}
    scorer = WordErrors(script, continuation=True)
    items = [
        make_item(make_item.tone(3 + n), original=make_item.tone(3 + n + 1)[: (3 + n) * 16_000 + 1], id=text, text=text)
        for n, text in texts.items()
    ]
    scores = [found.values for found in scorer.score_batch(items)]
    measures = {measure.name: measure for measure in scorer.measures}

    def rate(name):
        terms = [measures[name].terms(found) for found in scores]
        return measures[name].scale * sum(above for above, _ in terms) / sum(below for _, below in terms)

    assert rate(f"wer{after}") == pytest.approx(100 * 2 / 11)
    assert rate(f"wer{after}_mean") == pytest.approx(100 * (1 + 1 / 10) / 2)
    assert rate(f"cer{after}_mean") != pytest.approx(rate(f"cer{after}"))
