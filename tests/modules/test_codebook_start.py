import pytest
import torch

from modules.audiolm import CoarseNetwork, FineNetwork
from modules.codebook_start import spread_codebooks
from modules.valle import AutoregressiveNetwork, NonAutoregressiveNetwork

SIZES = {"dim": 32, "num_layers": 1, "num_heads": 2, "ffn_dim": 64, "num_quantizers": 4}
TOKENS = {"codebook_size": 16, "semantic_vocab_size": 8}
KINDS = [CoarseNetwork, FineNetwork, AutoregressiveNetwork, NonAutoregressiveNetwork]


def cosines(vectors):
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return vectors @ vectors.mT


@pytest.mark.parametrize("width", [8, 32])
def test_what_sounds_alike_begins_alike(width):
    codes = torch.randn(4, 16, width) * torch.tensor([1.0, 0.5, 0.2, 0.1])[:, None, None]
    spread, _ = spread_codebooks(codes, None, 32)
    torch.testing.assert_close(cosines(spread), cosines(codes - codes.mean(1, keepdim=True)), atol=1e-4, rtol=0)
    torch.testing.assert_close(spread.std(dim=(1, 2)), torch.ones(4))
    assert torch.equal(spread, spread_codebooks(codes, torch.randn(8, 5), 32)[0])


def test_wider_vectors_keep_what_distinguishes_them_most():
    codes = torch.randn(1, 16, 60)
    codes[..., 12:] *= 0.01
    spread, _ = spread_codebooks(codes, None, 32)
    torch.testing.assert_close(cosines(spread), cosines(codes - codes.mean(1, keepdim=True)), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_and_heads_start_from_the_codebooks_at_the_size_they_had(kind):
    levels = {"coarse_levels": 2} if kind in (CoarseNetwork, FineNetwork) else {}
    network = kind(**SIZES, **TOKENS, **levels)
    codes, semantic = torch.randn(4, 16, 6), torch.randn(8, 5)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.initialize_from_codebooks(codes, semantic)
    changed = {name: p for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    for name, parameter in changed.items():
        assert "trunk" not in name
        assert float(parameter.detach().std() / before[name].std()) == pytest.approx(1, rel=0.15)
    spread, spoken = spread_codebooks(codes, semantic, 32)
    tables = {
        CoarseNetwork: {"condition_embedding.weight": spoken, "code_embedding.weight": spread[:2].flatten(0, 1)},
        FineNetwork: {name: spread[i : i + 2].flatten(0, 1) for name, i in
                      (("condition_embedding.weight", 0), ("code_embedding.weight", 2))},
        AutoregressiveNetwork: {"semantic_embedding.weight": spoken, "code_embedding.weight": spread[0]},
        NonAutoregressiveNetwork: {
            "semantic_embedding.weight": spoken, "code_embedding.weight": spread.flatten(0, 1) * 32**-0.5,
        },
    }[kind]  # fmt: skip
    for name, table in tables.items():
        assert torch.equal(changed.pop(name)[: len(table)], table)
    assert all("head" in name for name in changed)
    assert len(changed) == (kind is not NonAutoregressiveNetwork)


def test_other_codebooks_are_refused():
    network = AutoregressiveNetwork(**SIZES, **TOKENS)
    with pytest.raises(ValueError, match=r"code vectors of \[3, 16\]"):
        network.initialize_from_codebooks(torch.randn(3, 16, 6))
    with pytest.raises(ValueError, match="vectors of 9 semantic tokens, the network has 8"):
        network.initialize_from_codebooks(torch.randn(4, 16, 6), torch.randn(9, 6))
