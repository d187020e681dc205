"""The residual vector quantiser: codes, starts, updates, dropped levels."""

import pytest
import torch

from modules.codec.soundstream.quantizer import ResidualVectorQuantizer, k_means, nearest


def quantizer(**changes) -> ResidualVectorQuantizer:
    torch.manual_seed(0)
    arguments = {"dim": 4, "num_quantizers": 3, "codebook_size": 8, "init_frames": 64, "dead_code_threshold": 0.1}
    return ResidualVectorQuantizer(**arguments | changes)


def speechlike(batch: int = 4, frames: int = 32) -> torch.Tensor:
    """Correlated vectors: 5 places with noise around them."""
    generator = torch.Generator().manual_seed(1)
    places = torch.randn(5, 4, generator=generator) * 3
    return places[torch.randint(5, (batch, frames), generator=generator)] + 0.3 * torch.randn(
        batch, frames, 4, generator=generator
    )


def test_nearest_is_the_entry_at_the_smallest_euclidean_distance():
    vectors, codebook = torch.randn(2, 7, 5), torch.randn(9, 5)
    assert torch.equal(nearest(vectors, codebook), torch.cdist(vectors, codebook.expand(2, 9, 5)).argmin(-1))


def test_codes_lie_in_range_and_have_one_row_per_level():
    codes = quantizer().encode(10 * torch.randn(2, 11, 4))
    assert codes.shape == (2, 3, 11)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < 8


def test_k_means_finds_separated_clusters():
    torch.manual_seed(0)
    places = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = places.repeat_interleave(50, 0) + 0.01 * torch.randn(150, 2)
    centres, counts = k_means(vectors, 6)
    assert torch.cdist(places, centres).min(1).values.max() < 0.1
    assert counts.sum() == 150


def test_first_batches_pass_unquantised_until_there_are_enough_vectors_for_k_means():
    quantizer_ = quantizer(init_frames=200).train()
    latent = speechlike()  # 128 vectors
    first = quantizer_(latent)
    assert torch.equal(first.latent, latent)
    assert not quantizer_.started
    second = quantizer_(latent)
    assert quantizer_.started
    assert not torch.equal(second.latent, latent)


def test_residual_shrinks_with_every_level_after_the_start():
    quantizer_ = quantizer()
    latent = speechlike()
    quantizer_.start(latent.flatten(0, 1))
    codes = quantizer_.encode(latent)
    errors = [(quantizer_.decode(codes[:, :n]) - latent).square().mean().item() for n in (1, 2, 3)]
    assert latent.square().mean() > errors[0] > errors[1] > errors[2]


def test_leading_levels_of_an_encoding_do_not_depend_on_the_number_of_levels():
    quantizer_ = quantizer()
    latent = speechlike()
    assert torch.equal(quantizer_.encode(latent)[:, :2], quantizer_.encode(latent, 2))


def test_moving_averages_follow_the_vectors():
    quantizer_ = quantizer(decay=0.5, dead_code_threshold=0.0).train()
    latent = speechlike()
    quantizer_.start(latent.flatten(0, 1))
    shifted = latent + 1
    before = (quantizer_.decode(quantizer_.encode(shifted)) - shifted).square().mean()
    for _ in range(20):
        quantizer_(shifted)
    after = (quantizer_.decode(quantizer_.encode(shifted)) - shifted).square().mean()
    assert after < 0.5 * before


def test_dead_entries_restart_at_input_vectors():
    quantizer_ = quantizer(num_quantizers=1, decay=0.5).train()
    latent = speechlike()
    quantizer_.start(latent.flatten(0, 1))
    quantizer_.codebooks[0, 3] = 1000.0  # nobody chooses it
    quantizer_.sums[0, 3] = quantizer_.codebooks[0, 3] * quantizer_.counts[0, 3]
    for _ in range(8):
        quantizer_(latent)
    distance = torch.cdist(quantizer_.codebooks[0, 3:4], latent.flatten(0, 1)).min()
    assert distance < 1.0


def test_evaluation_leaves_the_codebooks_alone_and_uses_all_levels():
    quantizer_ = quantizer().eval()
    before = quantizer_.codebooks.clone()
    latent = speechlike()
    quantized = quantizer_(latent)
    assert torch.equal(quantizer_.codebooks, before)
    assert quantized.num_levels.tolist() == [3] * 4
    torch.testing.assert_close(quantized.latent, quantizer_.decode(quantizer_.encode(latent)))


def test_dropout_draws_every_number_of_levels_from_one_up():
    quantizer_ = quantizer(dropout=1.0).train()
    quantizer_.start(speechlike().flatten(0, 1))
    drawn = quantizer_(speechlike(batch=200, frames=2)).num_levels
    assert sorted(drawn.unique().tolist()) == [1, 2, 3]


def test_a_row_with_dropped_levels_is_the_sum_of_the_leading_ones():
    quantizer_ = quantizer(dropout=1.0, decay=1.0, dead_code_threshold=0.0).train()
    latent = speechlike(batch=16)
    quantizer_.start(latent.flatten(0, 1))
    codebooks = quantizer_.codebooks.clone()
    quantized = quantizer_(latent)
    torch.testing.assert_close(quantizer_.codebooks, codebooks)
    for row, levels in enumerate(quantized.num_levels.tolist()):
        expected = quantizer_.decode(quantized.codes[row : row + 1, :levels])[0]
        torch.testing.assert_close(quantized.latent[row], expected)


def test_gradient_passes_straight_through():
    quantizer_ = quantizer().eval()
    latent = speechlike().requires_grad_()
    quantizer_(latent).latent.sum().backward()
    assert torch.equal(latent.grad, torch.ones_like(latent))


def test_commitment_pulls_the_latent_towards_its_codes():
    quantizer_ = quantizer(num_quantizers=1).eval()
    latent = speechlike().requires_grad_()
    quantized = quantizer_(latent)
    quantized.commitment.backward()
    towards = (quantized.latent - latent).detach()
    assert torch.nn.functional.cosine_similarity(-latent.grad, towards, dim=-1).min() > 0.999


@pytest.mark.parametrize("levels", [1, 3])
def test_decode_takes_fewer_levels(levels):
    quantizer_ = quantizer()
    assert quantizer_.decode(torch.zeros(2, levels, 5, dtype=torch.long)).shape == (2, 5, 4)
