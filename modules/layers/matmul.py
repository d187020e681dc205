"""Linear layers on the fastest of torch's own kernels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# torch multiplies float32 matrices on a CPU by MKL, which leaves the wide registers of other makers' processors idle;
# oneDNN, in the same package, uses them: 425 against 190 GFLOP/s on two cores of an AMD EPYC. This is the operator that
# compiled models call. A build of torch without it multiplies as before.
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply as ``torch.nn.functional.linear`` does, ``[..., I] -> [..., O]``; float32 on a CPU by oneDNN.

    Args:
        x: Inputs, shape ``[..., I]``.
        weight: Shape ``[O, I]``.
        bias: Shape ``[O]``.

    Returns:
        Shape ``[..., O]``.
    """
    plain = (
        not _HAS_ONEDNN
        or x.device.type != "cpu"
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or x.dim() < 2
        or x.numel() == 0
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
    )
    if plain:
        return F.linear(x, weight, bias)
    return _OneDnnLinear.apply(x, weight, bias) if torch.is_grad_enabled() else _product(x, weight, bias)


class Linear(nn.Linear):
    """A linear layer that multiplies by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[..., I]`` to ``[..., O]``."""
        return linear(input, self.weight, self.bias)


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        return (
            _product(grad, weight.t()) if ctx.needs_input_grad[0] else None,
            _product(rows.t(), x.flatten(0, -2).t()) if ctx.needs_input_grad[1] else None,
            rows.sum(0) if ctx.needs_input_grad[2] else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
