from pathlib import Path

import pytest
import torch
import yaml

from modules.valle import AutoregressiveNetwork, NonAutoregressiveNetwork

SIZES = {"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 64, "dropout": 0.0, "num_quantizers": 4}
TOKENS = {"codebook_size": 16, "semantic_vocab_size": 8}


@pytest.mark.parametrize(("size", "offset"), [(1, 0), (2, 0), (2, 1), (4, 0), (4, 3)])
def test_a_code_is_predicted_from_the_groups_before_its_own(size, offset):
    network = AutoregressiveNetwork(**SIZES, **TOKENS, group_size=size).eval()
    semantic, codes = torch.randint(8, (1, 11)), torch.randint(16, (1, 11))
    lengths, shift = torch.tensor([11]), torch.tensor([offset])
    base = network(semantic, codes, lengths, shift)
    assert base.shape == (11, 16)
    for frame in (0, 4, 10):
        other = codes.clone()
        other[0, frame] = (other[0, frame] + 1) % 16
        changed = (network(semantic, other, lengths, shift) - base).abs().amax(-1) > 1e-6
        first = ((frame + offset) // size + 1) * size - offset
        assert changed.nonzero().flatten().tolist() == list(range(first, 11))
    semantic[0, 10] = (semantic[0, 10] + 1) % 8
    assert ((network(semantic, codes, lengths, shift) - base).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("size", [1, 4])
def test_rows_of_the_first_level_do_not_influence_one_another(size):
    network = AutoregressiveNetwork(**SIZES, **TOKENS, group_size=size).eval()
    semantic, codes = torch.randint(8, (3, 9)), torch.randint(16, (3, 9))
    lengths, offset = torch.tensor([9, 3, 6]), torch.tensor([0, size - 1, size // 2])
    together = network(semantic, codes, lengths, offset).split(lengths.tolist())
    for b, n in enumerate(lengths.tolist()):
        alone = network(semantic[b : b + 1, :n], codes[b : b + 1, :n], lengths[b : b + 1], offset[b : b + 1])
        torch.testing.assert_close(together[b], alone, atol=1e-5, rtol=1e-4)


def nonautoregressive():
    return NonAutoregressiveNetwork(**SIZES, **TOKENS).eval()


def test_target_frames_show_the_levels_above_and_the_prompt_shows_all():
    network = nonautoregressive()
    semantic, codes = torch.randint(8, (1, 7)), torch.randint(16, (1, 4, 7))
    rows = torch.tensor([6]), torch.tensor([2]), torch.tensor([2])  # 6 frames, 2 of prompt, level 2
    base = network(semantic, codes, *rows)[0]
    assert base.shape == (4, 16)
    for level, frame in torch.cartesian_prod(torch.arange(4), torch.arange(7)).tolist():
        other = codes.clone()
        other[0, level, frame] = (other[0, level, frame] + 1) % 16
        changed = not torch.allclose(network(semantic, other, *rows)[0], base, atol=1e-6)
        assert changed == (frame < 2 or (frame < 6 and level < 2)), (level, frame)


def test_each_row_is_predicted_at_its_level_with_that_levels_table():
    network = nonautoregressive()
    semantic, codes = torch.randint(8, (3, 5)), torch.randint(16, (3, 4, 5))
    lengths, prompt, level = torch.tensor([5, 4, 3]), torch.tensor([2, 0, 1]), torch.tensor([3, 1, 3])
    logits, true, levels = network(semantic, codes, lengths, prompt, level)
    assert levels.tolist() == [1] * 4 + [3] * 5
    assert torch.equal(true, torch.cat((codes[1, 1, :4], codes[0, 3, 2:], codes[2, 3, 1:3])))
    hidden = network.contextualize(semantic, codes, lengths, prompt, level)[0, 2]
    expected = network.code_embedding.weight[3 * 16 : 4 * 16] @ hidden + network.head_bias[3]
    torch.testing.assert_close(logits[4], expected, atol=1e-5, rtol=1e-4)


def test_rows_of_the_other_levels_do_not_influence_one_another():
    network = nonautoregressive()
    semantic, codes = torch.randint(8, (2, 6)), torch.randint(16, (2, 4, 6))
    rows = [torch.tensor(values) for values in ([6, 3], [1, 0], [2, 2])]
    together = network(semantic, codes, *rows)[0].split([5, 3])
    for b, n in enumerate((6, 3)):
        alone = network(semantic[b : b + 1, :n], codes[b : b + 1, :, :n], *(x[b : b + 1] for x in rows))[0]
        torch.testing.assert_close(together[b], alone, atol=1e-5, rtol=1e-4)


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="group_size=0"):
        AutoregressiveNetwork(**SIZES, **TOKENS, group_size=0)
    with pytest.raises(ValueError, match="no level beyond the first"):
        NonAutoregressiveNetwork(**(SIZES | {"num_quantizers": 1}), **TOKENS)


def test_presets_have_the_size_that_they_say():
    """The small stages have together the parameters of the small SoundStorm; the paper's are the default ones."""
    folder, stages = "valle", {"ar": AutoregressiveNetwork, "nar": NonAutoregressiveNetwork}
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
