"""Residual vector quantisation and its fitting."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modules.codec.residual_vq import ResidualVQ, fit_residual_vq, k_means, nearest


def two_level_latents(count):
    """Sums of one of 4 distant points and one of 4 near offsets, with a little noise."""
    coarse = 10 * torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    fine = torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 1, 0], [-1, -1, 0]])
    first, second = torch.randint(4, (2, count))
    return coarse[first] + fine[second] + 0.01 * torch.randn(count, 3), first, second


def test_encoding_is_greedy_nearest_neighbour():
    quantizer = ResidualVQ(torch.randn(3, 16, 5))
    latents = torch.randn(2, 7, 5)
    codes = quantizer.encode(latents)
    assert codes.shape == (2, 3, 7)
    residual = latents
    for level, codebook in enumerate(quantizer.codebooks):
        expected = torch.cdist(residual, codebook.expand(2, -1, -1)).argmin(-1)
        assert torch.equal(codes[:, level], expected)
        residual = residual - codebook[expected]


def test_decoding_adds_up_the_levels_given():
    quantizer = ResidualVQ(torch.randn(3, 16, 5))
    codes = torch.randint(16, (2, 3, 7))
    a, b, c = (quantizer.codebooks[level][codes[:, level]] for level in range(3))
    torch.testing.assert_close(quantizer.decode(codes), a + b + c)
    torch.testing.assert_close(quantizer.decode(codes[:, :2]), a + b)


def test_fitting_finds_the_structure_level_by_level():
    latents, first, second = two_level_latents(2000)
    quantizer = fit_residual_vq(latents, num_quantizers=2, codebook_size=4, seed=3)
    codes = quantizer.encode(latents)
    for level, truth in enumerate((first, second)):
        pairs = torch.stack([codes[level], truth]).unique(dim=1)
        assert pairs.shape[1] == 4, f"level {level} does not name the clusters one to one"
    torch.testing.assert_close(quantizer.decode(codes), latents, atol=0.1, rtol=0)


def test_the_report_is_the_signal_to_noise_ratio_reached():
    latents = torch.randn(3000, 4) + 5
    reports = []
    quantizer = fit_residual_vq(latents, 3, 16, report=lambda level, snr: reports.append((level, snr)))
    assert [level for level, _ in reports] == [0, 1, 2]
    error = latents - quantizer.decode(quantizer.encode(latents))
    signal = (latents - latents.mean(0)).square().sum()
    assert reports[-1][1] == pytest.approx(10 * float(torch.log10(signal / error.square().sum())), abs=1e-3)
    assert reports[0][1] < reports[1][1] < reports[2][1]


def test_fitting_is_repeatable():
    latents = torch.randn(500, 4)
    first = fit_residual_vq(latents, 2, 8, seed=1).codebooks
    torch.manual_seed(99)
    assert torch.equal(fit_residual_vq(latents, 2, 8, seed=1).codebooks, first)
    assert not torch.equal(fit_residual_vq(latents, 2, 8, seed=2).codebooks, first)


def test_an_empty_cluster_restarts():
    # 90 % of all starting points coincide, as with digital silence: all but one of their clusters start empty.
    vectors = 50 + torch.cat([torch.zeros(900, 2), torch.randn(100, 2)])
    centres = k_means(vectors, 16, iterations=30, generator=torch.Generator().manual_seed(0))
    assert len(nearest(vectors, centres).unique()) > 10


def test_too_few_latents_name_both_numbers():
    with pytest.raises(ValueError, match="7 latents are too few to fit a codebook of 8"):
        fit_residual_vq(torch.randn(7, 3), 2, 8)


def test_saved_codebooks_come_back(tmp_path):
    quantizer = ResidualVQ(torch.randn(3, 16, 5))
    quantizer.save(tmp_path / "new" / "rvq.safetensors")
    assert torch.equal(ResidualVQ.load(tmp_path / "new" / "rvq.safetensors").codebooks, quantizer.codebooks)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["rvq.safetensors"]


def test_a_numpy_archive_is_read(tmp_path):
    codebooks = np.random.default_rng(0).normal(size=(3, 16, 5)).astype(np.float32)
    np.savez(tmp_path / "rvq.npz", codebooks=codebooks)
    np.testing.assert_array_equal(ResidualVQ.load(tmp_path / "rvq.npz").codebooks.numpy(), codebooks)


def test_a_numpy_archive_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "rvq.npz", codebooks=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        ResidualVQ.load(tmp_path / "rvq.npz")


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no codebooks at .*rvq.safetensors"):
        ResidualVQ.load(tmp_path / "rvq.safetensors")
    save_file({"centroids": torch.zeros(2, 3)}, tmp_path / "rvq.safetensors")
    with pytest.raises(ValueError, match=r"no array 'codebooks', only \['centroids'\]"):
        ResidualVQ.load(tmp_path / "rvq.safetensors")
    save_file({"codebooks": torch.zeros(2, 3)}, tmp_path / "rvq.safetensors")
    with pytest.raises(ValueError, match=r"\[Q, C, D\]"):
        ResidualVQ.load(tmp_path / "rvq.safetensors")
