"""The configurations of codecs name what exists."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from modules.codec import AudioCodec, LyraCodec
from pipeline.cli import main

CONFIGS = Path(__file__).parents[3] / "configs" / "codec"


@pytest.mark.parametrize("name", ["dac_16khz", "encodec_24khz", "lyra", "mimi", "xcodec_16khz"])
def test_a_codec_is_a_fragment_for_any_stage(name, tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(AudioCodec, "codec")
    (tmp_path / "stage.yaml").write_text(f"codec: {CONFIGS / name}.yaml")
    parsed = parser.parse_args(["--config", str(tmp_path / "stage.yaml")])
    assert parsed.codec.class_path == yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["class_path"]


@pytest.mark.parametrize(("name", "kind"), [("encodec_24khz", "encodec"), ("mimi", "mimi"), ("xcodec_16khz", "xcodec")])
def test_a_codec_is_built_from_its_file(name, kind, tiny_folders):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("codec", type=AudioCodec)
    fragment = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    fragment["init_args"] = {"model": str(tiny_folders(kind))}
    codec = parser.instantiate_classes(parser.parse_object({"codec": fragment})).codec
    assert type(codec).__name__ == fragment["class_path"].rpartition(".")[2]


def test_the_hub_ids_are_the_classes_own():
    for name in ("dac_16khz", "encodec_24khz", "mimi", "xcodec_16khz"):
        fragment = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        module, _, class_name = fragment["class_path"].rpartition(".")
        codec_class = getattr(__import__(module, fromlist=[class_name]), class_name)
        assert fragment["init_args"]["model"] == codec_class.default_model


def test_lyras_quantiser_is_fitted_from_the_command_line(tiny_folders, tmp_path, monkeypatch):
    speech = CONFIGS.parents[1] / "datamodules" / "demo_speech" / "audio"
    monkeypatch.chdir(tmp_path)
    main(
        [
            "fit",
            f"-c={CONFIGS / 'lyra_rvq.yaml'}",
            "--trainer.enable_progress_bar=false",
            f"--model.init_args.folder={tiny_folders('lyra')}",
            "--model.init_args.codebook_size=16",
            "--model.init_args.max_frames=1000",
            "--model.init_args.iterations=2",
            f"--data.init_args.source.init_args.path={speech}",
        ]
    )
    codec = LyraCodec(tiny_folders("lyra"), "runs/lyra_rvq/rvq_12x1024.safetensors")
    assert (codec.num_quantizers, codec.codebook_size) == (12, 16)
