"""Two processes leave what one would: every utterance once, and the same numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

SCRIPT = Path(__file__).with_name("render_on_two_ranks.py")


def test_two_ranks_leave_what_one_leaves(run_script, tmp_path):
    random = np.random.default_rng(0)
    lines = ["path,text,speaker"]
    for id, seconds in zip("abcde", (0.5, 0.6, 0.7, 0.8, 0.9), strict=True):  # three for one rank, two for the other
        soundfile.write(tmp_path / f"{id}.wav", random.normal(0, seconds / 10, int(seconds * 16_000)), 16_000)
        lines.append(f"{id}.wav,hello,ann")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    done = run_script(SCRIPT, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    two, one = tmp_path / "on_2", tmp_path / "on_1"
    for file in ("set/manifest.jsonl", "results/results.jsonl"):
        assert (two / file).read_text() == (one / file).read_text()
    assert sorted(path.name for path in (two / "set" / "audio").iterdir()) == [f"{id}.flac" for id in "abcde"]
    assert {path.name for path in (two / "set").iterdir()} == {"card.json", "audio", "manifest.jsonl"}
    assert {path.name for path in (two / "results").iterdir()} == {"clips", "results.jsonl", "run.json"}
    (logged,), (expected,) = (json.loads((folder / "metrics.json").read_text()) for folder in (two, one))
    assert logged == pytest.approx(expected)
    assert expected["test/soundstorm-unprompted/mel/mel_distance"] > 5
