"""The demo refuses what it cannot use before it touches what an earlier one made."""

import sys
from pathlib import Path

import pytest
import yaml

from modules.semantic import Posterior
from modules.soundstorm import DecodingSchedule
from pipeline import demo
from pipeline.cli import console

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for name in ("configs/soundstorm/demo.yaml", "runs/demo/other_voice.flac", "mine.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "none.wav", "--voice", "mine.wav"], "SOURCE: none.wav is no file"),
        (["--source", "mine.wav", "--voice", "runs"], "VOICE: runs is no file"),
        (["--source", "runs/demo/other_voice.flac", "--voice", "mine.wav"], "SOURCE: .* lies in runs/demo"),
    ],
)
def test_a_recording_of_no_use_costs_nothing_that_is_there(checkout, monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["demo", *arguments])
    with pytest.raises(SystemExit, match=f"soundstorm: {message}"):
        console(demo.main)
    assert (checkout / "runs/demo/other_voice.flac").exists()


def test_its_table_is_of_what_generate_speaks_with():
    stages = dict(demo.stages(demo.SOURCE, demo.VOICE, fit=False))
    config = yaml.safe_load((ROOT / demo.SYSTEM / "config.yaml").read_text())
    for title in ("Generate from semantic tokens alone", "Generate after 3 s of the voice"):
        (option,) = [a for a in stages[title] if a.startswith("--model.init_args.schedule=")]
        said = yaml.safe_load((ROOT / option.partition("=")[2]).read_text())
        assert DecodingSchedule(**said) == DecodingSchedule(**config["schedule"])
        assert "--model.init_args.soft_semantic=true" in stages[title]
    tokenized = yaml.safe_load((ROOT / "configs/tokenize/demo.yaml").read_text())["model"]["init_args"]["soft"]
    assert Posterior(**tokenized) == Posterior(**config["soft_semantic"])
