import pytest
import torch

from modules.soundstorm import SoundStormNetwork


def make_network(dim=16):
    return SoundStormNetwork(dim, 1, 2, 32, num_quantizers=3, codebook_size=20, semantic_vocab_size=30)


@pytest.mark.parametrize("width", [5, 16, 40])
def test_codes_that_sound_alike_begin_alike(width):
    network = make_network()
    vectors, semantic = torch.randn(3, 20, width), torch.randn(30, width)
    vectors[:, 7] = vectors[:, 3] + 1e-3
    semantic[7] = semantic[3] + 1e-3
    network.initialize_from_codebooks(vectors, semantic)
    tables = [*network.code_embedding.weight.view(3, 21, 16), *network.head_weight, network.semantic_embedding.weight]
    for table in tables:
        distances = (table[:20] - table[3]).norm(dim=1)
        assert distances.argsort()[:2].tolist() == [3, 7]


def test_distances_are_kept_where_the_model_is_wide_enough():
    network = make_network()
    vectors = torch.randn(3, 20, 5)
    network.initialize_from_codebooks(vectors)
    embedded = network.code_embedding.weight.view(3, 21, 16)[1, :20]
    ratio = torch.pdist(embedded) / torch.pdist(vectors[1])
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))


def test_the_spread_is_that_of_the_random_start_and_masks_are_zero():
    network = make_network()
    network.initialize_from_codebooks(100 * torch.randn(3, 20, 5), 0.01 * torch.randn(30, 40))
    table = network.code_embedding.weight.view(3, 21, 16)
    assert table[:, network.mask_id].count_nonzero() == 0
    for level in range(3):
        assert table[level, :20].std().item() == pytest.approx(0.5, rel=1e-3)
        assert network.head_weight[level].std().item() == pytest.approx(0.25, rel=1e-3)
    assert network.semantic_embedding.weight[:30].std().item() == pytest.approx(1.0, rel=1e-3)


def test_the_untrained_network_prefers_the_codes_near_what_the_trunk_returns():
    network = make_network()
    network.initialize_from_codebooks(torch.randn(3, 20, 16))
    hidden = network.embed_codes(torch.arange(20), level=2)
    logits = network.head(hidden, level=2)
    assert (logits.argmax(-1) == torch.arange(20)).float().mean() > 0.8


def test_the_start_is_the_same_each_time():
    first, second = make_network(), make_network()
    vectors = torch.randn(3, 20, 5)
    for network in (first, second):
        network.initialize_from_codebooks(vectors)
    assert torch.equal(first.code_embedding.weight, second.code_embedding.weight)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 20\] levels and codes"):
        make_network().initialize_from_codebooks(torch.randn(2, 20, 5))
    with pytest.raises(ValueError, match="29 semantic tokens"):
        make_network().initialize_from_codebooks(torch.randn(3, 20, 5), torch.randn(29, 5))
