"""Losses: what they notice and what they ignore."""

import pytest
import torch

from modules.codec.soundstream import ComplexSpectralLoss, MultiScaleMelLoss
from modules.codec.soundstream.losses import (
    discriminator_hinge_loss,
    feature_matching_loss,
    generator_hinge_loss,
    mel_filters,
)

MEL = MultiScaleMelLoss(windows=[128, 512], num_mels=[16, 32])
SPECTRUM = ComplexSpectralLoss(windows=[256])


def tone(hertz: float, phase: float = 0.0) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(8000) / 16000 + phase)[None]


@pytest.mark.parametrize("loss", [MEL, SPECTRUM])
def test_equal_audio_is_at_no_distance(loss):
    assert loss(tone(300), tone(300)) < 1e-3


def test_mel_distance_grows_with_the_difference_in_pitch():
    assert 0.05 < MEL(tone(310), tone(300)) < MEL(tone(900), tone(300))


def test_mel_distance_ignores_phase_and_the_complex_one_does_not():
    noise, other = (0.1 * torch.randn(2, 1, 8000)).unbind()
    flipped = -noise
    assert MEL(flipped, noise) < 1e-3 < 0.1 * MEL(other, noise)
    assert SPECTRUM(flipped, noise) > 0.5 * SPECTRUM(other, noise)


def test_gradients_on_silence_are_finite():
    for loss in (MEL, SPECTRUM):
        silence = torch.zeros(1, 1000, requires_grad=True)
        loss(silence, tone(300)[:, :1000]).backward()
        assert torch.isfinite(silence.grad).all()


def test_mel_filters_cover_the_band_and_peak_at_one():
    filters = mel_filters(20, 2048, 16000)
    assert filters.shape == (1025, 20)
    assert (filters.max(0).values > 0.85).all()
    assert (filters.sum(1)[20:-60] > 0.1).all()
    assert (filters.argmax(0).diff() > 0).all()


def test_scales_and_bands_must_agree():
    with pytest.raises(ValueError, match="names 1 scales, windows 2"):
        MultiScaleMelLoss(windows=[64, 128], num_mels=[8])


def test_hinge_losses_by_hand():
    real, generated = [torch.tensor([2.0, 0.5])], [torch.tensor([-2.0, 0.5])]
    assert discriminator_hinge_loss(real, generated) == pytest.approx(0.25 + 0.75)
    assert generator_hinge_loss(generated) == pytest.approx((3.0 + 0.5) / 2)


def test_feature_matching_is_relative_to_the_size_of_the_real_features():
    real, generated = [[torch.full((2, 3), 4.0)]], [[torch.full((2, 3), 5.0)]]
    assert feature_matching_loss(real, generated) == pytest.approx(0.25)
    larger = [[100 * layer for layer in layers] for layers in (real[0], generated[0])]
    assert feature_matching_loss([larger[0]], [larger[1]]) == pytest.approx(0.25)
