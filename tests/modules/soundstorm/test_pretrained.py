import pytest
import torch

from modules.soundstorm import SoundStormNetwork
from modules.soundstorm.pretrained import TrainedNetwork, averaged_network, load_network, save_network

TOKENS = {"codec": {"name": "codec"}, "semantic": {"name": "student"}}


def save(folder, seed, tokens=TOKENS, **changes):
    torch.manual_seed(seed)
    sizes = {"dim": 32, "num_layers": 1, "num_heads": 2, "ffn_dim": 64, "num_quantizers": 2, "codebook_size": 16}
    network = SoundStormNetwork(**sizes | {"semantic_vocab_size": 8} | changes)
    save_network(TrainedNetwork(network, tokens), folder, torch.float32)
    return str(folder)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_an_average_lies_between_two_networks(tmp_path, share):
    one, other = save(tmp_path / "one", 0), save(tmp_path / "other", 1, {**TOKENS, "semantic": {"name": "teacher"}})
    average = averaged_network(one, other, share)
    before, after = (load_network(folder).network.state_dict() for folder in (one, other))
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, (1 - share) * before[name] + share * after[name])
    assert average.trained_on == TOKENS
    assert average.training


def test_an_average_is_trained_on_with_another_dropout(tmp_path):
    one, other = save(tmp_path / "one", 0), save(tmp_path / "other", 1, dropout=0.5)
    assert averaged_network(one, other).dropout == load_network(one).network.dropout
    assert averaged_network(one, other, dropout=0.25).dropout == 0.25


def test_what_cannot_be_averaged_is_refused(tmp_path):
    one = save(tmp_path / "one", 0)
    with pytest.raises(ValueError, match="differ in ffn_dim"):
        averaged_network(one, save(tmp_path / "wide", 1, ffn_dim=96))
    with pytest.raises(ValueError, match="differ in the codec"):
        averaged_network(one, save(tmp_path / "codec", 1, {**TOKENS, "codec": {"name": "other"}}))
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"share={share} .* must lie in \[0, 1\]"):
            averaged_network(one, one, share)
    with pytest.raises(FileNotFoundError, match="is no trained SoundStorm"):
        averaged_network(one, str(tmp_path / "none"))
