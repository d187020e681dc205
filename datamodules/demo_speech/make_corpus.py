"""Speak the sentences of `texts.csv` with Kokoro-82M and write the demo corpus beside this file.

Needs `pip install kokoro-onnx soundfile soxr numpy` (kokoro-onnx brings onnxruntime and espeak-ng), best in an
environment of its own, and a folder with one ONNX export of Kokoro-82M (`*.onnx`, 24 kHz) and its voices
(`voices*.npz` or `voices*.bin`), for instance the files of the kokoro-onnx release `model-files-v1.0`. Then, some six
minutes on two cores:

    python datamodules/demo_speech/make_corpus.py KOKORO_FOLDER --jobs 2

A clip is kept when the manifest already lists it with the same text, and made anew otherwise, so after an edit of
`texts.csv` only the sentences that changed are spoken; delete the manifest to speak all of them again. The synthesis is
deterministic on one machine and model file.
"""

import argparse
import csv
import importlib
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile
import soxr

FOLDER = Path(__file__).resolve().parent
SAMPLE_RATE = 16000
KOKORO_SAMPLE_RATE = 24000
COLUMNS = ("path", "text", "speaker", "seconds")
EVERYBODY = "*"

# Our speaker ids and Kokoro's voices behind them, whose prefix is accent (a American, b British) and sex (f, m).
VOICES = {
    "ada": "af_heart",
    "bram": "am_michael",
    "cora": "af_aoede",
    "dov": "am_fenrir",
    "esme": "af_kore",
    "finn": "am_liam",
    "gwen": "af_sarah",
    "hugh": "bm_george",
    "ivy": "bf_emma",
    "jude": "bm_daniel",
    "kate": "bf_isabella",
    "luke": "bm_lewis",
}


@dataclass(frozen=True)
class Clip:
    """One recording to make.

    Attributes:
        name: Id of the clip, `<speaker>-<nnn>`.
        speaker: One of the keys of `VOICES`.
        text: What is said.
    """

    name: str
    speaker: str
    text: str

    @property
    def path(self) -> str:
        """Path of the audio relative to the manifest."""
        return f"audio/{self.name}.ogg"


class KokoroVoice:
    """Kokoro-82M as an ONNX graph: phoneme ids and a style vector to speech at 24 kHz.

    Args:
        folder: Folder with one `*.onnx` and one `voices*.npz` or `voices*.bin` (a table [phonemes, 1, 256] per voice).
        threads: Threads of one synthesis.

    Raises:
        FileNotFoundError: The folder lacks the model or the voices, or has several of them.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        # Imported here so that the trimming and levelling below can be used without a synthesiser installed.
        onnxruntime = importlib.import_module("onnxruntime")
        tokenizer = importlib.import_module("kokoro_onnx.tokenizer")

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = single_file(folder, "*.onnx")
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.styles = np.load(single_file(folder, "voices*.npz", "voices*.bin"))
        self.tokenizer = tokenizer.Tokenizer()

    def say(self, text: str, voice: str) -> np.ndarray:
        """Speak one sentence.

        Args:
            text: English, numbers written as words.
            voice: Kokoro's name of the voice; those in `b*` pronounce British English.

        Returns:
            float32 [N] at 24 kHz, with the silence that Kokoro leaves at both ends.

        Raises:
            ValueError: The sentence has more phonemes than the voice has styles.
        """
        phonemes = self.tokenizer.phonemize(text, "en-gb" if voice.startswith("b") else "en-us")
        tokens = self.tokenizer.tokenize(phonemes)
        styles = self.styles[voice]
        if len(tokens) >= len(styles):
            raise ValueError(f"{len(tokens)} phonemes, at most {len(styles) - 1} fit into one clip; shorten: {text!r}")
        # A voice is a table of styles, one for each length of utterance; 0 marks the beginning and the end.
        audio = self.session.run(
            None,
            {
                "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
                "style": styles[len(tokens)].astype(np.float32),
                "speed": np.ones(1, dtype=np.float32),
            },
        )[0]
        return np.asarray(audio, dtype=np.float32).reshape(-1)


def single_file(folder: Path, *patterns: str) -> Path:
    """Return the only file in `folder` that matches one of `patterns`.

    Raises:
        FileNotFoundError: None or several match.
    """
    found = sorted(chain.from_iterable(folder.glob(pattern) for pattern in patterns))
    if len(found) != 1:
        raise FileNotFoundError(f"{folder}: expected one file like {' or '.join(patterns)}, found {len(found)}")
    return found[0]


def trim_silence(
    audio: np.ndarray, sample_rate: int, margin_seconds: float = 0.12, threshold_db: float = -38.0
) -> np.ndarray:
    """Cut the silence at both ends down to a margin and fade the new edges.

    Args:
        audio: [N], not silent.
        sample_rate: Samples per second.
        margin_seconds: What is left before the first and after the last sound.
        threshold_db: A 10 ms frame is sound when its RMS is above this level, relative to the loudest frame.

    Returns:
        [M], M <= N.
    """
    hop = sample_rate // 100
    frames = audio[: len(audio) // hop * hop].reshape(-1, hop)
    level = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))
    (loud,) = np.nonzero(level > level.max() * 10 ** (threshold_db / 20))
    margin = round(margin_seconds * sample_rate)
    start = max(0, loud[0] * hop - margin)
    stop = min(len(audio), (loud[-1] + 1) * hop + margin)
    trimmed = audio[start:stop].copy()
    fade = np.linspace(0.0, 1.0, hop, dtype=trimmed.dtype)
    trimmed[:hop] *= fade
    trimmed[-hop:] *= fade[::-1]
    return trimmed


def level_speech(audio: np.ndarray, rms: float = 0.08, peak: float = 0.85) -> np.ndarray:
    """Scale audio [N] to a common loudness, less where its peak would pass `peak`."""
    return audio * min(rms / np.sqrt(np.mean(np.square(audio))), peak / np.abs(audio).max())


def opus_compression_level(bits_per_second: float) -> float:
    """Translate a bit rate per channel into libsndfile's compression level (0 is 256 kb/s, 1 is 6 kb/s, linear)."""
    return (256_000 - bits_per_second) / 250_000


def read_clips(texts: Path) -> list[Clip]:
    """Read the sentences: those of everybody first, then each speaker's own, numbered from 001 per speaker.

    Raises:
        ValueError: A speaker has no voice.
    """
    with texts.open(encoding="utf-8", newline="") as file:
        rows = [(row["speaker"], row["text"]) for row in csv.DictReader(file)]
    if unknown := {speaker for speaker, _ in rows} - {EVERYBODY, *VOICES}:
        raise ValueError(f"{texts}: no voice for {', '.join(sorted(unknown))}; add it to VOICES")
    clips = []
    for speaker in VOICES:
        own = [text for owner in (EVERYBODY, speaker) for name, text in rows if name == owner]
        clips += [Clip(f"{speaker}-{number:03d}", speaker, text) for number, text in enumerate(own, start=1)]
    return clips


def read_manifest(manifest: Path) -> dict[str, dict[str, str]]:
    """Return the manifest's rows by path; empty when there is none."""
    if not manifest.exists():
        return {}
    with manifest.open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def write_manifest(manifest: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write rows with the columns `COLUMNS`, replacing the file in one step."""
    partial = manifest.with_suffix(".tmp")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, manifest)


_voice: KokoroVoice | None = None


def _load_voice(kokoro: Path) -> None:
    global _voice
    _voice = KokoroVoice(kokoro)


def make_clip(clip: Clip, folder: Path, bits_per_second: float) -> dict[str, str]:
    """Speak, trim, level and encode one clip (in a worker process that has loaded the voice).

    Returns:
        The clip's row of the manifest.
    """
    assert _voice is not None
    speech = _voice.say(clip.text, VOICES[clip.speaker])
    audio = soxr.resample(speech, KOKORO_SAMPLE_RATE, SAMPLE_RATE, quality="VHQ")
    audio = level_speech(trim_silence(audio, SAMPLE_RATE))
    target = folder / clip.path
    partial = target.with_suffix(".tmp")
    soundfile.write(
        partial,
        audio,
        SAMPLE_RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=opus_compression_level(bits_per_second),
    )
    os.replace(partial, target)
    seconds = f"{len(audio) / SAMPLE_RATE:.2f}"
    return {"path": clip.path, "text": clip.text, "speaker": clip.speaker, "seconds": seconds}


def make_corpus(kokoro: Path, folder: Path, bits_per_second: float, jobs: int) -> list[dict[str, str]]:
    """Make every clip that is missing or whose text has changed, drop those no longer asked for, write the manifest.

    Args:
        kokoro: Folder of the model, see `KokoroVoice`.
        folder: Where `texts.csv` is, and `audio/` and `manifest.csv` go.
        bits_per_second: Bit rate of the Opus encoder.
        jobs: Processes, one thread each.

    Returns:
        The rows of the manifest.
    """
    manifest = folder / "manifest.csv"
    clips = read_clips(folder / "texts.csv")
    (folder / "audio").mkdir(exist_ok=True)
    rows = {
        path: row
        for path, row in read_manifest(manifest).items()
        if (folder / path).exists() and any((clip.path, clip.text) == (path, row["text"]) for clip in clips)
    }
    missing = [clip for clip in clips if clip.path not in rows]
    with ProcessPoolExecutor(jobs, initializer=_load_voice, initargs=(kokoro,)) as pool:
        futures = [pool.submit(make_clip, clip, folder, bits_per_second) for clip in missing]
        for count, future in enumerate(futures, start=1):
            row = future.result()
            rows[row["path"]] = row
            # After every clip, so that an interrupted run goes on where it stopped.
            write_manifest(manifest, [rows[clip.path] for clip in clips if clip.path in rows])
            print(f"{count}/{len(missing)} {row['path']} {row['seconds']} s", flush=True)
    for stale in set((folder / "audio").iterdir()) - {folder / clip.path for clip in clips}:
        stale.unlink()
    ordered = [rows[clip.path] for clip in clips]
    write_manifest(manifest, ordered)
    return ordered


def main() -> None:
    """Parse the command line and make the corpus."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("kokoro", type=Path, help="folder with Kokoro's *.onnx and voices*.npz or voices*.bin")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="folder of texts.csv, filled with audio/ and manifest.csv"
    )
    parser.add_argument("--kbps", type=float, default=27.0, help="Opus bit rate in kb/s")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    arguments = parser.parse_args()
    rows = make_corpus(arguments.kokoro, arguments.folder, 1000 * arguments.kbps, arguments.jobs)
    size = sum((arguments.folder / row["path"]).stat().st_size for row in rows)
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    print(f"{len(rows)} clips, {len(VOICES)} speakers, {hours:.3f} h, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
