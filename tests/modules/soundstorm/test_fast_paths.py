"""What makes decoding fast changes no code: other kernels, compiled trunks, captured graphs."""

import copy

import pytest
import torch

import modules.layers.matmul as kernels
from modules.soundstorm import DecodingSchedule, SoundStormNetwork, decode

GREEDY = DecodingSchedule(iterations=(1,) * 4)


def network():
    torch.manual_seed(0)
    return SoundStormNetwork(64, 2, 4, 128, 5, num_quantizers=4, codebook_size=32, semantic_vocab_size=16).eval()


def inputs(device="cpu"):
    generator = torch.Generator().manual_seed(1)
    semantic = torch.randint(16, (3, 60), generator=generator).to(device)
    prompt = torch.randint(32, (3, 4, 10), generator=generator).to(device)
    return semantic, prompt, torch.tensor([60, 41, 23], device=device)


@pytest.mark.parametrize("schedule", [GREEDY, DecodingSchedule(iterations=(8, 1, 1, 1))], ids=["greedy", "sampled"])
def test_every_kernel_of_the_cpu_gives_the_same_codes(schedule, monkeypatch):
    fast = decode(network(), *inputs(), schedule=schedule)
    monkeypatch.setattr(kernels, "_HAS_ONEDNN", False)
    assert torch.equal(fast, decode(network(), *inputs(), schedule=schedule))


@pytest.mark.slow
def test_a_compiled_trunk_gives_the_same_codes():
    plain = network()
    compiled = copy.deepcopy(plain)
    compiled.trunk.compile(dynamic=False)
    assert torch.equal(decode(plain, *inputs(), schedule=GREEDY), decode(compiled, *inputs(), schedule=GREEDY))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_on_a_gpu_the_fast_paths_give_the_same_codes(mode):
    plain = network().cuda()
    expected = decode(plain, *inputs("cuda"), schedule=GREEDY)
    assert (expected.cpu() == decode(network(), *inputs(), schedule=GREEDY)).float().mean() > 0.99
    compiled = copy.deepcopy(plain)
    compiled.trunk.compile(dynamic=False, mode=mode)
    assert torch.equal(expected, decode(compiled, *inputs("cuda"), schedule=GREEDY))
