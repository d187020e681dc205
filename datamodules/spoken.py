"""More speech to train on: what a synthesiser says, in voices mixed from its own."""

import importlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from tqdm import tqdm

from datamodules.audio_export import write_audio
from datamodules.audio_files import AudioReader
from datamodules.audio_sources import AudioSource, Utterance, one_line, split_lines
from datamodules.seeding import hash_text

COMMENT = "Synthetic speech, made to train on: nobody said this"


class Voice(NamedTuple):
    """A voice to speak with."""

    name: str
    style: NDArray[np.float32]
    language: str


class VoiceSynthesizer(ABC):
    """Text to speech in more than one voice.

    Attributes:
        sample_rate: Hz of what it says.
    """

    sample_rate: int

    @abstractmethod
    def draw_voice(self, generator: np.random.Generator) -> Voice:
        """Choose a voice at random."""

    @abstractmethod
    def speak(self, text: str, voice: Voice, speed: float) -> NDArray[np.float32]:
        """Say a text.

        Args:
            text: What to say.
            voice: Who says it.
            speed: 1 is the voice's own; 2 takes half the time at the same pitch.

        Returns:
            Mono audio in [-1, 1], ``[N]``.

        Raises:
            ValueError: Nothing of the text can be said.
        """


class KokoroSynthesizer(VoiceSynthesizer):
    """Kokoro-82M by the package ``kokoro-onnx``; every other voice is a mixture of two of the same kind.

    Args:
        model: The network, an ONNX file such as ``kokoro-v1.0.onnx`` of that package's releases.
        voices: Its voices, such as ``voices-v1.0.bin``: NumPy tables ``[510, 1, 256]`` by names like ``af_heart``.
        kinds: Which voices to draw from, by the first two letters of their names, and how often: American and British
            women and men. Others speak English with an accent.
        leave_out: Voices not to draw; ``af_nicole`` whispers.

    Raises:
        ImportError: At first use: the package is missing.
        FileNotFoundError: At first use: one of the files is.
    """

    sample_rate = 24_000

    def __init__(
        self,
        model: str,
        voices: str,
        kinds: Mapping[str, float] | None = None,
        leave_out: Sequence[str] = ("af_nicole",),
    ) -> None:
        self.model = model
        self.voices = voices
        self.kinds = dict(kinds or {"af": 11, "am": 9, "bf": 4, "bm": 4})
        self.leave_out = frozenset(leave_out)

    def draw_voice(self, generator: np.random.Generator) -> Voice:
        """Choose a voice, or a mixture of two, at random."""
        kinds, shares = zip(*sorted(self.kinds.items()), strict=True)
        kind = kinds[generator.choice(len(kinds), p=np.divide(shares, sum(shares)))]
        one, other = generator.choice(self._names[kind], size=2)
        share = float(generator.choice([0.0, 0.0, 0.35, 0.5]))
        style = (1 - share) * self._styles[one] + share * self._styles[other]
        name = str(one) if share == 0 or one == other else f"{one}-{other}-{share:g}"
        return Voice(name, style.astype(np.float32), "en-gb" if kind.startswith("b") else "en-us")

    def speak(self, text: str, voice: Voice, speed: float) -> NDArray[np.float32]:
        """Say a text; see the base class."""
        audio, sample_rate = self._kokoro.create(text, voice=voice.style, speed=speed, lang=voice.language)
        if sample_rate != self.sample_rate:
            raise ValueError(f"{self.model} speaks at {sample_rate} Hz, not at {self.sample_rate} like Kokoro-82M")
        return audio

    @cached_property
    def _styles(self) -> dict[str, NDArray[np.float32]]:
        if not Path(self.voices).is_file():
            raise FileNotFoundError(f"{self.voices} is no file; give Kokoro's voices, such as voices-v1.0.bin")
        with np.load(self.voices, allow_pickle=False) as tables:
            return {name: tables[name] for name in sorted(tables.files)}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        names = defaultdict(list)
        for name in self._styles:
            if name not in self.leave_out:
                names[name[:2]].append(name)
        if missing := sorted(set(self.kinds) - set(names)):
            raise ValueError(f"{self.voices} has no voices of the kind {missing[0]!r}, only of {sorted(names)}")
        return dict(names)

    @cached_property
    def _kokoro(self) -> Any:
        if not Path(self.model).is_file():
            raise FileNotFoundError(f"{self.model} is no file; give Kokoro's network, such as kokoro-v1.0.onnx")
        try:
            package = importlib.import_module("kokoro_onnx")
        except ImportError as error:
            raise ImportError(f"kokoro-onnx cannot be imported ({error}); pip install '.[speak]'") from error
        return package.Kokoro(self.model, self.voices)


class SpokenText(AudioSource):
    """Sentences that a synthesiser says, each in a voice, at a speed and through a microphone of its own.

    What is missing in the folder is spoken in ``prepare``, file by file: a run that was stopped goes on where it was.
    Everything follows from the seed and the sentence itself, so that sentences may be added and their order changed.

    Args:
        sentences: A text file with a sentence on each line. One that occurs twice is spoken once.
        folder: Where the recordings lie, FLAC files.
        synthesizer: Who speaks.
        sample_rate: Of the files, in Hz.
        vocal_tract: Range of the factor by which a voice is played faster, pitch and formants along, while the
            synthesiser speaks the more slowly: a smaller or larger person.
        speed: Range of the rate of speaking.
        tilt_db: Largest tilt of the spectrum, in dB per octave, up or down.
        snr_db: Range of the loudness of speech above noise, in dB.
        peak: Range of the largest sample.
        seed: Of all these draws.

    Raises:
        FileNotFoundError: At first use: there is no such text.
        ValueError: A range is none; at first use: the text is empty.
    """

    def __init__(
        self,
        sentences: str,
        folder: str,
        synthesizer: VoiceSynthesizer,
        sample_rate: int = 16_000,
        vocal_tract: tuple[float, float] = (0.87, 1.16),
        speed: tuple[float, float] = (0.85, 1.2),
        tilt_db: float = 2.5,
        snr_db: tuple[float, float] = (28.0, 60.0),
        peak: tuple[float, float] = (0.25, 0.9),
        seed: int = 0,
    ) -> None:
        ranges = {"vocal_tract": vocal_tract, "speed": speed, "snr_db": snr_db, "peak": peak}
        for name, (low, high) in ranges.items():
            if not 0 < low <= high:
                raise ValueError(f"{name}={[low, high]} is no range of positive numbers")
        if peak[1] > 1 or tilt_db < 0:
            raise ValueError(f"peak={list(peak)} must not be above 1, nor tilt_db={tilt_db} below 0")
        self.sentences = sentences
        self.folder = folder
        self.synthesizer = synthesizer
        self.sample_rate = sample_rate
        self.vocal_tract = vocal_tract
        self.speed = speed
        self.tilt_db = tilt_db
        self.snr_db = snr_db
        self.peak = peak
        self.seed = seed

    def __len__(self) -> int:
        """Count the sentences."""
        return len(self._texts)

    def __getitem__(self, index: int) -> Utterance:
        """Return an utterance; ``prepare`` has spoken it."""
        return self._utterances[index]

    def prepare(self) -> None:
        """Speak what is not spoken yet.

        Raises:
            OSError: The disk is full, or the folder cannot be written; what is there stays.
        """
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        missing = [utterance for utterance in self if not Path(utterance.path).exists()]
        silent = []
        for utterance in tqdm(missing, desc=f"Speaking into {self.folder}", unit=" sentences", disable=not missing):
            try:
                audio = self._record(utterance.text)
            except ValueError as error:
                silent.append(f"{utterance.text!r} ({error})")
                continue
            write_audio(Path(utterance.path), audio, self.sample_rate, comment=COMMENT, title=utterance.id)
        if silent:
            rank_zero_warn(f"{len(silent)} sentences could not be spoken and are left out, the first: {silent[0]}")

    def _record(self, text: str) -> NDArray[np.float32]:
        generator = self._generator(text)
        voice = self.synthesizer.draw_voice(generator)
        faster = generator.uniform(*self.vocal_tract)
        audio = self.synthesizer.speak(text, voice, generator.uniform(*self.speed) / faster)
        if not np.isfinite(audio).all() or np.abs(audio).max(initial=0.0) < AudioReader.silence_threshold:
            raise ValueError("it is silent")
        audio = soxr.resample(audio, self.synthesizer.sample_rate * faster, self.sample_rate)
        audio = tilted(audio, self.sample_rate, generator.uniform(-self.tilt_db, self.tilt_db))
        audio = audio * (generator.uniform(*self.peak) / np.abs(audio).max())
        noise = generator.normal(size=len(audio)) * 10 ** (-generator.uniform(*self.snr_db) / 20)
        audio = audio + noise * np.sqrt(np.mean(audio**2))
        return (audio / max(1.0, np.abs(audio).max())).astype(np.float32)

    def _generator(self, text: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, hash_text(text)])

    @cached_property
    def _utterances(self) -> list[Utterance]:
        return [self._utterance(text) for text in self._texts]

    def _utterance(self, text: str) -> Utterance:
        id = f"{hash_text(f'{self.seed} {text}'):016x}"
        voice = self.synthesizer.draw_voice(self._generator(text))
        return Utterance(id, path=str(Path(self.folder) / f"{id}.flac"), speaker=voice.name, text=text)

    @cached_property
    def _texts(self) -> list[str]:
        file = Path(self.sentences)
        if not file.is_file():
            raise FileNotFoundError(f"{file} is no file; give a text with a sentence on each line")
        lines = (one_line(line) for line in split_lines(file.read_text(encoding="utf-8-sig")))
        texts = list(dict.fromkeys(line for line in lines if line))
        if not texts:
            raise ValueError(f"{file} holds no sentence")
        return texts


def tilted(audio: NDArray[np.floating], sample_rate: int, tilt_db: float) -> NDArray[np.float64]:
    """Tilt a spectrum around 1 kHz, as microphones and rooms do; below 100 Hz it stays as it is there.

    Args:
        audio: ``[N]``.
        sample_rate: Hz.
        tilt_db: dB per octave; above 0 is brighter.

    Returns:
        The audio, ``[N]``.
    """
    spectrum = np.fft.rfft(audio)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(audio), 1 / sample_rate), 100.0) / 1000.0)
    return np.fft.irfft(spectrum * 10 ** (tilt_db * octaves / 20), len(audio))
