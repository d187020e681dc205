"""DNSMOS, with the package and without it."""

import sys
import types

import numpy as np
import pytest

from modules.evaluation import Dnsmos, ScorerUnavailableError
from modules.evaluation import quality as module


def test_names_the_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "speechmos", None)
    with pytest.raises(
        ScorerUnavailableError, match=r"speechmos cannot be imported \(.*speechmos.*\); pip install '\.\[scorers\]'"
    ):
        Dnsmos().load()


def test_hands_audio_in_range_to_the_package(monkeypatch, make_item):
    heard = []

    def run(audio, sample_rate):
        heard.append((audio, sample_rate))
        return {"filename": "audio", "ovrl_mos": 3.1, "sig_mos": 3.4, "bak_mos": 4.0, "p808_mos": 3.7}

    package = types.ModuleType("speechmos")
    package.__path__ = []
    dnsmos = types.ModuleType("speechmos.dnsmos")
    dnsmos.run = run
    monkeypatch.setitem(sys.modules, "speechmos", package)
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", dnsmos)
    monkeypatch.setattr(module, "version", lambda name: "9")
    scorer = Dnsmos()
    scorer.load()
    values = scorer.score(make_item(2 * make_item.tone(1) / 0.3)).values
    assert values == {"ovrl_mos": 3.1, "sig_mos": 3.4, "bak_mos": 4.0, "p808_mos": 3.7}
    audio, sample_rate = heard[-1]
    assert sample_rate == 16_000
    assert audio.dtype == np.float32
    assert np.abs(audio).max() == 1
    assert scorer.score(make_item(make_item.tone(0))).problems["dnsmos_ovrl"] == "no audio"
    assert scorer.identity() == {"name": "DNSMOS (speechmos)", "revision": "9"}
