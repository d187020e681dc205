"""How well semantic tokenizers tell the phones of transcribed English speech apart.

python -m benchmarks.phones --tokenizer checkpoints/small-16k/semantic --train data/train.csv --test data/test.csv

Phones are aligned by PocketSphinx (pip install '.[phones]'). Purities and mutual information are of --test alone. With
--train, which should be of other speakers, the most frequent phone of each token there is held against --test too.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.measure import arguments, report
from datamodules.audio import AudioManifest
from datamodules.audio_files import AudioReader, UnusableAudio
from modules.evaluation.choice import spread_evenly
from modules.semantic import SemanticTokenizer
from modules.semantic.phones import PhoneAligner, phone_agreement, phones_of_frames

ROOT = Path(__file__).parents[1]


def read_phones(manifest: str, clips: int, min_seconds: float) -> Iterator[tuple[torch.Tensor, Sequence[Any]]]:
    """Give audio and phones of clips with a transcript, spread evenly over a manifest."""
    source, align = AudioManifest(manifest), PhoneAligner()
    reader = AudioReader(align.sample_rate, min_seconds=min_seconds)
    listed = [utterance for utterance in source if utterance.text]
    chosen = spread_evenly(listed, clips or len(listed))
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
        train={"help": "Manifest that gives each token its phone; of other speakers than those of --test."},
        test={"default": demo, "help": "Manifest to measure on."},
        clips={"type": int, "default": 400, "help": "At most so many of each manifest; 0 for all."},
        min_seconds={"type": float, "default": 1.0},
    )
    clips = 2 if options.tiny else options.clips
    manifests = {part: manifest for part in ("train", "test") if (manifest := getattr(options, part))}
    speech = {part: list(read_phones(manifest, clips, options.min_seconds)) for part, manifest in manifests.items()}
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
        other = (tokens["train"], names["train"]) if "train" in speech else None
        agreement = phone_agreement(tokens["test"], names["test"], other)
        rows.append({"tokenizer": folder, "frames": len(tokens["test"]), **agreement._asdict()})
    report(rows, options.json, "Semantic tokens and phones")


if __name__ == "__main__":
    main()
