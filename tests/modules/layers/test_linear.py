"""The linear layer is torch's own, in values and in gradients, whichever kernel multiplies."""

import pytest
import torch
import torch.nn.functional as F

from modules.layers import Linear, linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(20,), (7, 20), (3, 7, 20)], ids=str)
def test_values_and_gradients_are_those_of_torch(shape, bias):
    inputs = [torch.randn(*shape), torch.randn(5, 20), *([torch.randn(5)] if bias else [])]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    given, expected = linear(*inputs), F.linear(*inputs)
    torch.testing.assert_close(given, expected)
    with torch.no_grad():
        torch.testing.assert_close(linear(*inputs), expected)
    upstream = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(given, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_frozen_weight_gets_no_gradient():
    layer = Linear(4, 3)
    layer.weight.requires_grad_(False)
    x = torch.randn(2, 4, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((3,), 2.0))
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, 4))


def test_types_and_empty_inputs_are_those_of_torch():
    layer = Linear(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(2, 4)).dtype == torch.bfloat16
    assert layer.double()(torch.randn(2, 4).double()).dtype == torch.float64
    assert Linear(4, 3)(torch.randn(0, 4)).shape == (0, 3)
