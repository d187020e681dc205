import pytest
import torch

from modules.layers.continuation import Continuation, pack, unpack
from modules.layers.transformer import KeyValueCache, Transformer, rotary_at

WIDTH = 16


def transformer(**changes):
    return Transformer(**({"dim": WIDTH, "num_layers": 2, "num_heads": 2, "ffn_dim": 32} | changes)).eval()


def angles(length, trunk):
    return rotary_at(torch.arange(length)[None], trunk.head_dim)


def test_a_causal_slot_sees_nothing_later():
    trunk, x = transformer(), torch.randn(2, 9, WIDTH)
    other = x.clone()
    other[:, 5:] = torch.randn(2, 4, WIDTH)
    before, after = trunk(x, angles(9, trunk)), trunk(other, angles(9, trunk))
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-2)


def test_a_bidirectional_slot_sees_all_valid_ones():
    trunk, x = transformer(causal=False), torch.randn(1, 6, WIDTH)
    valid = torch.tensor([[True] * 4 + [False] * 2])
    base = trunk(x, angles(6, trunk), valid)[:, :4]
    for slot, seen in ((3, True), (4, False), (5, False)):
        other = x.clone()
        other[:, slot] = torch.randn(WIDTH)
        changed = not torch.allclose(trunk(other, angles(6, trunk), valid)[:, 0], base[:, 0], atol=1e-5)
        assert changed == seen


@pytest.mark.parametrize("parts", [(9,), (1,) * 9, (4, 1, 3, 1)])
def test_the_cache_changes_nothing(parts):
    trunk, x = transformer(), torch.randn(3, 9, WIDTH)
    cos, sin = angles(9, trunk)
    whole = trunk(x, (cos, sin))
    cache, found, first = KeyValueCache(9), [], 0
    for part in parts:
        span = slice(first, first + part)
        found.append(trunk(x[:, span], (cos[:, :, span], sin[:, :, span]), cache=cache))
        first += part
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-5, rtol=1e-4)


def test_a_full_cache_says_so():
    trunk = transformer()
    with pytest.raises(ValueError, match="4 slots do not fit into a key-value cache of 3"):
        trunk(torch.randn(1, 4, WIDTH), angles(4, trunk), cache=KeyValueCache(3))


def test_each_row_has_the_norms_of_its_level():
    trunk = transformer(causal=False, num_levels=3)
    for norm in (trunk.norm, trunk.blocks[0].ffn_norm):
        torch.nn.init.normal_(norm.by_level.weight)
    x = torch.randn(1, 5, WIDTH)
    both = trunk(x.repeat(2, 1, 1), angles(5, trunk), level=torch.tensor([0, 2]))
    assert not torch.allclose(both[0], both[1], atol=1e-2)
    torch.testing.assert_close(both[1:], trunk(x, angles(5, trunk), level=torch.tensor([2])))


def test_positions_turn_by_distance_alone():
    trunk, x = transformer(), torch.randn(1, 7, WIDTH)
    shifted = rotary_at(torch.arange(7)[None] + 20.5, trunk.head_dim)
    torch.testing.assert_close(trunk(x, shifted), trunk(x, angles(7, trunk)), atol=1e-5, rtol=1e-4)


def test_packing_keeps_order_and_is_undone():
    x = torch.arange(5.0)[None, :, None].repeat(2, 1, 1)
    valid = torch.tensor([[True, False, True, True, False], [False, False, True, False, True]])
    packed, positions, order = pack(x, torch.arange(5).repeat(2, 1), valid)
    assert packed[0, :3, 0].tolist() == positions[0, :3].tolist() == [0, 2, 3]
    assert torch.equal(unpack(packed, order), x)
    assert pack(x, torch.arange(5).repeat(2, 1), valid, at_end=True)[1][1, -2:].tolist() == [2, 4]


@pytest.mark.parametrize("cached", [True, False, "static"])
def test_a_continued_row_is_the_row_alone_and_in_one_piece(cached):
    """Rows with beginnings of 6, 2 and 4 slots, holes in them, are continued by 5 slots each."""
    trunk, counts = transformer(), (6, 2, 4)
    x, new = torch.randn(3, 8, WIDTH), torch.randn(3, 5, WIDTH)
    valid = torch.zeros(3, 8, dtype=torch.bool)
    for b, count in enumerate(counts):
        valid[b, torch.randperm(8)[:count]] = True
    positions = torch.cumsum(valid, 1) - 1
    following = torch.tensor(counts)[:, None] + torch.arange(5)
    run = Continuation(trunk, x, positions, valid, following, cached)
    outputs = [run.hidden] + [run.append(new[:, i]) for i in range(5)]
    for b, count in enumerate(counts):
        alone = torch.cat((x[b, valid[b]], new[b]))[None]
        expected = trunk(alone, angles(count + 5, trunk))[0, count - 1 :]
        torch.testing.assert_close(torch.stack(outputs)[:, b], expected, atol=1e-5, rtol=1e-4)
