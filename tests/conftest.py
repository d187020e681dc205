"""What all tests share."""

import os

# Before any import of a library that reads it: no test reaches a hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
