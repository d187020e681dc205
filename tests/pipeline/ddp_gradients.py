"""A callback that holds the gradients of the first step on two ranks against those of their joint batch on one."""

import copy

import torch
from lightning import Callback, Trainer

from modules.soundstorm import SoundStorm

batches, gradients, start = [], {}, {}


def gathered(value: object) -> list:
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


class Recorder(Callback):
    def on_train_batch_start(self, trainer: Trainer, module: SoundStorm, batch: tuple, batch_idx: int) -> None:
        if not batches:
            batches.extend(gathered(batch))
            start.update({name: p.detach().clone() for name, p in module.network.named_parameters()})

    def on_before_optimizer_step(self, trainer: Trainer, module: SoundStorm, optimizer: object) -> None:
        if not gradients:
            gradients.update({name: p.grad.clone() for name, p in module.network.named_parameters()})

    def on_fit_end(self, trainer: Trainer, module: SoundStorm) -> None:
        if trainer.global_rank:
            return
        assert batches[0].ids != batches[1].ids, "each rank must have a batch of its own"
        # A copy, because the network's own gradients are still DDP's.
        module.network = copy.deepcopy(module.network)
        module.network.load_state_dict(start)
        module.network.zero_grad()
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
