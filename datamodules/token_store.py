"""Several token sets as one numbered list of utterances."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from datamodules.token_card import TokenSetCard
from datamodules.token_set import TokenRow, frame_counts, open_token_set, read_rows, split_names


class TokenSource(Protocol):
    """Utterances by number, of one kind of tokens."""

    @property
    def card(self) -> TokenSetCard:
        """What the tokens mean."""
        ...

    @property
    def frames(self) -> np.ndarray:
        """Frames of every utterance, int32 ``[N]``."""
        ...

    def read(self, rows: Sequence[int] | np.ndarray) -> list[TokenRow]:
        """Read utterances by number, in the order asked for."""
        ...


def load_common_card(folders: Sequence[str | Path], mixed_semantics: bool = False) -> TokenSetCard:
    """Read the cards of several token sets, which must agree.

    Args:
        folders: Token sets.
        mixed_semantics: Let semantic tokens be of different tokenizers with vocabularies of the same size.

    Returns:
        The card of the first, with the soft tokens of those that have some: others speak with their tokens alone.

    Raises:
        FileNotFoundError: A folder is no token set.
        ValueError: Two cards differ; both values of each field are named.
    """
    if not folders:
        raise ValueError("no token set was named: give token_sets at least one folder")
    cards = [TokenSetCard.load(folder) for folder in folders]
    first = next((number for number, card in enumerate(cards) if card.soft_semantic), 0)
    for folder, other in zip(folders, cards, strict=True):
        # Of soft tokens those are compared that there are, and all else with the first.
        known = replace(cards[0], soft_semantic=other.soft_semantic)
        other = replace(other, semantic=known.semantic) if mixed_semantics else other
        known.check_matches(other, str(folders[0]), f"{folder} (they cannot be mixed)")
        if other.soft_semantic:
            soft = replace(other, soft_semantic=cards[first].soft_semantic)
            soft.check_matches(other, str(folders[first]), f"{folder} (they cannot be mixed)")
    return replace(cards[0], soft_semantic=cards[first].soft_semantic)


class TokenStore:
    """Splits of token sets on disk, memory-mapped, one after the other.

    Args:
        folders: Token sets; their cards must agree.
        splits: Splits to take of each set that has them.
        every_folder: Whether each set must have one of the splits, or any set will do.
        cache_dir: Where the memory-mappable copies lie; ``None``: in each set's folder.
        mixed_semantics: See :func:`load_common_card`.

    Raises:
        FileNotFoundError: A folder is no token set, or a split is missing; the splits that exist are named.
        ValueError: The cards differ.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        splits: Sequence[str],
        *,
        every_folder: bool = False,
        cache_dir: str | Path | None = None,
        mixed_semantics: bool = False,
    ) -> None:
        self.card = load_common_card(folders, mixed_semantics)
        present = {str(folder): split_names(folder) for folder in folders}
        for split in splits:
            if not any(split in names for names in present.values()):
                raise FileNotFoundError(f"no split {split!r} in {_describe(present)}")
        lacking = {folder: names for folder, names in present.items() if not set(names) & set(splits)}
        if every_folder and lacking:
            raise FileNotFoundError(f"no split {' or '.join(map(repr, splits))} in {_describe(lacking)}")
        self.name = f"{' + '.join(map(repr, splits))} of {' + '.join(present)}"
        self._sets = [
            open_token_set(folder, split, cache_dir=cache_dir)
            for folder, names in present.items()
            for split in splits
            if split in names
        ]
        self._firsts = np.cumsum([0, *map(len, self._sets)])
        self.frames = np.concatenate([frame_counts(part) for part in self._sets])

    def __len__(self) -> int:
        """Count the utterances."""
        return len(self.frames)

    def column(self, name: str) -> pa.ChunkedArray:
        """Give a column of every utterance (``id`` or ``speaker``), memory-mapped."""
        return pa.chunked_array([chunk for part in self._sets for chunk in part.data.column(name).chunks])

    def read(self, rows: Sequence[int] | np.ndarray) -> list[TokenRow]:
        """Read utterances by number, in the order asked for; their arrays are views of the mapped files."""
        numbers = np.asarray(rows, dtype=np.int64)
        owners = np.searchsorted(self._firsts, numbers, side="right") - 1
        found: dict[int, TokenRow] = {}
        for owner in np.unique(owners):
            places = np.flatnonzero(owners == owner)
            own = (numbers[places] - self._firsts[owner]).tolist()
            found.update(zip(places.tolist(), read_rows(self._sets[owner], own, self.card.num_quantizers), strict=True))
        return [found[place] for place in range(len(numbers))]


def _describe(present: dict[str, list[str]]) -> str:
    return ", ".join(f"{folder} (it has {', '.join(names) or 'none'})" for folder, names in present.items())
