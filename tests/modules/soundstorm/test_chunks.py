import pytest
import torch

from modules.batches import TokenBatch
from modules.soundstorm import Chunking, DecodingSchedule, SoundStorm, SoundStormNetwork, decode_in_chunks
from modules.soundstorm.chunks import chunk_sizes


@pytest.mark.parametrize(("first", "later"), [(10, 7), (7, 7)])
def test_chunks_cover_everything_fit_and_are_about_as_long(first, later):
    for frames in range(1, 200):
        sizes = chunk_sizes(frames, first, later)
        assert sum(sizes) == frames
        assert sizes[0] <= first
        assert all(0 < size <= later for size in sizes[1:])
        assert max(sizes) - min(sizes) <= first - later + 2


@pytest.mark.parametrize("overlap", [0, 50])
def test_an_overlap_that_leaves_no_room_is_refused(overlap):
    with pytest.raises(ValueError, match=f"overlap_frames={overlap} .* chunk_frames=100"):
        Chunking(100, overlap)


def test_the_module_decodes_no_stretch_beyond_a_chunk_and_says_so(monkeypatch):
    network = SoundStormNetwork(16, 1, 2, 32, 5, 2, 16, 10)
    widths = []
    contextualize = network.contextualize
    monkeypatch.setattr(network, "contextualize", lambda x, valid: widths.append(x.shape[1]) or contextualize(x, valid))
    lengths = torch.tensor([130, 50])
    batch = TokenBatch(
        ["a", "b"], torch.randint(10, (2, 130)), torch.randint(16, (2, 2, 130)), lengths, torch.tensor([20, 20]),
        torch.arange(2), ["", ""], ["", ""],
    )  # fmt: skip
    module = SoundStorm(network, chunking=Chunking(60, 20))
    made = module.generate(batch)
    assert made.codes.shape == (2, 2, 130)
    assert torch.equal(made.codes[:, :, :20], batch.codes[:, :, :20])
    assert max(widths) <= 60
    assert module.sampling_settings["chunk_frames"] == 60
    assert "chunk_frames" not in SoundStorm(network).sampling_settings


def test_of_levels_left_out_a_later_chunk_knows_what_was_given_and_no_more(monkeypatch):
    network = SoundStormNetwork(16, 1, 2, 32, 5, 3, 16, 10)
    seen = []
    embed = network.embed
    monkeypatch.setattr(network, "embed", lambda semantic, codes: seen.append(codes.clone()) or embed(semantic, codes))
    batch = TokenBatch(
        ["a"], torch.randint(10, (1, 50)), torch.randint(16, (1, 3, 50)), torch.tensor([50]), torch.tensor([12]),
        torch.arange(1), [""], [""],
    )  # fmt: skip
    module = SoundStorm(network, schedule=DecodingSchedule(iterations=(4, 1, 0)), chunking=Chunking(30, 14))
    made = module.generate(batch).codes
    assert made.shape == (1, 2, 50)
    first, second = seen[0], seen[1]
    assert torch.equal(first[:, :, :12], batch.codes[:, :, :12])
    end = 12 + chunk_sizes(38, 30 - 12, 30 - 14)[0]
    assert torch.equal(second[:, :2, :14], made[:, :, end - 14 : end]), "what was made goes on at the levels made"
    known = batch.codes[:, 2, end - 14 : 12]
    assert torch.equal(second[:, 2, : known.shape[1]], known)
    assert (second[:, 2, known.shape[1] : 14] == network.mask_id).all()
    assert module.sampling_settings["iterations"] == (4, 1, 0)


def test_chunks_of_probabilities_are_those_of_their_tokens():
    network = SoundStormNetwork(16, 1, 2, 32, 5, 2, 16, 10)
    semantic, prompt, lengths = torch.randint(10, (2, 90)), torch.randint(16, (2, 2, 12)), torch.tensor([90, 33])
    settings = (prompt, lengths, DecodingSchedule((4, 1)), torch.arange(2), torch.tensor([12, 3]), Chunking(40, 14))
    sure = torch.nn.functional.one_hot(semantic, 10).float()
    assert torch.equal(decode_in_chunks(network, sure, *settings), decode_in_chunks(network, semantic, *settings))
