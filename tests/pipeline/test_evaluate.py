"""Evaluation from the command line: audio sets in, table and page out."""

import numpy as np
import pytest
import soundfile
import yaml

from datamodules.generated_set import GeneratedCard, GeneratedRow, GeneratedSetWriter, audio_path, merge_parts
from pipeline.cli import main

RATE = 16_000


@pytest.fixture
def config(tmp_path):
    """Two recordings of 5 s and a system that speaks at half their level, and the file that evaluates it."""
    writer = GeneratedSetWriter(tmp_path / "set", GeneratedCard("soundstorm", "prompted", RATE, {}))
    random = np.random.default_rng(0)
    for id in ("ann-1", "ann-2"):
        audio = random.normal(0, 0.1, 5 * RATE)
        soundfile.write(tmp_path / f"{id}.wav", audio, RATE)
        row = GeneratedRow(id, audio_path(id), "hello", "ann", 250, 3.0, 5.0, RATE, 1, "soundstorm", "prompted")
        writer.write(row, audio / 2)
    writer.close()
    merge_parts(tmp_path / "set")
    (tmp_path / "manifest.csv").write_text("path,text,speaker\nann-1.wav,hello,ann\nann-2.wav,hello,ann\n")
    recognizer = {"class_path": "modules.evaluation.WhisperRecognizer", "init_args": {"model": "nobody/no-model"}}
    values = {
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(tmp_path),
            "callbacks": [
                {
                    "class_path": "callbacks.results_writer.ResultsWriter",
                    "init_args": {"output_dir": str(tmp_path / "results")},
                },
                {"class_path": "pipeline.report_writer.ReportWriter"},
            ],
        },
        "model": {
            "class_path": "modules.evaluation.EvaluationModule",
            "init_args": {
                "on_missing": "skip",
                "scorers": [
                    {"class_path": "modules.evaluation.MelDistance"},
                    {"class_path": "modules.evaluation.WordErrors", "init_args": {"recognizer": recognizer}},
                ],
            },
        },
        "data": {
            "class_path": "datamodules.generated.GeneratedAudioDataModule",
            "init_args": {
                "systems": {"prompted": str(tmp_path / "set")},
                "reference": {
                    "class_path": "datamodules.audio.AudioManifest",
                    "init_args": {"path": str(tmp_path / "manifest.csv")},
                },
            },
        },
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path / "evaluate.yaml"


def test_prints_the_table_and_leaves_a_page(config, tmp_path, capsys):
    with pytest.warns(UserWarning, match="scorer 'wer' is left out: 'nobody/no-model' cannot be loaded"):
        main(["test", "-c", str(config)])
    printed = capsys.readouterr().out
    [line] = [line for line in printed.splitlines() if line.startswith("| Mel distance dB")]
    original, prompted = (float(cell) for cell in line.split("|")[2:4])
    assert original == 0
    assert prompted == pytest.approx(6.02, abs=0.05)
    assert (
        "WER %; CER %; WER %, mean of utterances; CER %, mean of utterances: Not measured: 'nobody/no-model'" in printed
    )
    assert "test/soundstorm-prompted" not in printed  # no second table, of Lightning's
    assert (tmp_path / "results" / "report" / "index.html").read_text().count("<audio") == 4


def test_one_bad_setting_is_named(config, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no audio set"):
        main(["test", "-c", str(config), "--data.init_args.systems.prompted", str(tmp_path / "nowhere")])


def test_stops_where_a_scorer_must_not_be_missing(config, tmp_path):
    with pytest.raises(RuntimeError, match="scorer 'wer': 'nobody/no-model' cannot be loaded"):
        main(["test", "-c", str(config), "--model.init_args.on_missing", "error"])
    assert not (tmp_path / "results" / "results.jsonl").exists()
