"""Whisper by CTranslate2: several times faster on CPUs. Needs the optional package ``faster-whisper``."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from modules.evaluation.pretrained import file_digest
from modules.evaluation.recognition import Recognizer
from modules.evaluation.scorer import ScorerUnavailableError
from modules.evaluation.text import EnglishNormalizer


class FasterWhisperRecognizer(Recognizer):
    """A Whisper in CTranslate2's format, by size (``base.en``), hub id or local folder.

    Its words can differ from those of the same model in transformers: quantised weights, another search. The revision
    names both weights and precision, so that the two never share a column unseen.

    Args:
        model: Size, hub id or local folder.
        language: Language that is spoken.
        num_beams: Beams of the search; 1 is greedy.
        compute_type: Precision as CTranslate2 names it: ``int8``, ``float16``, ``float32``, ...
        device: ``cpu``, ``cuda`` or ``auto``; this package does not follow Lightning's device.
        spellings: JSON file of British to American spellings, as ``normalizer.json`` beside a published Whisper.
    """

    sample_rate = 16_000

    def __init__(
        self,
        model: str,
        language: str = "en",
        num_beams: int = 1,
        compute_type: str = "int8",
        device: str = "auto",
        spellings: Path | None = None,
    ) -> None:
        super().__init__()
        self.name = model
        self.language = language
        self.num_beams = num_beams
        self.compute_type = compute_type
        self.device_name = device
        self.normalizer = EnglishNormalizer({}) if spellings is None else EnglishNormalizer.from_table(spellings)

    def load(self) -> None:
        """Import the package and fetch the model."""
        try:
            package = importlib.import_module("faster_whisper")
        except ImportError as error:
            reason = f"faster-whisper cannot be imported ({error})"
            raise ScorerUnavailableError(reason, "pip install faster-whisper") from error
        try:
            folder = self.name if Path(self.name).is_dir() else package.download_model(self.name)
            self.model: Any = package.WhisperModel(folder, device=self.device_name, compute_type=self.compute_type)
        except (OSError, RuntimeError, ValueError) as error:
            reason = f"{self.name!r} cannot be loaded ({str(error).strip().splitlines()[0]})"
            remedy = "name a folder in CTranslate2's format, or connect to the hub once so that it is cached"
            raise ScorerUnavailableError(reason, remedy) from error
        self.revision = file_digest(Path(folder) / "model.bin")

    def transcribe(self, audio: Sequence[Tensor]) -> list[str]:
        """Transcribe clips of any length, one after the other."""
        return [self._hear(clip) if clip.numel() else "" for clip in audio]

    def _hear(self, audio: Tensor) -> str:
        segments, _ = self.model.transcribe(
            audio.float().cpu().numpy(),
            language=self.language,
            task="transcribe",
            beam_size=self.num_beams,
            temperature=0.0,  # else it samples anew where it is unsure, and no two runs agree
            condition_on_previous_text=False,
            without_timestamps=audio.numel() <= 30 * self.sample_rate,
        )
        return " ".join(segment.text.strip() for segment in segments).strip()

    def identity(self) -> dict[str, Any]:
        """Say which model this is, and how it was run."""
        return {
            "name": f"faster-whisper {Path(self.name).name}",
            "revision": f"{self.revision} {self.compute_type}",
            "language": self.language,
            "num_beams": self.num_beams,
        }
