"""What the tests of all token generators share."""

import pytest
import torch
from lightning import Trainer

from modules.batches import TokenBatch


@pytest.fixture
def make_batch():
    def make(lengths=(30, 20, 9), prompt=(0, 0, 0), num_quantizers=4):
        width = max(lengths)
        return TokenBatch(
            [str(b) for b in range(len(lengths))],
            torch.randint(32, (len(lengths), width)),
            torch.randint(64, (len(lengths), num_quantizers, width)),
            torch.tensor(lengths),
            torch.tensor(prompt),
            torch.arange(len(lengths)) + 5,
            [""] * len(lengths),
            [""] * len(lengths),
        )

    return make


@pytest.fixture
def make_trainer():
    def make(**changes):
        settings = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "gradient_clip_val": 1.0,
            "max_epochs": -1,
            "limit_val_batches": 0,
        }
        return Trainer(**(settings | changes))

    return make
