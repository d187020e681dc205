"""Which numbers the hardware multiplies fast."""

import platform

import torch

SLOW = ("DEFAULT", "NO AVX", "AVX2")  # x86 without AVX-512, where bfloat16 is emulated number by number


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 is worth using on a device; where it is not, it takes some fifty times as long as float32.

    Args:
        device: Where matrices are multiplied.
    """
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return torch.backends.cpu.get_cpu_capability() not in SLOW
