"""What a user sees for each kind of bad input: a message that names the input and the remedy.

The first table goes through the command line, as `soundstorm <arguments>` does; the second through Python.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import fits
import test_writers as made

from callbacks.checkpoint_io import AtomicCheckpointIO
from datamodules.audio import AudioDataModule, AudioFolder, AudioManifest
from datamodules.audio_files import AudioReader
from datamodules.generated_set import GeneratedCard, read_rows
from datamodules.token_set import TokenSetCard, TokenSetWriter, open_token_set
from datamodules.tokens import TokenDataModule
from modules.batches import TokenBatch
from modules.codec.residual_vq import ResidualVQ
from modules.semantic import SemanticTokenizer
from modules.soundstorm import DecodingSchedule, SoundStormNetwork, decode
from pipeline.cli import console


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one thing wrong of every kind; tests run in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOUNDSTORM_DEBUG", raising=False)
    config = fits.configuration(tmp_path, "run", fits.ADAMW, 0, ())
    config["trainer"] |= {"callbacks": [], "max_steps": 1, "enable_checkpointing": False}
    Path("fit.yaml").write_text(yaml.safe_dump(config))
    Path("broken.yaml").write_text("trainer: [1, 2\nmodel: }")
    Path("noise.ckpt").write_bytes(b"not a checkpoint")
    torch.save({"state_dict": made.Malice()}, "malice.ckpt")
    Path("empty").mkdir()
    Path("token_set").mkdir()
    with TokenSetWriter("token_set", made.CARD) as writer:
        made.add(writer, 3)
    Path("quiet").mkdir()
    soundfile.write("quiet/a.wav", np.zeros(16_000), 16_000)
    soundfile.write("short.wav", np.ones(100) * 0.1, 16_000)
    soundfile.write("long.wav", np.ones(16_000 * 70) * 0.1, 16_000)
    soundfile.write("nan.wav", np.full(16_000, np.nan, dtype=np.float32), 16_000, subtype="FLOAT")
    Path("nothing.wav").write_bytes(b"")
    Path("noise.wav").write_bytes(b"RIFF but no more")
    Path("twice.csv").write_text("id,path\na,quiet/a.wav\na,quiet/b.wav\n")
    Path("doubled.csv").write_text("path\nquiet/a.wav\nquiet/a.wav\n")
    Path("outside.csv").write_text("path\n../../secret.wav\n")
    Path("ragged.csv").write_text("path,text\na.wav,b,c\n")
    Path("columns.csv").write_text("file\na.wav\n")
    Path("bad.jsonl").write_text('{"path": "a.wav"}\n{"path": \n')
    Path("list.xlsx").write_text("path\n")
    return tmp_path


TOKENS = ["--data=datamodules.tokens.TokenDataModule", "--data.init_args.validation_split=null"]
COMMANDS = {
    "no such config file": (["fit", "-c", "none.yaml"], "none.yaml"),
    "config that is no YAML": (["fit", "-c", "broken.yaml"], "broken.yaml"),
    "unknown subcommand": (["train"], "fit"),
    "unknown option": (["fit", "-c", "fit.yaml", "--trainer.max_stepz=3"], "max_stepz"),
    "value of the wrong type": (["fit", "-c", "fit.yaml", "--trainer.max_steps=many"], "many"),
    "unknown class": (["fit", "-c", "fit.yaml", "--model=modules.soundstorm.SoundStrom"], "SoundStrom"),
    "class of another kind": (["fit", "-c", "fit.yaml", "--model=torch.nn.Linear"], "torch.nn.Linear"),
    "network that cannot be built": (
        ["fit", "-c", "fit.yaml", "--model.init_args.network.init_args.num_heads=3"],
        "dim=16 does not split into num_heads=3",
    ),
    "even kernel": (
        ["fit", "-c", "fit.yaml", "--model.init_args.network.init_args.conv_kernel_size=4"],
        "conv_kernel_size=4 must be odd",
    ),
    "sizes that differ from the data's": (
        ["fit", "-c", "fit.yaml", "--model.init_args.network.init_args.codebook_size=99"],
        "set codebook_size=16 in the init_args of the network",
    ),
    "no such token set": (["fit", "-c", "fit.yaml", *TOKENS, "--data.init_args.token_sets=nowhere"], "nowhere is no"),
    "folder that is no token set": (
        ["fit", "-c", "fit.yaml", *TOKENS, "--data.init_args.token_sets=empty"],
        "no card.json",
    ),
    "no such split": (
        ["fit", "-c", "fit.yaml", *TOKENS, "--data.init_args.token_sets=token_set", "--data.init_args.train_split=x"],
        "no split 'x'",
    ),
    "filters that leave nothing": (
        [
            *["fit", "-c", "fit.yaml", *TOKENS, "--data.init_args.token_sets=token_set"],
            *["--data.init_args.min_seconds=20", "--data.init_args.max_seconds=30"],
            "--model.init_args.network.init_args.codebook_size=1024",
        ],
        "no utterance is left of the 3",
    ),
    "no such checkpoint": (["fit", "-c", "fit.yaml", "--ckpt_path=gone.ckpt"], "gone.ckpt"),
    "file that is no checkpoint": (["fit", "-c", "fit.yaml", "--ckpt_path=noise.ckpt"], "noise.ckpt is damaged"),
    "pickle instead of a checkpoint": (
        ["fit", "-c", "fit.yaml", "--ckpt_path=malice.ckpt"],
        "malice.ckpt is damaged or no checkpoint of plain values",
    ),
    "bad decoding setting": (
        [
            *["fit", "-c", "fit.yaml", "--model.init_args.schedule=modules.soundstorm.DecodingSchedule"],
            "--model.init_args.schedule.init_args.top_p=2",
        ],
        "top_p=2.0 must lie in (0, 1]",
    ),
    "recording in the place of the output": (
        ["generate", "--model=none", "--source=short.wav", "--out=./short.wav"],
        "short.wav is the recording that is read",
    ),
    "network without layers": (
        ["fit", "-c", "fit.yaml", "--model.init_args.network.init_args.num_layers=0"],
        "num_layers=0 must be at least 1",
    ),
    "results folder without results": (["report", "empty"], "empty"),
}


# Parsing takes a second or two each time, so that the rest runs with -m slow only.
QUICK = {
    "no such config file",
    "config that is no YAML",
    "unknown option",
    "unknown class",
    "recording in the place of the output",
    "no such token set",
    "pickle instead of a checkpoint",
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in COMMANDS]
)
def test_the_command_line_says_what_is_wrong(folder, monkeypatch, capsys, case):
    arguments, wanted = COMMANDS[case]
    monkeypatch.setattr(sys, "argv", ["soundstorm", *arguments])
    with pytest.raises(SystemExit) as stop:
        console()
    assert stop.value.code not in (0, None)
    shown = f"{stop.value.code}\n{capsys.readouterr().err}"
    assert wanted in shown
    assert "Traceback" not in shown
    assert not Path("pwned").exists()


def read(name):
    return lambda: AudioReader(16_000)(Path(name))


def manifest(name, **options):
    return lambda: len(AudioManifest(name, text_column=None, speaker_column=None, **options))


def network():
    return SoundStormNetwork(dim=8, num_layers=1, num_heads=1, ffn_dim=8, **fits.SIZES)


def tokens(*values):
    return torch.tensor([values])


def card(**values):
    Path("token_set/card.json").write_text(json.dumps(made.CARD.__dict__ | values))
    return TokenSetCard.load("token_set")


def other_card():
    TokenSetWriter("token_set", TokenSetCard({"name": "other"}, {"name": "s"}, 16000, 50.0, 2, 1024, 64))


def cut_shard():
    [shard] = Path("token_set/data").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-100])
    open_token_set("token_set")


def uneven_row():
    TokenSetWriter("token_set", made.CARD).write("u", np.zeros(3, dtype=int), np.zeros((2, 4), dtype=int))


def large_token():
    TokenSetWriter("token_set", made.CARD).write("u", np.zeros(3, dtype=int), np.full((2, 3), 1024))


def audio_set():
    GeneratedCard("s", "c", 16_000, {}).save(Path("set"))
    Path("set/manifest.jsonl").write_text('{"id": "a"}\n')
    read_rows(Path("set"))


CALLS = {
    "audio: no such file": (read("gone.wav"), "is missing"),
    "audio: empty file": (read("nothing.wav"), "is empty: 0 bytes"),
    "audio: no audio": (read("noise.wav"), "cannot be read as audio"),
    "audio: too short": (read("short.wav"), "shorter than min_seconds"),
    "audio: too long": (read("long.wav"), "set segment_seconds"),
    "audio: silence": (read("quiet/a.wav"), "is silent"),
    "audio: NaN": (read("nan.wav"), "NaN or infinite"),
    "folder without audio": (lambda: len(AudioFolder("empty")), "empty holds no audio"),
    "manifest: no such file": (manifest("none.csv"), "none.csv is no file"),
    "manifest: another kind of file": (manifest("list.xlsx"), "has to end in .csv, .tsv or .jsonl"),
    "manifest: a column is missing": (manifest("columns.csv"), "columns.csv line 2 has no 'path'"),
    "manifest: a row too long": (manifest("ragged.csv"), "ragged.csv is bad at line 2"),
    "manifest: broken JSON": (manifest("bad.jsonl"), "bad.jsonl is bad at line 2"),
    "manifest: a path that leads out": (manifest("outside.csv"), "outside the manifest's folder"),
    "manifest: an id that comes twice": (
        lambda: AudioDataModule(AudioManifest("twice.csv")).setup("predict"),
        "the same id 'a'",
    ),
    "manifest: a line that comes twice": (
        lambda: AudioDataModule(AudioManifest("doubled.csv")).setup("predict"),
        "quiet/a.wav is listed twice",
    ),
    "token set: newer format": (lambda: card(format_version=9), "update the software"),
    "token set: card lacks a field": (lambda: card(extra=1), "make the token set anew"),
    "token set: shard cut off": (cut_shard, "delete it and run the tokenize command again"),
    "token set: of other models": (other_card, "codec.name: 'c' and 'other'"),
    "token set: lengths that differ": (uneven_row, "u: semantic [3] and codes [2, 4]"),
    "token set: token too large": (large_token, "u: codes run from 1024 to 1024, not from 0 to 1023"),
    "audio set: damaged row": (audio_set, "manifest.jsonl line 1 is no row of an audio set"),
    "data: windows that cannot be": (
        lambda: TokenDataModule("token_set", min_seconds=9, max_seconds=3),
        "min_seconds (9) must lie between 0 and max_seconds (3)",
    ),
    "semantic tokenizer: no such folder": (
        lambda: SemanticTokenizer.from_pretrained("empty"),
        "empty is no semantic tokenizer",
    ),
    "codec: no such folder": (lambda: made.SoundStream.from_pretrained("empty"), "empty"),
    "codebooks: no such file": (lambda: ResidualVQ.load("none.safetensors"), "no codebooks at 'none.safetensors'"),
    "decoding: unknown token": (
        lambda: decode(network(), tokens(1, 99)),
        "semantic holds token ids 1..99, the network knows 0..7",
    ),
    "decoding: prompt too long": (
        lambda: decode(network(), tokens(1, 2), torch.zeros(1, 2, 5, dtype=torch.int64)),
        "semantic tokens cover prompt and target",
    ),
    "decoding: schedule for other levels": (
        lambda: decode(network(), tokens(1, 2), schedule=DecodingSchedule()),
        "iterations for 12 levels, the network has 2",
    ),
    "checkpoint: nothing there": (lambda: AtomicCheckpointIO().load_checkpoint("gone.ckpt"), "no checkpoint gone.ckpt"),
}


@pytest.mark.parametrize("case", CALLS)
def test_python_says_what_is_wrong(folder, case):
    call, wanted = CALLS[case]
    with pytest.raises((ValueError, OSError)) as error:
        call()
    message = str(error.value)
    assert wanted in message
    assert len(message.splitlines()) == 1
    assert TokenBatch  # the batches these calls are about


def test_there_are_as_many_kinds_as_promised():
    assert len(COMMANDS) + len(CALLS) >= 25
