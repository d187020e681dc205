"""Normalisation of text before words are compared."""

import json
from pathlib import Path
from typing import Any

from transformers.models.whisper.english_normalizer import EnglishTextNormalizer


class EnglishNormalizer:
    """Whisper's English normaliser: case, punctuation, numbers, contractions, and British to American spelling.

    Args:
        spellings: British spelling -> American spelling, Whisper's table. Empty leaves spellings as they are, which
            counts "colour" for "color" as an error.
    """

    def __init__(self, spellings: dict[str, str]) -> None:
        self.spellings = spellings
        self._normalize = EnglishTextNormalizer(spellings)

    @classmethod
    def from_table(cls, path: Path) -> "EnglishNormalizer":
        """Read the spelling table from a JSON file, as ``normalizer.json`` beside a published Whisper."""
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def __call__(self, text: str) -> str:
        """Normalise one text."""
        return self._normalize(text).strip()

    def identity(self) -> dict[str, Any]:
        """Say which normaliser this is."""
        return {"name": "whisper-english", "spellings": len(self.spellings)}
