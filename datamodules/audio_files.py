"""Read speech from audio files: any format of libsndfile, mono float32 at one sample rate, and nothing unusable."""

from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from datamodules.audio_endings import why_incomplete

AUDIO_SUFFIXES = (".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")

# libsndfile announces lengths of this size where a file does not tell its own.
_UNKNOWN_FRAMES = 2**40


class UnusableAudio(ValueError):
    """Audio that cannot be used; the message is the reason, in one line without the file's name."""


@dataclass(frozen=True)
class AudioReader:
    """Read recordings, or parts of them, and refuse what no model can use.

    A file that was cut off is refused, its transcript says more than it does; :mod:`datamodules.audio_endings` tells
    which formats notice that.

    Args:
        sample_rate: Of the result, in Hz.
        min_seconds: Shorter audio is refused.
        max_seconds: Longer audio is refused, without reading it.
        silence_threshold: Audio whose every sample is smaller than this is refused; 1e-4 is -80 dB of full scale.
    """

    sample_rate: int
    min_seconds: float = 0.1
    max_seconds: float = 60.0
    silence_threshold: float = 1e-4

    def __call__(self, file: Path | BytesIO, part: int = 0, num_parts: int = 1, speed: float = 1.0) -> Tensor:
        """Read a recording, or one of ``num_parts`` consecutive parts of equal length, by seeking.

        Args:
            file: The file, or its content.
            part: Which part, from 0.
            num_parts: How many parts the recording is divided into.
            speed: To play it at; pitch changes along.

        Returns:
            Mono audio in [-1, 1], float32, shape ``[N]``: channels are averaged; what is louder than full scale (float
            files, resampling) is scaled down as a whole.

        Raises:
            UnusableAudio: The file is missing, unreadable, empty, cut off, too short, too long, silent or not finite.
        """
        with _open(file) as sound:
            start, stop = sound.frames * part // num_parts, sound.frames * (part + 1) // num_parts
            wanted = stop - start
            self._check_length(wanted / (speed * sound.samplerate))
            try:
                sound.seek(start)
                samples = sound.read(wanted, dtype="float32", always_2d=True)
            except (RuntimeError, OSError, ValueError, MemoryError) as error:
                raise UnusableAudio(f"cannot be decoded ({_one_line(error)})") from None
            # Lossy formats estimate their length; a real loss is longer than that.
            if len(samples) < wanted - 0.1 * sound.samplerate:
                raise UnusableAudio(
                    f"is cut off: {len(samples) / sound.samplerate:.2f} of {wanted / sound.samplerate:.2f} s are there"
                )
            return torch.from_numpy(self._prepare(samples, speed * sound.samplerate))

    def _check_length(self, seconds: float) -> None:
        if seconds < self.min_seconds:
            raise UnusableAudio(f"lasts {seconds:.3f} s, shorter than min_seconds = {self.min_seconds:g}")
        if seconds > self.max_seconds:
            raise UnusableAudio(
                f"lasts {seconds:.1f} s, longer than max_seconds = {self.max_seconds:g}; "
                "set segment_seconds to read it in parts"
            )

    def _prepare(self, samples: np.ndarray, sample_rate: float) -> np.ndarray:
        if not np.isfinite(samples).all():
            raise UnusableAudio("holds samples that are NaN or infinite")
        audio = samples.mean(axis=1)
        if np.abs(audio).max() < self.silence_threshold:
            if np.abs(samples).mean(axis=1).max() >= self.silence_threshold:
                raise UnusableAudio("is silent once mixed down: its channels cancel each other out; keep one of them")
            raise UnusableAudio(f"is silent: no sample reaches silence_threshold = {self.silence_threshold:g}")
        if sample_rate != self.sample_rate:
            try:
                audio = soxr.resample(audio, sample_rate, self.sample_rate, quality="HQ")
            except (RuntimeError, ValueError) as error:
                raise UnusableAudio(f"cannot be resampled from {sample_rate:g} Hz ({_one_line(error)})") from None
        return np.ascontiguousarray(audio / max(1.0, np.abs(audio).max()), dtype=np.float32)


def audio_seconds(file: Path | BytesIO) -> float:
    """Read the length of a recording from its header.

    Raises:
        UnusableAudio: The file is missing, unreadable, empty or, as far as its container tells, cut off.
    """
    with _open(file) as sound:
        return sound.frames / sound.samplerate


def part_count(seconds: float, segment_seconds: float) -> int:
    """Count the parts of equal length, at most ``segment_seconds`` each, that a recording is divided into."""
    return max(1, ceil(seconds / segment_seconds))


def _open(file: Path | BytesIO) -> soundfile.SoundFile:
    try:
        size = len(file.getbuffer()) if isinstance(file, BytesIO) else file.stat().st_size
    except FileNotFoundError:
        raise UnusableAudio("is missing: there is no such file") from None
    except (OSError, ValueError) as error:
        raise UnusableAudio(f"cannot be opened ({_one_line(error)})") from None
    if size == 0:
        raise UnusableAudio("is empty: 0 bytes")
    try:
        problem = why_incomplete(file)
        if isinstance(file, BytesIO):
            file.seek(0)
        sound = None if problem else soundfile.SoundFile(file)
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise UnusableAudio(f"cannot be read as audio ({_one_line(error)})") from None
    if sound is None:
        raise UnusableAudio(problem)
    if not 0 < sound.frames < _UNKNOWN_FRAMES:
        frames = sound.frames
        sound.close()
        raise UnusableAudio("is empty: it holds no samples" if frames <= 0 else "does not tell its length; convert it")
    return sound


def _one_line(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        # Its text would name the file again, and content in memory as an object at an address.
        return error.error_string.strip() or f"libsndfile error {error.code}: damaged or cut off"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())
