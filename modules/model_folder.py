"""The folder a model is published in: ``config.yaml``, ``model.safetensors`` and a card."""

from collections.abc import Mapping

import torch
import xxhash
from torch import Tensor


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Digest weights by name and value: the same weights have the same digest wherever they lie.

    Args:
        state: Tensors by name, as ``state_dict`` gives them.

    Returns:
        ``xxh3:`` and 16 hexadecimal digits.
    """
    digest = xxhash.xxh3_64()
    for name, value in sorted(state.items(), key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return f"xxh3:{digest.hexdigest()}"
