"""Random numbers by counting: a draw is a pure function of what it is for, not of how many draws came before it.

Training windows and row seeds follow from ``(seed, epoch, row)``, prompts and generation seeds from ``(seed, id)``.
Nothing depends on the rank, the worker, the batch or the moment, so that runs resume and re-shard exactly.
The mixer is splitmix64's finaliser (Steele, Lea and Flood, 2014), over whole NumPy arrays at a time.
"""

import hashlib

import numpy as np

_WORD = (1 << 64) - 1


def mix(*parts: int | np.ndarray) -> np.ndarray:
    """Hash the parts together, element by element.

    For fixed other parts the result is a bijection of the last one: rows of one epoch never share a value.

    Args:
        parts: Integers, or integer arrays ``[N]``; broadcast against each other.

    Returns:
        uint64, shape ``[N]`` (``[1]`` when all parts are plain integers).
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        word = np.asarray([part & _WORD], dtype=np.uint64) if isinstance(part, int) else part.astype(np.uint64)
        state = (state ^ word) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def uniform(bits: np.ndarray) -> np.ndarray:
    """Turn random 64-bit words into float64 in [0, 1), same shape."""
    return (bits >> np.uint64(11)) * 2.0**-53


def as_seeds(bits: np.ndarray) -> np.ndarray:
    """Turn random 64-bit words into non-negative int64 seeds, same shape."""
    return (bits >> np.uint64(1)).astype(np.int64)


def hash_text(text: str) -> int:
    """Hash a string to 64 bits, the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def hash_texts(texts: list[str]) -> np.ndarray:
    """Hash strings to a uint64 array ``[N]``; see :func:`hash_text`."""
    return np.fromiter(map(hash_text, texts), dtype=np.uint64, count=len(texts))
