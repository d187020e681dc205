import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from modules.optimizers import MuonWithAdamW, orthogonalized, parameter_groups
from modules.soundstorm import SoundStormNetwork


def make_network():
    torch.manual_seed(0)
    return nn.ModuleDict({"table": nn.Embedding(6, 4), "trunk": nn.Linear(4, 5), "head": nn.Linear(5, 3)})


def gradients(network, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def train(network, optimizer, seeds):
    for seed in seeds:
        gradients(network, seed)
        optimizer.step()


def test_groups_of_soundstorm_hold_each_parameter_once_and_in_its_place():
    network = SoundStormNetwork(16, 1, 2, 32, num_quantizers=2, codebook_size=4, semantic_vocab_size=5)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    hidden, weights, bare = parameter_groups(network, network.trunk)
    assert sum(len(group["params"]) for group in (hidden, weights, bare)) == len(names)
    assert all(names[id(p)].startswith("trunk") and p.ndim == 2 for p in hidden["params"])
    assert {names[id(p)] for p in weights["params"]} == {"head_weight", "trunk.blocks.0.convolution.depthwise.weight"}
    assert {"semantic_embedding.weight", "code_embedding.weight", "head_bias"} < {names[id(p)] for p in bare["params"]}
    assert bare["weight_decay"] == 0
    assert "weight_decay" not in weights


@pytest.mark.parametrize("fast", [True, False])
def test_steps_are_those_of_muon_and_adamw(monkeypatch, fast):
    monkeypatch.setattr("modules.optimizers.multiplies_bfloat16", lambda device: fast)
    network, other = make_network(), make_network()
    ours = MuonWithAdamW(parameter_groups(network, network["trunk"]), lr=0.1, adamw_lr=0.05)
    muon = torch.optim.Muon([other["trunk"].weight], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    bare = [other["table"].weight, other["trunk"].bias, other["head"].bias]
    groups = [{"params": [other["head"].weight]}, {"params": bare, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.98), weight_decay=0.01)
    for seed in range(3):
        for each in (network, other):
            gradients(each, seed)
        for optimizer in (ours, muon, adamw):
            optimizer.step()
    for name, mine in network.named_parameters():
        # torch's Muon orthogonalises in bfloat16, with 8 bits; three steps of at most 0.1 * 0.2 * sqrt(5) each.
        tolerance = 3e-3 if name == "trunk.weight" and not fast else 0
        torch.testing.assert_close(mine, other.get_parameter(name), rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_orthogonalized_matrices_have_singular_values_near_one_and_the_same_directions(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    group = torch.optim.Muon([nn.Parameter(matrix)]).param_groups[0]
    found = orthogonalized(matrix, group["ns_coefficients"], group["ns_steps"], group["eps"])
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() < values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    along = torch.linalg.diagonal(left.T @ found @ right.T)
    torch.testing.assert_close(along.sort().values, values.sort().values)


def test_a_saved_state_goes_on_exactly():
    network = make_network()
    optimizer = MuonWithAdamW(parameter_groups(network, network["trunk"]))
    train(network, optimizer, range(3))
    other = copy.deepcopy(network)
    resumed = MuonWithAdamW(parameter_groups(other, other["trunk"]))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(network, optimizer, range(3, 6))
    train(other, resumed, range(3, 6))
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_schedule_reaches_both(loaded):
    network = make_network()
    optimizer = MuonWithAdamW(parameter_groups(network, network["trunk"]))
    if loaded:
        optimizer.load_state_dict(optimizer.state_dict())
    LambdaLR(optimizer, lambda step: 0.0)
    before = copy.deepcopy(network.state_dict())
    train(network, optimizer, range(2))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_groups_that_are_not_marked_are_refused():
    network = make_network()
    with pytest.raises(ValueError, match="parameter_groups"):
        MuonWithAdamW(network.parameters())
