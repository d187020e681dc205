"""Speaker similarity and consistency."""

import math

import pytest
import torch
import transformers as hf

from modules.evaluation import (
    AcousticConsistency,
    ScorerUnavailableError,
    SpeakerSimilarity,
    VoiceEmbedding,
    XVectorEmbedding,
)


class Angle(VoiceEmbedding):
    """Takes the mean of a clip for the angle of a vector on the unit circle; remembers what it heard."""

    sample_rate, min_seconds = 16_000, 0.5

    def __init__(self):
        super().__init__()
        self.heard = []

    def load(self):
        pass

    def forward(self, audio):
        self.heard.append(audio)
        angle = audio.mean()
        return torch.stack([angle.cos(), angle.sin()])

    def identity(self):
        return {"name": "angle", "revision": "1"}


def steps(*levels, seconds=3.0):
    """Audio that stays at each level for some seconds."""
    return torch.cat([torch.full((int(seconds * 16_000),), float(level)) for level in levels])


@pytest.fixture(scope="module")
def xvector(tiny_xvector):
    embedding = XVectorEmbedding(str(tiny_xvector))
    embedding.load()
    return embedding


def test_the_embedding_is_that_of_transformers(xvector, tiny_xvector, make_item):
    audio = make_item.tone(2)
    model = hf.WavLMForXVector.from_pretrained(tiny_xvector).eval()
    inputs = hf.AutoFeatureExtractor.from_pretrained(tiny_xvector)(audio, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).embeddings[0]
    torch.testing.assert_close(xvector(audio), expected / expected.norm())


def test_the_similarity_of_a_voice_with_itself_is_one(xvector, make_item):
    half = make_item.tone(3)
    scores = SpeakerSimilarity(xvector).score(make_item(torch.cat([half, half])))
    assert scores.values["sim_o"] == pytest.approx(1, abs=1e-5)
    assert scores.values["sim_r"] == pytest.approx(1, abs=1e-5)


def test_the_prompt_is_cut_off_the_generated_audio(make_item):
    embedding = Angle()
    item = make_item(steps(0.1, 0.9, 0.9), original=steps(0.3, 0.5, 0.5))
    scores = SpeakerSimilarity(embedding).score(item).values
    continuation = embedding.heard[0]
    assert len(continuation) == 6 * 16_000
    torch.testing.assert_close(continuation, steps(0.9, 0.9))
    assert scores["sim_o"] == pytest.approx(math.cos(0.9 - 0.3), abs=1e-5)  # the prompt as recorded
    assert scores["sim_r"] == pytest.approx(math.cos(0.9 - 0.1), abs=1e-5)  # the prompt as rendered


def test_who_has_no_prompt_has_no_similarity(make_item):
    scorer = SpeakerSimilarity(Angle())
    assert scorer.score(make_item(prompt_seconds=0.0)).values == {}
    assert set(scorer.score(make_item(system="original", condition="reference")).values) == {"sim_o"}


def test_the_prompt_of_another_utterance_is_heard_as_recorded(make_item):
    item = make_item(steps(0.1, 0.9), original=steps(0.9), own_prompt=False, other_prompt=steps(0.4))
    scores = SpeakerSimilarity(Angle()).score(item)
    assert scores.values["sim_o"] == pytest.approx(math.cos(0.9 - 0.4), abs=1e-5)
    assert scores.values["sim_r"] == pytest.approx(math.cos(0.9 - 0.1), abs=1e-5)
    assert scores.problems == {}


def test_a_prompt_whose_recording_is_not_at_hand_is_named(make_item):
    item = make_item(steps(0.1, 0.9), own_prompt=False, prompt_problem="nowhere to be found")
    scores = SpeakerSimilarity(Angle()).score(item)
    assert math.isnan(scores.values["sim_o"])
    assert scores.values["sim_r"] == pytest.approx(math.cos(0.9 - 0.1), abs=1e-5)
    assert scores.problems == {"sim_o": "nowhere to be found"}


def test_a_clip_that_hardly_outlasts_its_prompt_is_named(make_item):
    scores = SpeakerSimilarity(Angle()).score(make_item(steps(0.1, seconds=3.4)))
    assert math.isnan(scores.values["sim_o"])
    assert scores.problems == dict.fromkeys(("sim_o", "sim_r"), "audio after the prompt shorter than 0.5 s")


def test_drift_is_the_first_crop_minus_the_last(make_item):
    scores = AcousticConsistency(Angle()).score(make_item(torch.cat([steps(0, 0.2, 0.5, 0.8), steps(3, seconds=1)])))
    curve = [math.cos(0.2), math.cos(0.5), math.cos(0.8)]
    assert scores.values["curve"] == pytest.approx(curve, abs=1e-4)  # what is left at the end is not scored
    assert scores.values["mean"] == pytest.approx(sum(curve) / 3, abs=1e-4)
    assert scores.values["drift"] == pytest.approx(math.cos(0.2) - math.cos(0.8), abs=1e-4)
    assert scores.problems == {}


def test_short_clips_have_no_drift_and_very_short_ones_no_consistency(make_item):
    scorer = AcousticConsistency(Angle())
    two = scorer.score(make_item(steps(0, 0.2)))
    assert two.values["mean"] == pytest.approx(math.cos(0.2), abs=1e-4)
    assert math.isnan(two.values["drift"])
    assert set(two.problems) == {"drift"}
    one = scorer.score(make_item(steps(0, seconds=5.9)))
    assert math.isnan(one.values["mean"])
    assert one.problems["consistency"] == "shorter than two crops of 3 s"


def test_crops_too_short_for_the_embedding_are_refused():
    with pytest.raises(ValueError, match=r"crop_seconds is 0\.2, the embedding needs 0\.5 s"):
        AcousticConsistency(Angle(), crop_seconds=0.2)


def test_a_model_without_speaker_head_is_refused(tiny_xvector, tmp_path):
    config = hf.WavLMConfig.from_pretrained(tiny_xvector)
    hf.WavLMModel(config).save_pretrained(tmp_path)
    hf.AutoFeatureExtractor.from_pretrained(tiny_xvector).save_pretrained(tmp_path)
    with pytest.raises(ScorerUnavailableError, match="lacks weights of WavLMForXVector"):
        XVectorEmbedding(str(tmp_path)).load()
