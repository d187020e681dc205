"""Batches without padding."""

from collections.abc import Sequence

from torch import Tensor


def equal_length_groups(audio: Sequence[Tensor]) -> list[list[int]]:
    """Group utterances that can share a batch without padding any of them.

    Args:
        audio: Per utterance ``[N_i]``.

    Returns:
        Indices into ``audio``: one list per length, in order of first appearance; every index exactly once.
    """
    groups: dict[int, list[int]] = {}
    for index, waveform in enumerate(audio):
        groups.setdefault(len(waveform), []).append(index)
    return list(groups.values())
