import torch

from modules.soundstorm import SoundStormNetwork


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_default_is_the_papers_model_of_354_million_parameters():
    with torch.device("meta"):
        network = SoundStormNetwork()
    assert len(network.trunk.blocks) == 12
    assert network.trunk.head_dim == 64
    assert round(count(network) / 1e6, 1) == 353.9
    assert round(count(network.trunk) / 1e6, 1) == 327.7
    assert round((network.head_weight.numel() + network.head_bias.numel()) / 1e6, 1) == 12.6


def test_a_frame_is_the_sum_of_its_tokens_embeddings(network):
    semantic = torch.randint(16, (2, 5))
    codes = torch.randint(33, (2, 4, 5))
    expected = network.semantic_embedding(semantic) + sum(network.embed_codes(codes[:, q], q) for q in range(4))
    torch.testing.assert_close(network.embed(semantic, codes), expected)


def test_levels_have_tables_and_masks_of_their_own(network):
    mask = torch.tensor(network.mask_id)
    vectors = torch.stack([network.embed_codes(mask, q) for q in range(4)])
    assert len(vectors.unique(dim=0)) == 4


def test_logits_come_from_the_head_of_each_examples_level_at_the_rows_asked_for(network):
    semantic, codes = torch.randint(16, (3, 6)), torch.randint(33, (3, 4, 6))
    level = torch.tensor([2, 0, 2])
    rows = torch.rand(3, 6) < 0.5
    hidden = network.contextualize(network.embed(semantic, codes))
    expected = torch.cat([network.head(hidden[b][rows[b]], int(level[b])) for b in range(3)])
    torch.testing.assert_close(network(semantic, codes, level, rows), expected)


def test_padding_never_changes_a_logit(network):
    semantic, codes = torch.randint(16, (1, 7)), torch.randint(33, (1, 4, 7))
    rows = torch.ones(1, 7, dtype=torch.bool)
    alone = network(semantic, codes, torch.tensor([1]), rows)
    wider = torch.cat((semantic, torch.randint(16, (1, 5))), 1), torch.cat((codes, torch.randint(33, (1, 4, 5))), 2)
    valid = torch.arange(12)[None] < 7
    padded = network(*wider, torch.tensor([1]), valid, valid)
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


def test_what_a_token_may_be_is_embedded_as_the_mean_of_what_it_may_be(network):
    table = network.semantic_embedding.weight
    probabilities = torch.zeros(1, 4, 16)
    probabilities[0, 0, 3] = 1.0
    probabilities[0, 1, [2, 5]] = torch.tensor([0.25, 0.75])
    probabilities[0, 2, 7] = 0.6  # the rest is unknown; of the last frame all is
    expected = [table[3], 0.25 * table[2] + 0.75 * table[5], 0.6 * table[7] + 0.4 * table[16], table[16]]
    torch.testing.assert_close(network.embed_semantic(probabilities)[0], torch.stack(expected))


def test_sure_probabilities_are_the_tokens(network):
    semantic, codes = torch.randint(16, (2, 6)), torch.randint(33, (2, 4, 6))
    sure = torch.nn.functional.one_hot(semantic, 16).float()
    torch.testing.assert_close(network.embed(sure, codes), network.embed(semantic, codes))
    level, rows = torch.tensor([2, 0]), torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(network(sure, codes, level, rows), network(semantic, codes, level, rows))


def test_hidden_words_are_the_same_whether_sure_or_not(network):
    semantic = torch.randint(16, (3, 6))
    sure = torch.nn.functional.one_hot(semantic, 16).float()
    nothing = network.semantic_embedding(torch.tensor(16))
    for given in (semantic, sure):
        hidden = network.embed_semantic(network.hide_semantic(given, torch.tensor([False, True, False])))
        torch.testing.assert_close(hidden[1], nothing.expand(6, -1))
        torch.testing.assert_close(hidden[[0, 2]], network.embed_semantic(semantic)[[0, 2]])


def test_under_autocast_sure_probabilities_are_still_the_tokens(network):
    semantic = torch.randint(16, (2, 6))
    with torch.autocast("cpu", torch.bfloat16):
        found = network.embed_semantic(torch.nn.functional.one_hot(semantic, 16).float())
    assert torch.equal(found, network.embed_semantic(semantic))
