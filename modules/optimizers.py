"""Parameter groups, and Muon beside AdamW as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from modules.arithmetic import multiplies_bfloat16


def parameter_groups(network: nn.Module, hidden: nn.Module) -> list[dict[str, Any]]:
    """Sort parameters by how they should be optimised.

    Args:
        network: All parameters.
        hidden: The part of it between embeddings and output heads.

    Returns:
        Three groups: the matrices of ``hidden``, marked ``"hidden": True`` for :class:`MuonWithAdamW`; other weights;
        and, with ``"weight_decay": 0.0``, embeddings, biases and norms.
    """
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    within = {id(parameter) for parameter in hidden.parameters()}
    matrices, weights, bare = [], [], []
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2 or id(parameter) in embeddings or name.rpartition(".")[2].endswith("bias"):
            bare.append(parameter)
        elif parameter.ndim == 2 and id(parameter) in within:
            matrices.append(parameter)
        else:
            weights.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "hidden": True},
        {"params": weights, "hidden": False},
        {"params": bare, "hidden": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def with_schedule(optimizer: Optimizer, lr_scheduler: LRSchedulerCallable | None) -> Any:
    """Put an optimizer and its schedule together as Lightning wants them, stepped once per optimizer step.

    Args:
        optimizer: The optimizer.
        lr_scheduler: Makes its schedule; None for a constant rate.
    """
    if lr_scheduler is None:
        return optimizer
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler(optimizer), "interval": "step"}}


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` with steps as large as AdamW's, which orthogonalises in float32 where bfloat16 is slow.

    Args:
        params: Matrices, or groups of them.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        momentum: Of the running average of gradients.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; the closure is evaluated first."""
        parameters = [(group, parameter) for group in self.param_groups for parameter in group["params"]]
        if all(map(multiplies_bfloat16, {parameter.device for _, parameter in parameters})):
            return super().step(closure)  # torch's own, which orthogonalises in bfloat16
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, parameter in parameters:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
            average = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
            update = parameter.grad.lerp(average, group["momentum"]) if group["nesterov"] else average
            direction = orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction, alpha=-group["lr"] * 0.2 * max(parameter.shape) ** 0.5)
        return loss


def orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Bring all singular values of a matrix near 1, by Newton-Schulz iterations (Jordan 2024) in its own precision.

    Args:
        matrix: The matrix ``[M, N]``.
        coefficients: Of x, x^3 and x^5 in an iteration.
        steps: Number of iterations.
        eps: Least norm that is divided by.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=eps)
    a, b, c = coefficients
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class MuonWithAdamW(Optimizer):
    """Muon (Jordan 2024) for the hidden matrices, AdamW for all else, behind one state and one list of groups.

    Muon takes steps whose singular values are all equal, so that rare directions, such as what the codes of one voice
    have in common, are learnt as fast as frequent ones. Its step is scaled to the size of AdamW's (Liu et al. 2025,
    arXiv 2502.16982, section 2.2), so that rates mean the same for both.

    Args:
        params: Groups of :func:`parameter_groups`; those with ``"hidden": True`` are Muon's.
        lr: Learning rate of Muon.
        adamw_lr: Learning rate of AdamW.
        betas: Of AdamW.
        eps: Of AdamW.
        weight_decay: Decoupled weight decay of both, where a group does not say otherwise.
        momentum: Of Muon.

    Raises:
        ValueError: No group is marked as hidden, or all are.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1.5e-3,
        adamw_lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
    ) -> None:
        groups = [group if isinstance(group, dict) else {"params": [group]} for group in params]
        hidden, other = _split(groups)
        if not hidden or not other:
            raise ValueError('MuonWithAdamW needs groups with "hidden": True and groups without, see parameter_groups')
        self.muon = Muon(hidden, lr, weight_decay, momentum)
        self.adamw = torch.optim.AdamW(other, lr=adamw_lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a loaded state."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        # The same group objects, so that a schedule reaches both, and the same state, so that a checkpoint has both.
        self.muon.param_groups, self.adamw.param_groups = _split(self.param_groups)
        self.muon.state = self.adamw.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step of each."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss


def _split(groups: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    hidden = [group for group in groups if group.get("hidden")]
    return hidden, [group for group in groups if not group.get("hidden")]
