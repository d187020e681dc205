"""Rows of slots of different lengths for a causal Transformer: packed for training, continued slot by slot."""

from typing import Literal

import torch
from torch import Tensor

from modules.layers.transformer import KeyValueCache, Rotary, Transformer, rotary_at

# Whether keys and values are kept from slot to slot. "static" keeps them in shapes that never change: on a GPU each
# slot is then one captured graph, launched at once.
Caching = bool | Literal["static"]


def pack(x: Tensor, positions: Tensor, valid: Tensor, at_end: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Move each row's valid slots together, their order kept: to the beginning of the row, or to its end.

    Args:
        x: Slots, shape ``[B, L, D]``.
        positions: Their positions, ``[B, L]``.
        valid: Which of them exist, bool ``[B, L]``.
        at_end: Whether padding comes first (so that all rows can be continued at the same slot) and not last.

    Returns:
        Slots and positions in their new places, and the old place of each, int64 ``[B, L]``.
    """
    order = (valid if at_end else ~valid).to(torch.uint8).argsort(dim=1, stable=True)
    return x.gather(1, order[..., None].expand_as(x)), positions.gather(1, order), order


def unpack(x: Tensor, order: Tensor) -> Tensor:
    """Undo :func:`pack` for slots ``[B, L, D]``."""
    return torch.empty_like(x).scatter(1, order[..., None].expand_as(x), x)


class Continuation:
    """A causal Transformer on rows that grow slot by slot.

    Rows may have beginnings of different lengths; none influences another.

    Args:
        trunk: The Transformer.
        x: Beginnings of the rows, shape ``[B, L, D]``, at least one valid slot each.
        positions: Positions of these slots, ``[B, L]``.
        valid: Which of them exist, bool ``[B, L]``.
        next_positions: Positions of the slots to come, ``[B, S]``.
        cached: Whether keys and values are kept, and how; otherwise all slots are computed anew each time (for
            comparison).

    Attributes:
        hidden: Output at the last slot of each row, ``[B, D]``.
    """

    def __init__(
        self,
        trunk: Transformer,
        x: Tensor,
        positions: Tensor,
        valid: Tensor,
        next_positions: Tensor,
        cached: Caching = True,
    ) -> None:
        self.trunk = trunk
        x, positions, _ = pack(x, positions, valid, at_end=True)
        counts = valid.sum(dim=1)
        longest, steps = int(counts.max()), next_positions.shape[1]
        x, positions = x[:, -longest:], positions[:, -longest:]
        self.rotary = rotary_at(torch.cat((positions, next_positions), dim=1), trunk.head_dim)
        self.valid: Tensor | None = None
        if int(counts.min()) < longest:
            self.valid = torch.arange(longest + steps, device=x.device) >= (longest - counts)[:, None]
        self.cache = KeyValueCache(longest + steps) if cached else None
        self.length = 0
        self._all = x[:, :0]
        self.hidden = self._feed(x)
        self._step: _FixedStep | None = None
        if cached == "static" and steps and self.cache is not None:
            self._step = _FixedStep(trunk, self.cache, self.rotary, self.valid, x[:, -1])

    def append(self, x: Tensor) -> Tensor:
        """Add one slot ``[B, D]`` to each row; return the output at it, ``[B, D]``."""
        self.hidden = self._feed(x[:, None]) if self._step is None else self._step(x)
        return self.hidden

    def _feed(self, x: Tensor) -> Tensor:
        first, self.length = self.length, self.length + x.shape[1]
        if self.cache is None:
            first, self._all = 0, torch.cat((self._all, x), dim=1)
            x = self._all
        cos, sin = (angles[:, :, first : self.length] for angles in self.rotary)
        valid = None if self.valid is None else self.valid[:, : self.length]
        return self.trunk(x, (cos, sin), valid, cache=self.cache)[:, -1]


class _FixedStep:
    """One more slot per row, in shapes that never change: on a GPU, a graph captured once and launched per slot.

    Args:
        trunk: The Transformer.
        cache: The slots so far, with room for those to come.
        rotary: Angles of all slots.
        valid: Which slots exist, those to come included, bool ``[B, S]``; None if all.
        like: What a slot looks like, ``[B, D]``.
    """

    def __init__(
        self, trunk: Transformer, cache: KeyValueCache, rotary: Rotary, valid: Tensor | None, like: Tensor
    ) -> None:
        self.trunk, self.cache, self.rotary, self.valid = trunk, cache, rotary, valid
        self.x = torch.zeros_like(like)
        self.slots = torch.arange(cache.capacity, device=like.device)
        self.slot = torch.tensor([cache.length], device=like.device)
        cache.slot = self.slot
        self.graph: torch.cuda.CUDAGraph | None = None
        if like.is_cuda:
            # What these runs leave in the cache is at the slot that the first real one writes to.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    self._compute()
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.hidden = self._compute()

    def __call__(self, x: Tensor) -> Tensor:
        """Add one slot ``[B, D]`` to each row; return the output at it, ``[B, D]``, there until the next call."""
        self.x.copy_(x)
        if self.graph is None:
            self.hidden = self._compute()
        else:
            self.graph.replay()
        self.slot += 1
        return self.hidden

    def _compute(self) -> Tensor:
        angles = self.rotary[0].index_select(2, self.slot), self.rotary[1].index_select(2, self.slot)
        seen = (self.slots <= self.slot)[None]
        valid = seen if self.valid is None else self.valid & seen
        self.cache.length = self.cache.capacity - 1
        return self.trunk(self.x[:, None], angles, valid, cache=self.cache)[:, -1]
