"""Features without weights."""

import math

import pytest
import torch

from modules.semantic import LogMelFeatures


def tone(frequency, num_samples, amplitude=0.3):
    return amplitude * torch.sin(2 * math.pi * frequency * torch.arange(num_samples) / 16_000)


@pytest.mark.parametrize(("num_samples", "num_frames"), [(1, 1), (320, 1), (321, 2), (16_000, 50), (16_001, 51)])
def test_as_many_frames_as_a_codec(num_samples, num_frames):
    features = LogMelFeatures()
    assert features.num_frames(num_samples) == num_frames
    assert features(torch.randn(2, num_samples)).shape == (2, num_frames, features.dim)
    assert features.frame_rate == 50


def test_frames_are_centred_on_the_codecs_frames():
    features = LogMelFeatures(context=0, normalize=False)
    click = torch.zeros(1, 3200)
    click[0, 4 * 320 + 160] = 1.0  # the middle of frame 4
    energy = features(click)[0].sum(dim=1)
    assert energy.argmax() == 4
    torch.testing.assert_close(energy[3], energy[5], rtol=1e-3, atol=1e-3)


def test_bands_follow_the_pitch():
    features = LogMelFeatures(context=0, normalize=False)
    bands = [int(features(tone(frequency, 3200)[None])[0, 5].argmax()) for frequency in (300, 1000, 3000, 6000)]
    assert bands == sorted(set(bands))


def test_normalisation_removes_level_and_colour(speechlike):
    audio = speechlike(16_000)[None]
    torch.testing.assert_close(LogMelFeatures()(audio), LogMelFeatures()(0.5 * audio), rtol=0, atol=0.02)
    plain = LogMelFeatures(normalize=False)
    assert (plain(audio) - plain(0.5 * audio)).abs().mean() > 0.5


def test_context_stacks_the_neighbours(speechlike):
    audio = speechlike(3200)[None]
    alone, stacked = LogMelFeatures(context=0)(audio)[0], LogMelFeatures(context=1)(audio)[0]
    torch.testing.assert_close(stacked[4], torch.cat([alone[3], alone[4], alone[5]]))
    torch.testing.assert_close(stacked[0], torch.cat([alone[0], alone[0], alone[1]]))


def test_silence_is_finite():
    assert LogMelFeatures()(torch.zeros(1, 4000)).isfinite().all()


def test_empty_audio_is_refused():
    with pytest.raises(ValueError, match="too short"):
        LogMelFeatures()(torch.zeros(1, 0))


def test_audio_has_two_dimensions():
    with pytest.raises(ValueError, match=r"shape \[B, N\], got \[4000\]"):
        LogMelFeatures()(torch.zeros(4000))


def test_arguments_rebuild_the_features():
    features = LogMelFeatures(num_mels=32, context=3, normalize=False)
    again = LogMelFeatures(**features.init_args())
    assert again.identity() == features.identity() != LogMelFeatures().identity()
