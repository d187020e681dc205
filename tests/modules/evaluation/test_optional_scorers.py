"""Scorers that need optional packages: with a stand-in for the package, and without it."""

import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from modules.evaluation import (
    DistillMos,
    FasterWhisperRecognizer,
    Fidelity,
    Nisqa,
    OnnxVoiceEmbedding,
    ResemblyzerEmbedding,
    ScorerUnavailableError,
    SpeakerSimilarity,
    speaker_optional,
)


@pytest.mark.parametrize(
    ("make", "package", "remedy"),
    [
        (lambda: FasterWhisperRecognizer("base.en"), "faster_whisper", "pip install faster-whisper"),
        (ResemblyzerEmbedding, "resemblyzer", "pip install --no-deps resemblyzer"),
        (lambda: OnnxVoiceEmbedding("campplus.onnx"), "onnxruntime", "pip install onnxruntime"),
        (DistillMos, "distillmos", "pip install '.[distillmos]'"),
        (Fidelity, "pesq", "pip install '.[fidelity]'"),
    ],
)
def test_a_missing_package_is_named_with_the_remedy(monkeypatch, make, package, remedy):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ScorerUnavailableError) as caught:
        make().load()
    assert package in caught.value.reason.replace("-", "_")
    assert caught.value.remedy.startswith(remedy)


def test_faster_whisper_is_asked_for_reproducible_text(monkeypatch, tmp_path, make_item):
    asked = []

    class Model:
        def __init__(self, folder, device, compute_type):
            asked.append((folder, device, compute_type))

        def transcribe(self, audio, **options):
            asked.append((audio.shape, options))
            return iter([types.SimpleNamespace(text=" Hello"), types.SimpleNamespace(text=" there. ")]), None

    package = types.ModuleType("faster_whisper")
    package.WhisperModel = Model
    monkeypatch.setitem(sys.modules, "faster_whisper", package)
    (tmp_path / "model.bin").write_bytes(b"weights")
    recognizer = FasterWhisperRecognizer(str(tmp_path), compute_type="float32")
    recognizer.load()
    assert recognizer.transcribe([make_item.tone(1), torch.zeros(0)]) == ["Hello there.", ""]
    assert asked[0] == (str(tmp_path), "auto", "float32")
    shape, options = asked[1]
    assert shape == (16_000,)
    assert (options["language"], options["temperature"], options["beam_size"]) == ("en", 0.0, 1)
    revision = recognizer.identity()["revision"]
    assert revision.endswith(" float32")
    (tmp_path / "model.bin").write_bytes(b"other weights")
    other = FasterWhisperRecognizer(str(tmp_path), compute_type="float32")
    other.load()
    assert other.identity()["revision"] != revision


def test_resemblyzer_prepares_audio_and_silence_has_no_voice(monkeypatch, make_item):
    package = types.ModuleType("resemblyzer")
    package.preprocess_wav = lambda samples, source_sr: samples[: len(samples) // 2]
    package.VoiceEncoder = lambda device, verbose: types.SimpleNamespace(
        embed_utterance=lambda samples: np.full(256, 2.0, dtype=np.float32) if len(samples) else None
    )
    monkeypatch.setitem(sys.modules, "resemblyzer", package)
    monkeypatch.setattr(speaker_optional, "version", lambda name: "0.1.4")
    embedding = ResemblyzerEmbedding()
    embedding.load()
    torch.testing.assert_close(embedding(make_item.tone(1)), torch.full((256,), 1 / 16))
    assert embedding.identity() == {"name": "Resemblyzer", "revision": "0.1.4"}
    silent = SpeakerSimilarity(embedding).score(make_item(torch.zeros(8 * 16_000)))
    assert math.isnan(silent.values["sim_o"])


def test_filterbanks_are_kaldis(make_item):
    audio = make_item.tone(1)
    extractor = hf.SeamlessM4TFeatureExtractor()
    expected = extractor._extract_fbank_features(audio.numpy())
    found = OnnxVoiceEmbedding("any.onnx", window="povey").filterbank(audio)
    assert found.shape == (98, 80)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected - expected.mean(axis=0), atol=1e-3)


def test_an_onnx_model_is_given_normalised_filterbanks(monkeypatch, tmp_path, make_item):
    fed = []

    class Session:
        def __init__(self, path, providers):
            if b"broken" in Path(path).read_bytes():
                raise RuntimeError("no protobuf\nat all")

        def get_inputs(self):
            return [types.SimpleNamespace(name="feats")]

        def run(self, names, inputs):
            fed.append(inputs)
            return [np.zeros(3), np.array([[3.0, 4.0]])]

    package = types.ModuleType("onnxruntime")
    package.InferenceSession = Session
    monkeypatch.setitem(sys.modules, "onnxruntime", package)
    file = tmp_path / "campplus.onnx"
    with pytest.raises(ScorerUnavailableError, match=r"there is no '.*campplus\.onnx'"):
        OnnxVoiceEmbedding(str(file)).load()
    file.write_bytes(b"broken")
    with pytest.raises(ScorerUnavailableError, match=r"cannot be loaded \(no protobuf\)"):
        OnnxVoiceEmbedding(str(file)).load()
    file.write_bytes(b"fine")
    embedding = OnnxVoiceEmbedding(str(file))
    embedding.load()
    torch.testing.assert_close(embedding(make_item.tone(1)), torch.tensor([0.6, 0.8]))
    assert fed[0]["feats"].shape == (1, 98, 80)
    np.testing.assert_allclose(fed[0]["feats"].mean(axis=1), 0, atol=1e-4)
    assert embedding.identity()["name"] == "campplus"


def nisqa(monkeypatch, assess):
    monkeypatch.setattr("torchmetrics.functional.audio.nisqa.non_intrusive_speech_quality_assessment", assess)
    return Nisqa()


def test_nisqa_gives_five_scores_and_names_what_it_cannot_score(monkeypatch, make_item):
    def assess(audio, rate):
        if audio.numel() < 4000:
            raise RuntimeError("Input signal is too short.")
        return torch.tensor([3.5, 3.0, 4.0, 2.0, 1.0])

    scorer = nisqa(monkeypatch, assess)
    scorer.load()
    values = scorer.score(make_item()).values
    assert list(values.values()) == [3.5, 3.0, 4.0, 2.0, 1.0]
    assert values["nisqa_mos"] == 3.5
    short = scorer.score(make_item(torch.zeros(100)))
    assert math.isnan(short.values["nisqa_mos"])
    assert short.problems["nisqa_mos"] == "Input signal is too short"
    assert scorer.score(make_item(torch.zeros(0))).problems["nisqa_mos"] == "no audio"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("NISQA metric requires that librosa and requests are installed."), "librosa and requests"),
        (ConnectionError("github.com cannot be reached"), "weights cannot be fetched or read"),
    ],
)
def test_nisqa_says_what_is_missing(monkeypatch, error, reason):
    def assess(audio, rate):
        raise error

    with pytest.raises(ScorerUnavailableError) as caught:
        nisqa(monkeypatch, assess).load()
    assert reason in caught.value.reason


def test_distillmos_scores_the_whole_clip(monkeypatch, make_item):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, audio):
            assert audio.shape == (1, 8 * 16_000)
            return torch.tensor([[4.25]])

    package = types.ModuleType("distillmos")
    package.ConvTransformerSQAModel = Model
    monkeypatch.setitem(sys.modules, "distillmos", package)
    scorer = DistillMos()
    scorer.load()
    assert scorer.score(make_item()).values == {"distillmos": 4.25}
    assert scorer.score(make_item(torch.zeros(0))).problems == {"distillmos": "no audio"}
    assert scorer.identity()["revision"].startswith("xxh3:")


@pytest.fixture
def fidelity(monkeypatch):
    """PESQ and STOI that say how long the two signals are, and whether they are one; PESQ fails on silence."""

    def pesq(audio, original, rate, mode):
        assert (rate, mode) == (16_000, "wb")
        if not audio.any():
            raise RuntimeError("No utterances detected")
        return torch.tensor(4.5 if torch.equal(audio, original) else 2.0)

    def stoi(audio, original, rate, extended):
        assert (rate, extended, audio.shape) == (16_000, True, original.shape)
        return torch.tensor(len(audio) / rate)

    for name in ("pesq", "pystoi"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    functions = types.ModuleType("torchmetrics.functional.audio")
    functions.perceptual_evaluation_speech_quality, functions.short_time_objective_intelligibility = pesq, stoi
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.audio", functions)
    scorer = Fidelity()
    scorer.load()
    return scorer


def test_a_codec_is_held_against_the_recording_without_the_prompt(fidelity, make_item):
    recording = make_item.tone(4)
    found = fidelity.score(make_item(audio=recording[:-100], original=recording, prompt_seconds=3.0, own_prompt=True))
    assert found.values["pesq"] == 4.5
    assert found.values["estoi"] == pytest.approx(1 - 100 / 16_000)
    assert found.problems == {}


def test_what_cannot_be_measured_is_said(fidelity, make_item):
    silent = fidelity.score(make_item(audio=torch.zeros(16_000), original=make_item.tone(1), prompt_seconds=0.0))
    assert math.isnan(silent.values["pesq"])
    assert silent.values["estoi"] == 1.0
    assert silent.problems == {"pesq": "No utterances detected"}
    short = fidelity.score(make_item(audio=make_item.tone(0.2), prompt_seconds=0.0))
    assert math.isnan(short.values["estoi"])
    assert "less than 0.5 s" in short.problems["estoi"]
