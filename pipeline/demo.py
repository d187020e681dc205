"""The chain on the small corpus of this repository, offline, with the weights that come with it: ``make demo``."""

import argparse
import os
import shutil
import time
from pathlib import Path

from pipeline import cli

SYSTEM = Path("checkpoints/small-16k")
RUN = Path("runs/demo")
SOURCE, VOICE = Path("datamodules/demo_speech/audio/hugh-001.ogg"), SYSTEM / "voices" / "one.flac"
# What `generate` speaks with, for the table too.
SHIPPED = ["--model.init_args.schedule=configs/schedule/shipped.yaml", "--model.init_args.soft_semantic=true"]
# A network of its own in the place of the one with weights.
FITTED = [
    "--model.init_args.network=configs/network/demo.yaml",
    f"--ckpt_path={RUN}/soundstorm/checkpoints/last.ckpt",
]


def stages(source: Path, voice: Path, fit: bool) -> list[tuple[str, list[str]]]:
    """List what the demo does: a title, and the arguments of ``soundstorm``.

    Args:
        source: Recording that is said again.
        voice: Recording whose voice says it.
        fit: Whether to train a network for two minutes instead of taking the one with weights.
    """
    weights = FITTED if fit else SHIPPED
    chain = [
        ("Tokenize the corpus", ["predict", "-c", "configs/tokenize/demo.yaml"]),
        ("Decode the codec's own tokens", ["predict", "-c", "configs/generate/demo_reconstruction.yaml"]),
        ("Generate from semantic tokens alone", ["predict", "-c", "configs/generate/demo_unprompted.yaml", *weights]),
        ("Generate after 3 s of the voice", ["predict", "-c", "configs/generate/demo_prompted.yaml", *weights]),
        ("Evaluate", ["test", "-c", "configs/evaluate/demo.yaml"]),
        ("Report", ["report", f"{RUN}/results", f"--output={RUN}/report"]),
    ]
    if fit:
        chain.insert(1, ("Fit SoundStorm for two minutes", ["fit", "-c", "configs/soundstorm/demo.yaml"]))
        return chain
    say = ["generate", f"--model={SYSTEM}", f"--source={source}"]
    own = [f"--out={RUN}/any_voice.flac", f"--picture={RUN}/any_voice.gif"]
    other = [f"--voice={voice}", f"--out={RUN}/other_voice.flac", f"--picture={RUN}/other_voice.gif"]
    return [
        (f"Say what {source.name} says, in a voice drawn at random", [*say, *own]),
        (f"Say it in the voice of {voice.name}", [*say, *other]),
        *chain,
    ]


def main() -> None:
    """Run every stage as its command would, and say where everything is.

    Raises:
        FileNotFoundError: The working directory is not a checkout of the repository, or a recording is not there.
        ValueError: A recording lies among what an earlier demo made, which this one replaces.
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.demo", description=__doc__)
    parser.add_argument("--source", type=Path, default=SOURCE, help="recording that is said again")
    parser.add_argument("--voice", type=Path, default=VOICE, help="recording whose voice says it")
    parser.add_argument("--fit", action="store_true", help="train a network of its own for two minutes")
    options = parser.parse_args()
    if not Path("configs/soundstorm/demo.yaml").is_file():
        raise FileNotFoundError(
            "configs/soundstorm/demo.yaml is not here: run the demo from the root of the repository"
        )
    for name, file in (("SOURCE", options.source), ("VOICE", options.voice)):
        if not file.is_file():
            raise FileNotFoundError(f"{name}: {file} is no file; give a recording")
        if RUN.resolve() in file.resolve().parents:
            raise ValueError(f"{name}: {file} lies in {RUN}, which is made anew; copy it elsewhere first")
    os.environ["HF_HUB_OFFLINE"] = "1"
    print("SoundStorm demo, offline: about three minutes on two CPU cores.", flush=True)
    # What an earlier demo made may be of other weights.
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    started = time.monotonic()
    chosen = stages(options.source, options.voice, options.fit)
    for number, (title, arguments) in enumerate(chosen, start=1):
        print(f"\n=== {number}/{len(chosen)} {title}\n$ soundstorm {' '.join(arguments)}", flush=True)
        cli.main(arguments)
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. Look and listen:\n"
        f"  {RUN}/report/index.html   table, spectrograms, players\n"
        f"  {RUN}/audio   all audio of the table, FLAC"
    )
    if options.fit:
        print(f"  tensorboard --logdir {RUN}   curves, audio samples during training")
    else:
        print(
            f"  {RUN}/any_voice.flac, other_voice.flac   {options.source} said again\n"
            f"  {RUN}/any_voice.gif, other_voice.gif   tokens filling up, pass by pass"
        )


if __name__ == "__main__":
    cli.console(main)
