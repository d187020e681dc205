"""What all tests share. Those marked ``slow`` run only when asked for: ``python -m pytest -m slow``."""

import os

# Before any import of a library that reads it: no test reaches a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests run side by side, and what they multiply is small: more threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


def pytest_collection_modifyitems(config, items):
    if config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
