"""Distance of log-mel spectrograms."""

import math

import pytest

from modules.evaluation import MelDistance


def test_the_recording_is_at_no_distance_from_itself(make_item):
    assert MelDistance().score(make_item()).values["mel_distance"] == 0


def test_half_the_amplitude_is_six_decibels_away(make_item):
    audio = make_item.tone(4)
    score = MelDistance().score(make_item(0.5 * audio, original=audio)).values["mel_distance"]
    assert score == pytest.approx(20 * math.log10(2), abs=0.05)


def test_a_full_scale_tone_lies_near_zero_decibels(make_item):
    scorer = MelDistance()
    peak = scorer.spectrogram(make_item.tone(1, hertz=1000.0) / 0.3).max()
    assert -7.5 < peak < 0.5  # half of a sine's amplitude lies at its positive frequency


def test_the_prompt_is_not_scored(make_item):
    audio = make_item.tone(8)
    changed = audio.clone()
    changed[: 3 * 16_000] = 0
    assert MelDistance().score(make_item(changed, original=audio)).values["mel_distance"] == 0
    assert MelDistance().score(make_item(changed, original=audio, prompt_seconds=0.0)).values["mel_distance"] > 1


def test_a_prompt_of_another_utterance_shifts_nothing(make_item):
    audio = make_item.tone(8)
    item = make_item(audio, original=audio[3 * 16_000 :], own_prompt=False)
    assert MelDistance().score(item).values["mel_distance"] == 0


def test_nothing_after_the_prompt_is_named(make_item):
    scores = MelDistance().score(make_item(make_item.tone(2)))
    assert math.isnan(scores.values["mel_distance"])
    assert scores.problems == {"mel_distance": "no audio after the prompt"}
