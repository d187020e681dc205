"""Parameter groups, and Muon beside AdamW as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable
from torch import nn
from torch.optim import Optimizer


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
        self.muon = torch.optim.Muon(
            hidden, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
        )
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
