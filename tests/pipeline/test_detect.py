"""Detection from the command line: audio sets in, a trained classifier and its error rates out."""

from pathlib import Path

import numpy as np
import soundfile
import yaml

from datamodules.generated_set import GeneratedCard, GeneratedRow, GeneratedSetWriter, audio_path, merge_parts
from pipeline.cli import main

RATE = 16_000
CONFIG = "configs/evaluate/detection.yaml"
ROOT = Path(__file__).parents[2]


def test_a_detector_is_fitted_exported_and_tested_on_other_speakers(tmp_path, capsys):
    random = np.random.default_rng(0)
    writers = {
        "reconstruction": GeneratedSetWriter(tmp_path / "rec", GeneratedCard("reconstruction", "reference", RATE, {})),
        "prompted": GeneratedSetWriter(tmp_path / "gen", GeneratedCard("soundstorm", "prompted", RATE, {})),
    }
    lines = ["id,path,text,speaker"]
    for speaker in "abcdef":
        audio = random.normal(0, 0.1, 2 * RATE)
        soundfile.write(tmp_path / f"{speaker}.wav", audio, RATE)
        lines.append(f"{speaker},{speaker}.wav,hello,{speaker}")
        for writer in writers.values():
            card = writer.card
            row = GeneratedRow(
                speaker, audio_path(speaker), "", speaker, 100, 0.0, 2.0, RATE, 1, card.system, card.condition
            )
            writer.write(row, audio / 2)
    for writer in writers.values():
        writer.close()
        merge_parts(writer.folder)
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    values = yaml.safe_load((ROOT / CONFIG).read_text())
    values["trainer"] |= {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False, "logger": False}
    values["trainer"] |= {"enable_model_summary": False, "default_root_dir": str(tmp_path)}
    checkpoint, _, exporter = values["trainer"]["callbacks"]
    checkpoint["init_args"]["dirpath"] = str(tmp_path)
    exporter["init_args"]["folder"] = str(tmp_path / "scorer")
    values["model"]["init_args"]["network"]["init_args"] |= {"dim": 16, "num_heads": 2, "num_layers": 1}
    values["data"]["init_args"] |= {
        "systems": {"reconstruction": str(tmp_path / "rec"), "prompted": str(tmp_path / "gen")},
        "reference": {
            "class_path": "datamodules.audio.AudioManifest",
            "init_args": {"path": str(tmp_path / "manifest.csv")},
        },
        "num_workers": 0,
        "reference_prompt_seconds": 0.0,
    }
    (tmp_path / "detection.yaml").write_text(yaml.safe_dump(values))
    main(["fit", "-c", str(tmp_path / "detection.yaml")])
    assert (tmp_path / "scorer" / "model.safetensors").is_file()
    capsys.readouterr()
    main(["test", "-c", str(tmp_path / "detection.yaml"), "--ckpt_path", str(tmp_path / "best.ckpt")])
    printed = capsys.readouterr().out
    for name in ("test/accuracy", "test/eer", "test/accuracy_generated", "test/eer_generated", "test/unjudged"):
        assert name in printed
