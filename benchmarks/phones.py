"""How well semantic tokenizers tell the phones of transcribed English speech apart.

python -m benchmarks.phones --tokenizer checkpoints/small-16k/semantic --train data/train.csv --test data/test.csv

Phones are aligned by PocketSphinx (pip install '.[phones]'). The most frequent phone of each token is taken from
--train and held against --test, which should be of other speakers; purities and mutual information are of --test alone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.measure import arguments, report
from datamodules.audio import AudioManifest
from datamodules.audio_files import AudioReader, UnusableAudio
from modules.semantic import SemanticTokenizer
from modules.semantic.phones import PhoneAligner, phone_agreement, phones_of_frames

ROOT = Path(__file__).parents[1]


def read_phones(manifest: str, clips: int, min_seconds: float) -> Iterator[tuple[torch.Tensor, Sequence[Any]]]:
    """Give audio and phones of clips with a transcript, spread evenly over a manifest."""
    source, align = AudioManifest(manifest), PhoneAligner()
    reader = AudioReader(align.sample_rate, min_seconds=min_seconds)
    listed = [utterance for utterance in source if utterance.text]
    chosen = listed[:: max(1, len(listed) // clips)][:clips] if clips else listed
    left_out = 0
    for utterance in tqdm(chosen, desc=f"Aligning {manifest}"):
        try:
            audio = reader(utterance.file)
        except UnusableAudio:
            left_out += 1
            continue
        phones = align(audio, utterance.text)
        if phones:
            yield audio, phones
        else:
            left_out += 1
    print(f"{manifest}: {left_out} of {len(chosen)} clips left out: unusable, too short, or not aligned")


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    demo = str(ROOT / "datamodules/demo_speech/manifest.csv")
    options = arguments(
        __doc__,
        tokenizer={"nargs": "+", "default": [str(ROOT / "checkpoints/small-16k/semantic")]},
        train={"default": demo, "help": "Manifest that gives each token its phone."},
        test={"default": demo, "help": "Manifest to measure on."},
        clips={"type": int, "default": 400, "help": "At most so many of each manifest; 0 for all."},
        min_seconds={"type": float, "default": 1.0},
    )
    clips = 2 if options.tiny else options.clips
    speech = {name: list(read_phones(getattr(options, name), clips, options.min_seconds)) for name in ("train", "test")}
    rows: list[dict[str, Any]] = []
    for folder in options.tokenizer:
        tokenizer = SemanticTokenizer.from_pretrained(folder)
        tokens: dict[str, list[int]] = {"train": [], "test": []}
        names: dict[str, list[str]] = {"train": [], "test": []}
        for part, recordings in speech.items():
            for audio, phones in recordings:
                found = tokenizer.encode(audio[None])[0].tolist()
                tokens[part] += found
                names[part] += phones_of_frames(phones, len(found), tokenizer.frame_rate)
        agreement = phone_agreement(tokens["test"], names["test"], (tokens["train"], names["train"]))
        rows.append({"tokenizer": folder, "frames": len(tokens["test"]), **agreement._asdict()})
    report(rows, options.json, "Semantic tokens and phones")


if __name__ == "__main__":
    main()
