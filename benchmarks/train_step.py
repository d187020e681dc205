"""Seconds of one training step (4 x 500 frames), beside the time its arithmetic takes at least.

python -m benchmarks.train_step --threads 2 --json runs/benchmarks/train_step.json
"""

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.measure import COMPARISON, TINY, Shape, arguments, measure, report, train_flops
from modules.soundstorm import SoundStormNetwork
from modules.soundstorm.masking import apply_masks, draw_masks


class Step:
    """A training step on the same random batch each time.

    Args:
        network: The network.
        shape: Its sizes.
        batch: Rows.
        optimizer: Steps its parameters.
        autocast: Arguments of ``torch.autocast``, or none.
    """

    def __init__(
        self,
        network: SoundStormNetwork,
        shape: Shape,
        batch: int,
        optimizer: torch.optim.Optimizer,
        autocast: dict[str, Any] | None = None,
    ) -> None:
        device = network.head_weight.device
        self.network, self.optimizer, self.autocast = network, optimizer, autocast or {"device_type": device.type}
        self.forward: Any = network
        self.semantic = torch.randint(0, network.semantic_vocab_size, (batch, shape.frames), device=device)
        self.codes = torch.randint(0, shape.codebook_size, (batch, shape.num_quantizers, shape.frames), device=device)
        lengths = torch.full((batch,), shape.frames)
        draw = draw_masks(lengths, shape.frames, shape.num_quantizers, torch.arange(batch))
        self.draw = type(draw)(*(part.to(device) for part in draw))
        self.masked = apply_masks(self.codes, self.draw, lengths.to(device), network.mask_id)
        index = self.draw.level[:, None, None].expand(-1, 1, shape.frames)
        self.target = self.codes.gather(1, index).squeeze(1)[self.draw.masked]
        self.flops = train_flops(shape, batch, len(self.target))

    def __call__(self) -> None:
        """Take the step."""
        with torch.autocast(**self.autocast, enabled="dtype" in self.autocast):
            logits = self.forward(self.semantic, self.masked, self.draw.level, self.draw.masked)
        F.cross_entropy(logits.float(), self.target).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, batch={"type": int, "default": 4})
    shape = TINY if options.tiny else COMPARISON
    rows = []
    for dropout in (0.0, 0.1):  # drawing it is no arithmetic that the bound counts
        network = shape.network(dropout=dropout).train()
        step = Step(network, shape, options.batch, torch.optim.AdamW(network.parameters(), fused=True))
        timing = measure(step, torch.device("cpu"), repeats=options.repeats)
        name = f"train step, {options.batch} x {shape.frames} frames, fp32, AdamW, dropout {dropout:g}"
        rows.append(timing.row(name, step.flops))
    report(rows, options.json, "Training")


if __name__ == "__main__":
    main()
