"""What tokens say about phones, counted by hand."""

import math
import sys

import pytest

from datamodules.audio_files import AudioReader
from datamodules.audio_manifest import AudioManifest
from modules.semantic.phones import Phone, PhoneAligner, phone_agreement, phones_of_frames


def test_tokens_that_are_phones_agree_fully():
    agreement = phone_agreement([3, 3, 5, 9], ["A", "A", "B", "C"])
    assert agreement[:3] == pytest.approx((1, 1, 1))
    assert agreement.unheard_accuracy is None


def test_a_single_token_says_nothing():
    agreement = phone_agreement([0, 0, 0, 0], ["A", "A", "B", "C"])
    assert agreement[:3] == pytest.approx((0.5, 1, 0))


def test_measures_by_hand():
    # Token 0: A A B; token 1: B B A. Phone A: tokens 0 0 1.
    agreement = phone_agreement([0, 0, 0, 1, 1, 1], ["A", "A", "B", "B", "B", "A"])
    information = math.log(2) - (-(1 / 3) * math.log(1 / 3) - (2 / 3) * math.log(2 / 3))
    assert agreement[:3] == pytest.approx((2 / 3, 2 / 3, information / math.log(2)))


def test_unheard_accuracy_takes_the_phone_of_a_token_from_other_speech():
    other = ([0, 0, 0, 1, 7], ["A", "A", "B", "C", "Z"])
    # Token 0 is A (right twice of three), token 1 is C (wrong), token 2 was never heard, token 7 is a phone not here.
    agreement = phone_agreement([0, 0, 0, 1, 2, 7], ["A", "A", "B", "B", "A", "A"], other)
    assert agreement.unheard_accuracy == pytest.approx(2 / 6)


@pytest.mark.parametrize(("tokens", "phones"), [([], []), ([1], ["A", "B"])])
def test_frames_that_do_not_match_are_refused(tokens, phones):
    with pytest.raises(ValueError, match="one of each per frame"):
        phone_agreement(tokens, phones)


def test_each_frame_has_the_phone_at_its_centre():
    phones = [Phone("A", 0.02, 0.05), Phone("B", 0.05, 0.09), Phone("C", 0.13, 0.2)]
    # Centres at 10, 30, 50, 70, 90, 110, 130 ms.
    assert phones_of_frames(phones, 7, 50.0) == ["SIL", "A", "B", "B", "SIL", "SIL", "C"]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ModuleNotFoundError, match=r"\[phones\]"):
        PhoneAligner()


def test_a_spoken_sentence_is_aligned():
    pytest.importorskip("pocketsphinx", reason="the extra 'phones' is not installed")
    utterance = AudioManifest("datamodules/demo_speech/manifest.csv")[0]
    audio = AudioReader(16_000)(utterance.file)
    phones = PhoneAligner()(audio, utterance.text)
    assert phones is not None
    spoken = [phone for phone in phones if phone.name != "SIL"]
    assert [phone.name for phone in spoken[:4]] == ["P", "L", "IY", "Z"]  # please
    assert all(phone.start < phone.end for phone in phones)
    assert spoken[-1].end == pytest.approx(audio.numel() / 16_000, abs=0.5)
    assert PhoneAligner()(audio, "zorkblatt") is None
