from pathlib import Path

import pytest
import torch
import yaml

from modules.audiolm import CoarseNetwork, FineNetwork

SIZES = {"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 64, "dropout": 0.0, "num_quantizers": 5}
TOKENS = {"codebook_size": 16, "semantic_vocab_size": 8, "coarse_levels": 2}


def coarse():
    return CoarseNetwork(**SIZES, **TOKENS).eval()


@pytest.mark.parametrize("kind", [CoarseNetwork, FineNetwork])
def test_a_token_is_predicted_from_the_condition_and_what_comes_before_it(kind):
    network = kind(**SIZES, **TOKENS).eval()
    size = network.condition_size
    condition = torch.randint(size, (1, network.condition_levels, 6))
    codes, lengths = torch.randint(16, (1, network.levels, 6)), torch.tensor([6])
    base = network(condition, codes, lengths)
    assert base.shape == (network.levels, 6, 16)
    level, frame = network.levels - 2, 3
    other = codes.clone()
    other[0, level, frame] = (other[0, level, frame] + 1) % 16
    changed = ((network(condition, other, lengths) - base).abs().amax(-1) > 1e-5).T.flatten()
    assert changed.nonzero().flatten().tolist() == list(range(frame * network.levels + level + 1, 6 * network.levels))
    condition[0, 0, 5] = (condition[0, 0, 5] + 1) % size
    assert ((network(condition, codes, lengths) - base).abs().amax(-1) > 1e-5).all()


def test_rows_do_not_influence_one_another():
    network, lengths = coarse(), torch.tensor([6, 2, 4])
    condition, codes = torch.randint(8, (3, 1, 6)), torch.randint(16, (3, 2, 6))
    together = network(condition, codes, lengths).split(lengths.tolist(), dim=1)
    for b, n in enumerate(lengths.tolist()):
        alone = network(condition[b : b + 1, :, :n], codes[b : b + 1, :, :n], lengths[b : b + 1])
        torch.testing.assert_close(together[b], alone, atol=1e-5, rtol=1e-4)


def test_levels_have_tables_of_their_own():
    network = coarse()
    vectors = network.embed_codes(torch.full((1, 2, 1), 3))[0]
    assert torch.equal(vectors[0], network.code_embedding.weight[3])
    assert torch.equal(vectors[1], network.code_embedding.weight[16 + 3])
    assert torch.equal(vectors[1], network.embed_code(torch.tensor([3]), 1)[0])


@pytest.mark.parametrize("kind", [CoarseNetwork, FineNetwork])
@pytest.mark.parametrize("levels", [0, 5])
def test_both_stages_must_have_levels(kind, levels):
    with pytest.raises(ValueError, match="coarse_levels"):
        kind(**SIZES, **(TOKENS | {"coarse_levels": levels}))


def test_presets_have_the_size_that_they_say():
    """The small stages have together the parameters of the small SoundStorm; the paper's are the default ones."""
    folder, stages = "audiolm", {"coarse": CoarseNetwork, "fine": FineNetwork}
    count = {}
    for stage, kind in stages.items():
        for preset in ("small", "paper"):
            path = Path(__file__).parents[3] / f"configs/{folder}/networks/{stage}_{preset}.yaml"
            with torch.device("meta"):
                network = kind(**yaml.safe_load(path.read_text())["init_args"])
                count[stage, preset] = sum(p.numel() for p in network.parameters())
                default = sum(p.numel() for p in kind().parameters())
            assert f"{count[stage, preset] / 1e6:.1f} M" in path.read_text().splitlines()[0]
        assert count[stage, "paper"] == default
    assert round(sum(count[stage, "small"] for stage in stages) / 1e6) == 20
