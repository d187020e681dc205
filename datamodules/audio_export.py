"""Writing audio files that say what they are."""

from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from modules.atomic import atomic_file

FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "OPUS")}


def audio_format(file: Path) -> tuple[str, str]:
    """Tell container and encoding of a file to be written, in libsndfile's names, by its suffix.

    Raises:
        ValueError: Nothing is written under this suffix.
    """
    try:
        return FORMATS[file.suffix.lower()]
    except KeyError:
        raise ValueError(f"{file}: the format is told by the suffix, one of {', '.join(FORMATS)}") from None


def write_audio(file: Path, audio: np.ndarray, sample_rate: int, comment: str, title: str | None = None) -> None:
    """Write audio, as a whole or not at all, with a word in its metadata on what it is.

    Args:
        file: The file; what is there is replaced. Its suffix is one of :data:`FORMATS`.
        audio: Mono audio in [-1, 1], ``[N]``; what is louder is clipped.
        sample_rate: Hz.
        comment: Where the audio comes from: whether anybody said it.
        title: Name of the utterance.

    Raises:
        ValueError: The suffix is unknown.
        OSError: The disk is full, or the folder cannot be written; what was there is untouched.
    """
    container, encoding = audio_format(file)
    # In memory first: libsndfile does not tell when the last block of a file could not be written.
    content = BytesIO()
    with soundfile.SoundFile(
        content, "w", samplerate=sample_rate, channels=1, format=container, subtype=encoding
    ) as sound:
        sound.comment, sound.software = comment, "soundstorm-lightning"
        if title is not None:
            sound.title = title
        sound.write(np.clip(audio, -1.0, 1.0))
    with atomic_file(file) as stream:
        stream.write(content.getbuffer())
