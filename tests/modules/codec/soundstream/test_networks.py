"""Encoders and decoders: shapes, causality, gradients."""

import pytest
import torch

from modules.codec.soundstream import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    SpectralDecoder,
    SpectralEncoder,
)
from modules.codec.soundstream.spectral import overlap_add, stft_frames

HOP = 16


def light(**changes):
    arguments = {"latent_dim": 6, "dim": 8, "num_blocks": 1, "hop_length": HOP, "n_fft": 32, "stft_hop": 8} | changes
    return SpectralEncoder(**arguments), SpectralDecoder(**arguments)


def paper():
    return ConvolutionalEncoder(6, 2, (2, 8)), ConvolutionalDecoder(6, 2, (8, 2))


@pytest.mark.parametrize("networks", [light, paper])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_one_frame_per_hop_and_back(networks, frames):
    encoder, decoder = networks()
    latent = encoder(torch.randn(2, frames * HOP))
    assert latent.shape == (2, frames, 6)
    assert decoder(latent).shape == (2, frames * HOP)
    assert encoder.hop_length == decoder.hop_length == HOP


@pytest.mark.parametrize("hop", [8, 16])
def test_overlap_add_inverts_the_spectrum(hop):
    audio, window = torch.randn(3, 20 * hop, dtype=torch.double), torch.hann_window(32, dtype=torch.double)
    torch.testing.assert_close(overlap_add(stft_frames(audio, window, hop), window, hop), audio, atol=1e-6, rtol=1e-6)


def test_convolutional_networks_are_causal():
    encoder, decoder = paper()
    audio = torch.randn(1, 20 * HOP)
    changed = audio.clone()
    changed[:, 10 * HOP :] = torch.randn(1, 10 * HOP)
    latent, latent_changed = encoder(audio), encoder(changed)
    torch.testing.assert_close(latent[:, :10], latent_changed[:, :10])
    assert not torch.allclose(latent[:, 10], latent_changed[:, 10])
    torch.testing.assert_close(decoder(latent)[:, : 10 * HOP], decoder(latent_changed)[:, : 10 * HOP])


def test_every_sample_reaches_the_latent():
    for encoder, _ in (light(), paper()):
        audio = torch.randn(1, 5 * HOP, requires_grad=True)
        encoder(audio).square().sum().backward()
        assert (audio.grad[0, 2 * HOP : 4 * HOP] != 0).all()


def test_silence_gives_finite_latents_and_gradients():
    encoder, decoder = light()
    decoder(encoder(torch.zeros(1, 4 * HOP))).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in [*encoder.parameters(), *decoder.parameters()])


def test_a_spectrum_hop_that_does_not_divide_the_hop_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        light(stft_hop=7)
