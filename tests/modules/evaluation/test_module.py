"""The evaluation stage, from audio on disk to rows of results."""

import json
import math

import numpy as np
import pytest
import soundfile
from lightning.pytorch import Trainer

from callbacks.results_writer import ResultsWriter
from datamodules.audio_manifest import AudioManifest
from datamodules.generated import GeneratedAudioDataModule
from datamodules.generated_set import GeneratedCard, GeneratedRow, GeneratedSetWriter, audio_path, merge_parts
from modules.evaluation import (
    EvaluationModule,
    Measure,
    MelDistance,
    Scorer,
    ScorerUnavailableError,
    Scores,
    SpeakerSimilarity,
    WhisperRecognizer,
    WordErrors,
    XVectorEmbedding,
)
from modules.evaluation.choice import spread_evenly

RATE = 16_000


class Seconds(Scorer):
    """Gives the duration; NaN, without a word, for clips of 5 s."""

    sample_rate = RATE

    def __init__(self, name="seconds", missing="", higher_is_better=None):
        super().__init__()
        self.name, self.missing, self.higher_is_better = name, missing, higher_is_better

    @property
    def measures(self):
        better = {"higher_is_better": self.higher_is_better}
        return (
            Measure("rate", "Rate", "seconds", "clips", **better),
            Measure("mean", "Mean", "seconds", scale=10.0, **better),
        )

    def load(self):
        if self.missing:
            raise ScorerUnavailableError(self.missing, "buy a watch")

    def score(self, item):
        seconds = item.audio.numel() / RATE
        seconds = math.nan if seconds == 5 else seconds
        return Scores({"seconds": seconds, "clips": 2, "curve": [seconds, 1.0]})

    def identity(self):
        return {"name": "seconds", "revision": "r7"}


@pytest.fixture
def data(tmp_path):
    """Recordings of 4, 5 and 12 s and a system's renderings of them, 1 s longer; the prompt is 3 s."""
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    writer = GeneratedSetWriter(tmp_path / "set", GeneratedCard("soundstorm", "prompted", RATE, {}, "xxh3:1"))
    lines = ["path,text,speaker"]
    random = np.random.default_rng(0)
    for id, seconds in {"a": 4, "b": 5, "c": 12}.items():
        audio = random.normal(0, 0.05, (seconds + 1) * RATE)
        soundfile.write(recordings / f"{id}.wav", audio[: seconds * RATE], RATE)
        lines.append(f"{id}.wav,Red colour {id},ann")
        row = GeneratedRow(id, audio_path(id), "", "", 50, 3.0, float(seconds + 1), RATE, 5, "soundstorm", "prompted")
        writer.write(row, audio)
    writer.close()
    merge_parts(tmp_path / "set")
    (recordings / "manifest.csv").write_text("\n".join(lines) + "\n")
    return GeneratedAudioDataModule(
        {"soundstorm": str(tmp_path / "set")}, AudioManifest(str(recordings / "manifest.csv")), batch_size=4
    )


def run(tmp_path, module, data, clips=2, worst=0):
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[ResultsWriter(tmp_path / "results", clips=clips, worst=worst)],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    [logged] = trainer.test(module, data, verbose=False)
    lines = (tmp_path / "results" / "results.jsonl").read_text().splitlines()
    return logged, [json.loads(line) for line in lines], json.loads((tmp_path / "results" / "run.json").read_text())


def test_scores_every_utterance_and_averages_what_is_finite(tmp_path, data):
    logged, rows, _ = run(tmp_path, EvaluationModule([Seconds()]), data)
    # The original of b and the rendering of a last 5 s and have no score.
    assert logged["test/original-reference/seconds/rate"] == pytest.approx((4 + 12) / 4)
    assert logged["test/soundstorm-prompted/seconds/mean"] == pytest.approx(10 * (6 + 13) / 2)
    assert [(row["id"], row["system"]) for row in rows[:3]] == [
        ("a", "original"),
        ("a", "soundstorm"),
        ("b", "original"),
    ]
    assert rows[1]["scores"]["seconds"] == {"seconds": None, "clips": 2, "curve": [None, 1.0]}
    problem = "the scorer returned a value that is not finite"
    assert rows[1]["problems"] == {"seconds/rate": problem, "seconds/mean": problem}
    assert rows[0]["problems"] == {}


def test_a_row_tells_where_its_numbers_come_from(tmp_path, data):
    _, rows, run_record = run(tmp_path, EvaluationModule([Seconds()]), data)
    row = rows[1]
    assert (row["split"], row["condition"], row["seed"], row["prompt_seconds"]) == ("short", "prompted", 5, 3.0)
    assert (row["text"], row["speaker"], row["seconds"]) == ("Red colour a", "ann", 5.0)
    assert row["original_seconds"] == 4.0
    assert row["revisions"] == {"seconds": "seconds@r7"}
    assert run_record["rows"] == [["original", "reference"], ["soundstorm", "prompted"]]
    [card] = run_record["cards"]
    assert (card["system"], card["condition"], card["weights"]) == ("soundstorm", "prompted", "xxh3:1")
    [scorer] = run_record["scorers"]
    assert Measure(**scorer["measures"][0]) == Measure("rate", "Rate", "seconds", "clips")
    assert "torch" in run_record["versions"]


def test_one_row_alone_is_logged(tmp_path, data):
    data.systems = {}
    logged, _, _ = run(tmp_path, EvaluationModule([Seconds()]), data)
    assert logged["test/original-reference/seconds/rate"] == pytest.approx(4)


def test_testing_twice_counts_once(tmp_path, data):
    module = EvaluationModule([Seconds()])
    run(tmp_path, module, data)
    _, rows, _ = run(tmp_path, module, data)
    assert len(rows) == 6
    assert module._ratio("seconds/rate").scored.tolist() == [2, 2]


def test_keeps_clips_to_listen_to(tmp_path, data):
    _, rows, _ = run(tmp_path, EvaluationModule([Seconds()]), data, clips=2)
    assert [row["clip"] for row in rows] == [
        "clips/a/original-reference.flac", "clips/a/soundstorm-prompted.flac", None, None,
        "clips/c/original-reference.flac", "clips/c/soundstorm-prompted.flac",
    ]  # fmt: skip
    with soundfile.SoundFile(tmp_path / "results" / rows[1]["clip"]) as sound:
        assert sound.frames == 5 * RATE
        assert "Synthetic" in sound.comment


@pytest.mark.parametrize(
    ("higher_is_better", "worst", "kept"),
    [(False, 1, {"c"}), (True, 1, {"b"}), (False, 2, {"b", "c"}), (True, 9, {"b", "c"}), (None, 9, set())],
)
def test_keeps_what_a_system_made_worst(tmp_path, data, higher_is_better, worst, kept):
    # The system's renderings last 6 s (b) and 13 s (c); that of a has no score, and the recordings do not count.
    module = EvaluationModule([Seconds(higher_is_better=higher_is_better)])
    _, rows, _ = run(tmp_path, module, data, clips=0, worst=worst)
    assert {row["id"] for row in rows if row["clip"]} == kept
    assert all((tmp_path / "results" / row["clip"]).is_file() for row in rows if row["clip"])
    assert len(list(tmp_path.glob("results/clips/*"))) == len(kept)


@pytest.mark.parametrize(
    ("ids", "number", "chosen"), [(13, 12, 12), (13, 13, 13), (3, 12, 3), (5, 1, 1), (5, 0, 0), (0, 4, 0)]
)
def test_clips_are_spread_from_the_first_to_the_last(ids, number, chosen):
    ids = [f"{n:02d}" for n in range(ids)]
    found = spread_evenly(ids, number)
    assert len(set(found)) == len(found) == chosen
    assert found == sorted(found)
    assert chosen < 2 or (found[0], found[-1]) == (ids[0], ids[-1])


def test_unreadable_audio_is_named_in_the_run(tmp_path, data):
    (tmp_path / "recordings" / "a.wav").write_bytes(b"")
    _, rows, run_record = run(tmp_path, EvaluationModule([Seconds()]), data)
    assert {row["id"] for row in rows} == {"b", "c"}
    assert [rejection["id"] for rejection in run_record["rejected"]] == ["a", "a"]
    assert "is empty: 0 bytes" in run_record["rejected"][0]["reason"]


def test_an_absent_scorer_is_skipped_and_named(tmp_path, data):
    module = EvaluationModule([Seconds("watch", missing="no watch"), Seconds()], on_missing="skip")
    with pytest.warns(UserWarning, match="scorer 'watch' is left out: no watch; buy a watch"):
        logged, rows, run_record = run(tmp_path, module, data)
    assert run_record["absent"] == [{"name": "watch", "reason": "no watch", "remedy": "buy a watch"}]
    assert [scorer["identity"] is None for scorer in run_record["scorers"]] == [True, False]
    assert set(rows[0]["scores"]) == {"seconds"}
    assert not any("watch" in key for key in logged)


def test_an_absent_scorer_stops_the_run_if_wanted(tmp_path, data):
    module = EvaluationModule([Seconds("watch", missing="no watch")], on_missing="error")
    with pytest.raises(ScorerUnavailableError, match="'watch': no watch; buy a watch, or set on_missing to skip"):
        run(tmp_path, module, data)
    assert not (tmp_path / "results" / "results.jsonl").exists()


def test_scorers_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two scorers are named 'seconds'"):
        EvaluationModule([Seconds(), Seconds()])


def test_data_at_another_rate_than_the_scorers_are_refused(tmp_path, data):
    data.sample_rate = 24_000
    with pytest.raises(ValueError, match="'seconds' listens at 16000 Hz, the data has 24000 Hz: set the datamodule's"):
        run(tmp_path, EvaluationModule([Seconds()]), data)


def test_real_scorers_run_together(tmp_path, data, tiny_whisper, tiny_xvector):
    scorers = [
        WordErrors(WhisperRecognizer(str(tiny_whisper))),
        SpeakerSimilarity(XVectorEmbedding(str(tiny_xvector))),
        MelDistance(),
    ]
    logged, rows, _ = run(tmp_path, EvaluationModule(scorers), data)
    scores = [row["scores"] for row in rows if row["system"] == "original"]
    errors = sum(found["wer"]["word_errors"] for found in scores)
    assert logged["test/original-reference/wer/wer"] == pytest.approx(100 * errors / 9)  # 3 words each
    assert rows[0]["scores"]["wer"]["reference"] == "red color a"
    assert rows[0]["normalizers"]["wer"] == {"name": "whisper-english", "spellings": 1}
    assert rows[0]["revisions"]["wer"].startswith(f"{tiny_whisper.name}@xxh3:")
    # The renderings are the recordings and one second more: the same voice, the same spectrogram.
    assert logged["test/original-reference/mel/mel_distance"] == 0
    assert logged["test/soundstorm-prompted/mel/mel_distance"] < 2
    assert logged["test/soundstorm-prompted/voice/sim_o"] == pytest.approx(
        logged["test/soundstorm-prompted/voice/sim_r"], abs=1e-3
    )
    assert not any(parameter.requires_grad for scorer in scorers for parameter in scorer.parameters())
