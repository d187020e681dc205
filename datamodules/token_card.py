"""The card of a token set: which codec and semantic tokenizer its tokens belong to."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from modules.atomic import write_atomically

FORMAT_VERSION = 1
LARGEST_TOKEN = np.iinfo(np.uint16).max
MAKE_IT = "make it with `soundstorm predict -c configs/tokenize/<preset>.yaml`"


@dataclass(frozen=True)
class TokenSetCard:
    """What the tokens of a set mean.

    Attributes:
        codec: Identity of the audio codec, see ``AudioCodec.identity``.
        semantic: Identity of the semantic tokenizer, see ``SemanticTokenizer.identity``.
        sample_rate: Hz of the audio that was tokenized.
        frame_rate: Frames per second, of acoustic and semantic tokens alike.
        num_quantizers: Levels Q per frame.
        codebook_size: Entries C per level.
        semantic_vocab_size: Number of semantic tokens.
        soft_semantic: How many tokens each frame may be, and how their probabilities were found, see
            ``modules.semantic.Posterior``; None where there is only the most probable one.
        format_version: Version of the layout on disk.
    """

    codec: dict[str, Any]
    semantic: dict[str, Any]
    sample_rate: int
    frame_rate: float
    num_quantizers: int
    codebook_size: int
    semantic_vocab_size: int
    soft_semantic: dict[str, Any] | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name in ("codebook_size", "semantic_vocab_size"):
            if not 0 < getattr(self, name) <= LARGEST_TOKEN + 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a token set stores 16-bit tokens: 1 to 65536")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read the card of a token set.

        Raises:
            FileNotFoundError: ``folder`` holds no card.
            ValueError: The card is damaged or of a newer format.
        """
        file = Path(folder) / "card.json"
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} is no token set (it has no card.json); {MAKE_IT}") from None
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}); make the token set anew") from None
        names = {field.name for field in fields(cls)}
        later = {"soft_semantic"}  # what cards of an earlier date lack
        if not isinstance(values, dict) or not names - later <= set(values) <= names:
            keys = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"{file} holds {keys} where {sorted(names)} is expected; make the token set anew")
        if values["format_version"] > FORMAT_VERSION:
            raise ValueError(
                f"{file} has format_version {values['format_version']}, this software reads up to {FORMAT_VERSION}; "
                "update the software"
            )
        return cls(**values)

    def save(self, folder: str | Path) -> None:
        """Write ``card.json`` atomically, making the folder if need be."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        values = asdict(self)
        if self.soft_semantic is None:
            del values["soft_semantic"]  # as cards were before there were soft tokens
        write_atomically(Path(folder) / "card.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    def differences(self, other: "TokenSetCard") -> list[str]:
        """Name each value that differs, as ``codec.name: 'a' and 'b'``: of this card first, then of the other."""
        mine, theirs = _flatten(asdict(self)), _flatten(asdict(other))
        names = [*mine, *(name for name in theirs if name not in mine)]
        return [
            f"{name}: {mine.get(name)!r} and {theirs.get(name)!r}"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]

    def check_matches(self, other: "TokenSetCard", this: str = "this token set", that: str = "the other") -> None:
        """Insist that two cards agree in every value.

        Args:
            other: The card to compare with.
            this: What this card belongs to, for the message.
            that: What the other card belongs to, for the message.

        Raises:
            ValueError: They differ; the message names each field with both values.
        """
        if differences := self.differences(other):
            raise ValueError(f"{this} and {that} differ in {'; '.join(differences)}")


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    # Through JSON, so that a tuple equals the list it is read back as.
    for name, value in json.loads(json.dumps(values)).items():
        flat.update(_flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat
