"""`soundstorm` that holds the gradients of the first step on two ranks against those of their joint batch on one."""

import copy
import sys

import torch
from lightning import Callback, Trainer
from torch.distributed.tensor import DTensor

from modules.soundstorm import SoundStorm
from pipeline.cli import console

batches, gradients, start = [], {}, {}


def gathered(value: object) -> list:
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


class Recorder(Callback):
    def setup(self, trainer: Trainer, module: SoundStorm, stage: str) -> None:
        # Before it belongs to DDP, or is sharded.
        self.network = copy.deepcopy(module.network)

    def on_train_batch_start(self, trainer: Trainer, module: SoundStorm, batch: tuple, batch_idx: int) -> None:
        if not batches:
            batches.extend(gathered(batch))
            start.update({name: whole(p) for name, p in module.network.named_parameters()})

    def on_before_optimizer_step(self, trainer: Trainer, module: SoundStorm, optimizer: object) -> None:
        if not gradients:
            gradients.update({name: whole(p.grad) for name, p in module.network.named_parameters()})

    def on_fit_end(self, trainer: Trainer, module: SoundStorm) -> None:
        if trainer.global_rank:
            return
        assert batches[0].ids != batches[1].ids, "each rank must have a batch of its own"
        module.network = self.network
        module.network.load_state_dict(start)
        module.train()
        total, count = 0.0, 0
        for batch in batches:
            logits, target, _ = module.predict_masked(batch, None)
            total = total + torch.nn.functional.cross_entropy(logits, target, reduction="sum")
            count += len(target)
        (total / count).backward()
        for name, parameter in module.network.named_parameters():
            torch.testing.assert_close(
                gradients[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
            )
        print("gradients agree")


if __name__ == "__main__":
    sys.modules["ddp_gradients"] = sys.modules["__main__"]  # the configuration names it
    console()
