import pytest
import torch

from modules.soundstorm import SoundStormNetwork


@pytest.fixture(scope="session")
def network() -> SoundStormNetwork:
    """A tiny network with sharp, untrained predictions: Q = 4, C = 32, 16 semantic tokens."""
    torch.manual_seed(1)
    network = SoundStormNetwork(
        dim=32,
        num_layers=2,
        num_heads=2,
        ffn_dim=64,
        num_quantizers=4,
        codebook_size=32,
        semantic_vocab_size=16,
    )
    with torch.no_grad():
        network.head_weight.mul_(3)
    return network.eval()
