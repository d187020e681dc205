"""Codebook usage."""

import pytest
import torch

from modules.codec.soundstream.metrics import CodebookUsage


def test_perplexity_counts_the_entries_in_even_use():
    usage = CodebookUsage(2, 8)
    codes = torch.stack([torch.arange(4).repeat(6), torch.full((24,), 5)])[None]
    usage.update(codes[..., :10])
    usage.update(codes[..., 10:])
    assert usage.compute().tolist() == pytest.approx([4.0, 1.0])


def test_levels_without_codes_have_perplexity_one():
    usage = CodebookUsage(3, 8)
    usage.update(torch.zeros(1, 1, 5, dtype=torch.long))
    assert usage.compute().tolist() == pytest.approx([1.0, 1.0, 1.0])
