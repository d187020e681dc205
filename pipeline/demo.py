"""The whole chain on the small corpus of this repository, offline: what ``make demo`` runs."""

import os
import shutil
import time
from pathlib import Path

RUN = Path("runs/demo")
CHECKPOINT = RUN / "soundstorm" / "checkpoints" / "last.ckpt"
STAGES = (
    ("Fit the semantic codebook: k-means on log-mel spectra", ["fit", "-c", "configs/semantic/logmel_demo.yaml"]),
    ("Tokenize the corpus", ["predict", "-c", "configs/tokenize/demo.yaml"]),
    ("Fit SoundStorm for two minutes", ["fit", "-c", "configs/soundstorm/demo.yaml"]),
    ("Decode the codec's own tokens", ["predict", "-c", "configs/generate/demo_reconstruction.yaml"]),
    (
        "Generate unprompted",
        ["predict", "-c", "configs/generate/demo_unprompted.yaml", "--ckpt_path", str(CHECKPOINT)],
    ),
    (
        "Generate with a prompt of 3 s",
        ["predict", "-c", "configs/generate/demo_prompted.yaml", "--ckpt_path", str(CHECKPOINT)],
    ),
    ("Evaluate", ["test", "-c", "configs/evaluate/demo.yaml"]),
    ("Report", ["report", str(RUN / "results"), "--output", str(RUN / "report")]),
)


def main() -> None:
    """Run every stage as its command would, and say where everything is.

    Raises:
        FileNotFoundError: The working directory is not a checkout of the repository.
    """
    if not Path("configs/soundstorm/demo.yaml").is_file():
        raise FileNotFoundError(
            "configs/soundstorm/demo.yaml is not here: run the demo from the root of the repository"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Importing takes seconds, and the first line should not.
    print("SoundStorm demo: the whole chain on real audio, offline. About five minutes on two cores.", flush=True)
    from pipeline.cli import main as run

    # The tokens of an earlier demo belong to another codebook.
    shutil.rmtree(RUN, ignore_errors=True)
    started = time.monotonic()
    for number, (title, arguments) in enumerate(STAGES, start=1):
        print(f"\n=== {number}/{len(STAGES)} {title}\n$ soundstorm {' '.join(arguments)}", flush=True)
        run(arguments)
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. Look and listen:\n"
        f"  {RUN / 'report' / 'index.html'}   table, spectrograms, players\n"
        f"  {RUN / 'audio'}   all generated audio, FLAC\n"
        f"  tensorboard --logdir {RUN}   curves, audio samples during training"
    )


if __name__ == "__main__":
    main()
