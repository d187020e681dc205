"""Discriminators: verdicts and gradients."""

import pytest
import torch

from modules.codec.soundstream import (
    DiscriminatorSet,
    SpectralPatchDiscriminator,
    STFTDiscriminator,
    WaveformDiscriminator,
)


@pytest.mark.parametrize(
    ("discriminator", "parts"),
    [
        (lambda: WaveformDiscriminator(3, 4, 16), 3),
        (lambda: STFTDiscriminator(128, 32, 16), 1),
        (lambda: SpectralPatchDiscriminator((64, 128), 4), 2),
        (lambda: DiscriminatorSet([WaveformDiscriminator(2, 4, 16), STFTDiscriminator(128, 32, 16)]), 3),
    ],
)
def test_every_part_gives_logits_and_features_per_row(discriminator, parts):
    torch.manual_seed(0)
    network = discriminator()
    audio = torch.randn(2, 4001, requires_grad=True)
    verdicts = network(audio)
    assert len(verdicts) == parts
    for verdict in verdicts:
        assert verdict.logits.shape[0] == 2
        assert len(verdict.features) >= 4
    sum(verdict.logits.sum() for verdict in verdicts).backward()
    assert audio.grad.abs().sum(1).min() > 0
    assert all(p.grad is not None for p in network.parameters())
