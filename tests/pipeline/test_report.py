"""The report, from fabricated results."""

import csv
import html
import io
import json
import math
import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import soundfile
from lightning.pytorch import Trainer

from modules.evaluation import AcousticConsistency, Dnsmos, SpeakerSimilarity, WordErrors, XVectorEmbedding
from modules.evaluation.recognition import WhisperRecognizer
from pipeline.cli import main
from pipeline.figures import draw_consistency
from pipeline.paper import paper_numbers
from pipeline.report import report
from pipeline.report_writer import ReportWriter
from pipeline.results import read_results
from pipeline.results_folder import results_digest
from pipeline.rows import Results, Row
from pipeline.sweeps import sweep_curves
from pipeline.table import confidence_interval, make_sections, published_csv, published_lines
from pipeline.table_latex import latex_text
from pipeline.timings import read_timings, sum_up

PUBLISHED = {  # Table 1 of the paper, as printed there: short, mid, long
    ("prompted", "soundstorm", "wer"): (2.99, 2.43, 3.36),
    ("unprompted", "soundstorm", "cer"): (1.39, 0.89, 1.29),
    ("prompted", "audiolm", "voice"): (0.46, 0.48, 0.48),
    ("reference", "original_soundstream_rec", "consistency"): (0.97, 0.95, 0.93),
    ("unprompted", "audiolm", "quality"): (3.93, 4.04, 4.08),
}


def scorers():
    voice = XVectorEmbedding("no/model")
    return [WordErrors(WhisperRecognizer("no/model")), SpeakerSimilarity(voice), AcousticConsistency(voice), Dnsmos()]


MEASURE = {"name": "m", "label": "M", "numerator": "m"}


def result(id, system, condition, split, *, errors, words=10, sim=None, curve=None, revision="1", **values):
    scores = {"wer": {"word_errors": errors, "words": words, "wer": errors / words, "transcript": f"heard {id}"}}
    scores["wer"] |= {"character_errors": errors, "characters": 5 * words, "cer": errors / 5 / words}
    if sim is not None:
        scores["voice"] = {"sim_o": sim}
    if curve:
        scores["consistency"] = {"curve": curve, "mean": sum(curve) / len(curve), "drift": curve[0] - curve[-1]}
    return {
        "id": id, "split": split, "condition": condition, "system": system, "speaker": "ann", "text": f"text {id}",
        "seconds": 5.0, "prompt_seconds": 3.0, "own_prompt": True, "seed": 1, "scores": scores, "problems": {},
        "revisions": {"wer": f"asr@{revision}", "voice": "xv@1"}, "normalizers": {}, "clip": None,
    } | values  # fmt: skip


def write(folder, rows, absent=("dnsmos",), data=None, rejected=()):
    folder.mkdir(exist_ok=True)
    names = {"wer": "asr", "voice": "xv"}
    revisions = rows[0]["revisions"]
    run = {
        "scorers": [
            {
                "name": scorer.name,
                "class": type(scorer).__name__,
                "identity": None
                if scorer.name in absent
                else {
                    "name": names.get(scorer.name, scorer.name),
                    "revision": revisions.get(scorer.name, "@1").partition("@")[2],
                },
                "measures": [measure.as_dict() for measure in scorer.measures],
            }
            for scorer in scorers()
        ],
        "absent": [{"name": name, "reason": f"{name} is not installed", "remedy": "pip install it"} for name in absent],
        "rows": [],
        "data": data or {},
        "rejected": list(rejected),
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def results(tmp_path):
    rows = [
        result("a", "original", "reference", "short", errors=0, words=1, sim=0.9, curve=[0.9, 0.8]),
        result("b", "original", "reference", "short", errors=1, words=9, sim=0.7, curve=[0.9, 0.7]),
        result("c", "original", "reference", "long", errors=3, words=10, sim=0.5, curve=[0.9] * 8),
        result("a", "soundstorm", "prompted", "short", errors=1, words=1, sim=0.6, curve=[0.8, 0.5]),
        result("b", "soundstorm", "prompted", "short", errors=1, words=9, sim=None),
        result("c", "soundstorm", "prompted", "long", errors=0, words=10, sim=0.4, curve=[0.9] * 7 + [0.1]),
    ]
    rows[4]["scores"]["voice"] = {"sim_o": None}
    rows[4]["problems"] = {"voice/sim_o": "audio after the prompt shorter than 0.5 s"}
    rows[3]["scores"]["wer"]["transcript"] = "<script>"
    return write(
        tmp_path / "results",
        rows,
        data={"missing in prompted: left out of every row": ["x", "y"]},
        rejected=[{"id": "z", "path": "z.wav", "reason": "is empty: 0 bytes"}],
    )


def table(folder):
    rows = csv.DictReader(io.StringIO((folder / "table.csv").read_text()))
    return {(r["source"], r["condition"], r["system"], r["measure"], r["split"]): r for r in rows}


def test_the_published_numbers_are_the_papers():
    for (condition, system, metric), values in PUBLISHED.items():
        lines = {(line.row.condition, line.row.system): line for line in published_lines(metric)}
        cells = lines[condition, system].cells
        assert tuple(cells[split].value for split in ("short", "mid", "long")) == values
    assert len(published_csv().splitlines()) == 1 + 63


def test_cells_hold_corpus_level_ratios_of_their_split(tmp_path, results):
    report([results], tmp_path / "report")
    cells = table(tmp_path / "report")

    def value(*key):
        return float(cells["measured", *key]["value"])

    assert value("reference", "original", "wer", "short") == pytest.approx(100 * 1 / 10)
    assert value("reference", "original", "wer", "all") == pytest.approx(100 * 4 / 20)
    assert value("reference", "original", "wer/wer_mean", "all") == pytest.approx(
        100 * (0 + 1 / 9 + 3 / 10) / 3, rel=1e-5
    )
    assert value("prompted", "soundstorm", "wer", "short") == pytest.approx(20)
    assert value("reference", "original", "voice/sim_o", "all") == pytest.approx(0.7)
    assert value("prompted", "soundstorm", "consistency/drift", "long") == pytest.approx(0.8)
    assert cells["measured", "reference", "original", "wer", "short"]["clips"] == "2"
    assert ("measured", "reference", "original", "wer", "mid") not in cells


def test_what_has_no_score_is_counted_and_left_out(tmp_path, results):
    report([results], tmp_path / "report")
    cell = table(tmp_path / "report")["measured", "prompted", "soundstorm", "voice/sim_o", "short"]
    assert (float(cell["value"]), cell["clips"], cell["missing"]) == (0.6, "1", "1")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "n=1 (1 missing)" in text
    assert "Voice (SIM-o), SoundStorm, prompted: 1 × audio after the prompt shorter than 0.5 s: b" in text
    assert "2 utterances missing in prompted: left out of every row: x, y" in text
    assert "z was left out: is empty: 0 bytes" in text


def test_published_rows_are_marked_and_unchanged(tmp_path, results):
    report([results], tmp_path / "report")
    cells = table(tmp_path / "report")
    for (condition, system, metric), values in PUBLISHED.items():
        measure = {"voice": "voice/sim_o", "cer": "wer/cer"}.get(metric, metric)
        for split, value in zip(("short", "mid", "long"), values, strict=True):
            cell = cells["published", condition, system, measure, split]
            assert (float(cell["value"]), cell["clips"]) == (value, "")
    text = (tmp_path / "report" / "report.md").read_text()
    assert re.search(r"\| \*published:\* SoundStorm, prompted +\| +2\.99 \| +2\.43 \| +3\.36 \|", text)


def test_absent_scorers_are_named_with_the_remedy(tmp_path, results, capsys):
    report([results], tmp_path / "report")
    line = "DNSMOS BAK: Not measured: dnsmos is not installed; pip install it."
    assert line in (tmp_path / "report" / "report.md").read_text()
    assert line in (tmp_path / "report" / "index.html").read_text()
    assert line in capsys.readouterr().out


def test_prints_measured_beside_published(tmp_path, results, capsys):
    report([results], tmp_path / "report")
    printed = capsys.readouterr().out
    wer = printed[printed.index("WER %") : printed.index("CER %")].splitlines()
    assert [line.split("|")[1].strip() for line in wer[2:9]] == [
        "Original", "*published:* SoundStream reconstruction", "*published:* AudioLM, unprompted",
        "*published:* SoundStorm, unprompted", "SoundStorm, prompted", "*published:* AudioLM, prompted",
        "*published:* SoundStorm, prompted",
    ]  # fmt: skip
    assert "[" not in printed  # intervals are for the page


def test_intervals_are_deterministic_and_cover_the_value():
    random = np.random.default_rng(3)
    words = random.integers(5, 30, 200).astype(float)
    errors = random.binomial(words.astype(int), 0.1).astype(float)
    low, high = confidence_interval(errors, words, 1000)
    assert (low, high) == confidence_interval(errors, words, 1000)
    assert low < errors.sum() / words.sum() < high
    # The normal approximation of a ratio of sums, for comparison.
    rate = errors.sum() / words.sum()
    half = 1.96 * np.sqrt(((errors - rate * words) ** 2).sum()) / words.sum()
    assert high - low == pytest.approx(2 * half, rel=0.1)


def test_one_utterance_has_no_interval():
    assert all(np.isnan(confidence_interval(np.ones(1), np.ones(1), 100)))


def add_sounds(folder):
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for row in rows:
        row["clip"] = f"clips/{row['id']}/{row['system']}-{row['condition']}.flac"
        (folder / row["clip"]).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / row["clip"], np.random.default_rng(0).normal(0, 0.1, 8000), 16_000)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_page_has_clips_spread_evenly_and_the_worst(tmp_path):
    ids = [f"{number:02d}" for number in range(13)]
    rows = [result(id, "original", "reference", "short", errors=9 - (id == "03")) for id in ids]
    rows += [result(id, "soundstorm", "prompted", "short", errors={"04": 7, "05": 8}.get(id, 1)) for id in ids]
    add_sounds(write(tmp_path / "results", rows))
    report([tmp_path / "results"], tmp_path / "report", clips=3, worst=2, resamples=10)
    page = (tmp_path / "report" / "index.html").read_text()
    assert re.findall('data-id="(..)"', page) == ["00", "04", "05", "06", "12"]
    assert page.count("5.0 s · speaker ann · among the worst by WER %") == 2
    report([tmp_path / "results"], tmp_path / "report", clips=12, worst=0, resamples=10)
    assert (tmp_path / "report" / "index.html").read_text().count("data-id") == 12


def test_the_page_is_complete_in_itself(tmp_path, results):
    add_sounds(results)
    output = tmp_path / "report"
    report([results], output, clips=2, worst=0)
    page = (output / "index.html").read_text()
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert not [file for file in files if "//" in file]
    local = [file for file in files if not file.startswith("data:")]
    assert len([file for file in local if file.endswith(".flac")]) == 4  # a and c, in two renderings each
    for file in local:
        assert (output / file).stat().st_size > 0
    assert page.count("<audio controls") == 4
    assert "heard:</span> &lt;script&gt;" in page
    assert page.count("<script") == 1
    assert "</script></body>" in page


def test_a_cosine_that_is_no_number_is_left_out_of_the_figure_and_counted(tmp_path):
    rows = [result(id, "original", "reference", "long", errors=0, curve=[0.9, 0.8]) for id in "ab"]
    folder = write(tmp_path / "whole", rows)
    whole = draw_consistency(read_results([folder]), tmp_path / "whole.png")
    rows += [result(id, "original", "reference", "long", errors=0, curve=[0.9, 0.8]) for id in "cd"]
    rows[2]["scores"]["consistency"]["curve"] = [None, 0.8]
    rows[3]["scores"]["consistency"]["curve"] = [float("nan"), float("nan")]
    folder = write(tmp_path / "holes", rows)
    holes = draw_consistency(read_results([folder]), tmp_path / "holes.png")
    assert "left out" not in whole
    assert "over 3 clips of 20 to 30 s; 3 cosines without a finite value are left out." in holes
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "holes.png").read_bytes()


def test_the_figure_of_consistency_has_a_panel_per_row(tmp_path):
    rows = [result("a", "original", "reference", "long", errors=0, curve=[0.9, 0.8])]
    rows += [result("a", f"variant {n}", "prompted", "long", errors=0, curve=[0.9, 0.7]) for n in range(12)]
    heights = []
    for number in (3, 6, 13):
        folder = write(tmp_path / f"{number}", rows[:number])
        assert "(grey: medians of the other rows)" in draw_consistency(read_results([folder]), tmp_path / "drawn.png")
        heights.append(matplotlib.image.imread(tmp_path / "drawn.png").shape[0])
    one, two, five = heights
    assert two - one == (five - two) / 3 == pytest.approx(1.9 * 130)


def sweeps(tmp_path):
    """Results at 1, 4 and 16 iterations of level 1."""
    rows = [result(id, "original", "reference", "short", errors=0) for id in "abc"]
    for iterations, errors in ((1, 5), (4, 3), (16, 2)):
        name = f"soundstorm-level1-{iterations}"
        rows += [result(id, name, "prompted", "short", errors=errors) for id in "abc"]
    return write(tmp_path / "sweeps", rows)


def test_rows_of_an_ablation_are_in_the_figure_and_not_in_the_table(tmp_path):
    report([sweeps(tmp_path)], tmp_path / "report", resamples=10)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "iterations at level 1 |" not in text
    assert "WER % against the number of iterations, over 3 clips" in text
    cells = table(tmp_path / "report")
    assert float(cells["measured", "prompted", "soundstorm-level1-4", "wer", "all"]["value"]) == 30
    assert (tmp_path / "report" / "iterations.png").read_bytes().startswith(b"\x89PNG")


def card(system, iterations, **others):
    sampling = {"iterations": iterations, "choice_temperature": 0.0} | others
    return {"condition": "prompted", "system": system, "weights": "ab", "codec": {"name": "c"}, "sampling": sampling}


def test_what_differs_in_iterations_only_is_a_point_of_their_curve_under_any_name():
    cards = [
        card("soundstorm-level1-4", [4, 1, 1]),
        card("soundstorm-finer-2", [16, 2, 2]),
        card("greedy", [1, 1, 1]),
        card("paper", [16, 1, 1]),
        card("noisy", [8, 1, 1], choice_temperature=1.0),
        card("uneven", [16, 4, 1]),
        card("other weights", [2, 1, 1]) | {"weights": "cd"},
        card("valle", None),
    ]
    utterances = [{"condition": card["condition"], "system": card["system"]} for card in cards]
    found = sweep_curves(Results(utterances=utterances, cards=[*cards, card("not evaluated", [32, 1, 1])]))
    points = {
        name: {number: row.system for number, row in curves.popitem()[1].items()} for name, curves in found.items()
    }
    assert list(points["level1"].items()) == [(1, "greedy"), (4, "soundstorm-level1-4"), (16, "paper")]
    assert list(points["finer"].items()) == [(1, "paper"), (2, "soundstorm-finer-2")]


def test_iterations_are_sorted_as_numbers_and_named(tmp_path):
    rows = read_results([sweeps(tmp_path)]).rows
    assert [row.sweep.iterations for row in rows[1:]] == [1, 4, 16]
    assert rows[1].label == "SoundStorm, 1 iteration at level 1, prompted"
    assert Row("prompted", "soundstorm-level1-0").sweep is None
    assert Row("prompted", "soundstorm").sweep is None


def test_the_table_is_printed_in_latex(tmp_path, results):
    report([results], tmp_path / "report", resamples=10)
    latex = (tmp_path / "report" / "table.tex").read_text()
    tables = re.findall(r"\\begin\{table\*\}(.*?)\\end\{table\*\}", latex, flags=re.DOTALL)
    assert len(tables) == latex.count("table*") / 2 == 8  # one per measure that has rows
    rows = [line for table in tables for line in table.split("\n") if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {4}
    assert latex.count("{") == latex.count("}")
    assert r"\textbf{WER \%} $\downarrow$ & short & mid & long & all \\" in rows
    assert r"\textit{SoundStorm, prompted (published)} & 2.99 & 2.43 & 3.36 & -- \\" in rows
    assert r"$n=1$ 1 missing}" in latex
    assert latex_text("a_b & 5 % {x}") == r"a\_b \& 5 \% \{x\}"


def speed_line(**values):
    line = {"system": "soundstorm", "stage": "soundstorm", "audio_seconds": 10.0, "seconds": [1.0, 9.0, 2.0]}
    return json.dumps(line | {"device": "a CPU", "passes": 27, "prompt_seconds": 2.0} | values) + "\n"


def test_speed_is_the_median_of_repeats_with_and_without_the_codec(tmp_path, results, capsys):
    folder = tmp_path / "speed"
    folder.mkdir()
    lines = speed_line() + speed_line(stage="codec", seconds=[0.5], passes=1)
    lines += speed_line(system="audiolm", stage="coarse", seconds=[20.0], passes=2000)
    lines += speed_line(system="audiolm", stage="fine", seconds=[10.0], passes=3000)
    lines += speed_line(batch_size=8, audio_seconds=20.0)
    (folder / "speed.jsonl").write_text(lines)
    audiolm, soundstorm = sum_up(read_timings([folder]))
    assert (soundstorm.rtf, soundstorm.rtf_with_codec, soundstorm.passes) == (2 / 8, 2.5 / 8, 27)
    assert (audiolm.rtf, audiolm.rtf_with_codec, audiolm.passes) == (30 / 8, None, 5000)
    report([results, folder], tmp_path / "report", resamples=10)
    printed = capsys.readouterr().out
    found = [re.split(r" *\| *", line.strip("| ")) for line in printed.splitlines() if "a CPU" in line]
    spans = ["a CPU", "10", "8"]
    assert found == [
        ["AudioLM", "codes and codec", *spans, "not timed", "5000", "1"],
        ["AudioLM", "codes", *spans, "3.7500", "5000", "1"],
        ["AudioLM", "coarse", *spans, "2.5000", "2000", "1"],
        ["AudioLM", "fine", *spans, "1.2500", "3000", "1"],
        ["SoundStorm", "codes and codec", *spans, "0.3125", "27", "1"],
        ["SoundStorm", "codes", *spans, "0.2500", "27", "1"],
        ["SoundStorm", "codec", *spans, "0.0625", "1", "1"],
    ]
    assert "not timed" in (tmp_path / "report" / "index.html").read_text()
    assert (tmp_path / "report" / "runtime.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "it needs system, stage"),
        ("nothing", "it needs system, stage"),
        (speed_line(seconds=[]), r"seconds is \[\], no times"),
        (speed_line(seconds=[-1.0]), r"seconds is \[-1.0\], no times"),
        (speed_line(seconds=[1.0, math.nan]), r"seconds is \[1.0, nan\], no times"),
        (speed_line(seconds=[True]), r"seconds is \[True\], no times"),
        (speed_line(audio_seconds=math.inf), "audio_seconds and prompt_seconds are inf and 2.0, no times"),
        (speed_line(prompt_seconds=10.0), "its prompt of 10 s leaves nothing of 10 s"),
        (speed_line(passes="x"), "passes is 'x', no count"),
        (speed_line(system=[1]), r"system is \[1\], no name"),
        (speed_line(device=None), "device is None, no name"),
    ],
)
def test_damaged_timings_are_named(tmp_path, line, message):
    (tmp_path / "speed.jsonl").write_text(speed_line() + line)
    with pytest.raises(ValueError, match=rf"speed\.jsonl line 2 is no timing: {message}"):
        read_timings([tmp_path])


def test_stages_of_one_utterance_had_one_prompt(tmp_path):
    (tmp_path / "speed.jsonl").write_text(speed_line() + speed_line(stage="codec", prompt_seconds=3.0))
    with pytest.raises(ValueError, match=r"line 2: the stages of soundstorm for 10 s had prompts of 2 s and 3 s"):
        read_timings([tmp_path])


def test_two_benchmarks_of_the_same_are_refused(tmp_path):
    for name, lines in (("one", speed_line()), ("two", speed_line(stage="codec", seconds=[5.0]))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "speed.jsonl").write_text(lines)
    both = r"one/speed\.jsonl and .*two/speed\.jsonl both hold times of soundstorm for 10 s on a CPU"
    with pytest.raises(ValueError, match=both):
        read_timings([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(ValueError, match="both hold times"):
        read_timings([tmp_path / "one", tmp_path / "one"])


def test_the_papers_numbers_can_be_printed_alone():
    text = paper_numbers()
    assert re.search(r"\| SoundStorm, prompted +\| +2\.99 \| 2\.43 \| 3\.36 \|", text)
    assert text.count("SoundStorm, prompted") == 5
    assert "0.017" in text
    assert "98.5 %" in text


def test_reports_of_several_runs_are_joined(tmp_path, results):
    more = write(
        tmp_path / "more",
        [
            result("a", "audiolm", "prompted", "short", errors=0),
            result("a", "original", "reference", "short", errors=9),
        ],
    )
    found = read_results([results, more])
    assert [row.label for row in found.rows] == ["Original", "SoundStorm, prompted", "AudioLM, prompted"]
    assert found.of(found.rows[0])[0]["scores"]["wer"]["word_errors"] == 0
    assert f"1 results in {more} are double and left out: a" in found.remarks
    assert f"1 results in {more} contradict those that were read first: a" in found.remarks


def renamed(row, name):
    """A result whose words another recogniser heard, under a name of its own."""
    scores = {name if scorer == "wer" else scorer: found for scorer, found in row["scores"].items()}
    return row | {"scores": scores, "revisions": {name: "asr2@1", "voice": "xv@1"}}


def rename_scorer(folder, name):
    run = json.loads((folder / "run.json").read_text())
    for scorer in run["scorers"]:
        if scorer["name"] == "wer":
            scorer |= {"name": name, "identity": {"name": "asr2", "revision": "1"}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_scores_of_a_second_recogniser_join_those_of_the_first(tmp_path):
    clips = [result(id, "original", "reference", "short", errors=1) for id in "ab"]
    again = [renamed(result(id, "original", "reference", "short", errors=5), "asr2") for id in "ab"]
    again[1] |= {"seed": 2}  # another sound
    folders = [write(tmp_path / "one", clips), rename_scorer(write(tmp_path / "two", again), "asr2")]
    found = read_results(folders)
    assert len(found.utterances) == 2
    a, b = found.utterances
    assert (a["scores"]["wer"]["word_errors"], a["scores"]["asr2"]["word_errors"]) == (1, 5)
    assert "asr2" not in b["scores"]
    assert [remark for remark in found.remarks if "double" in remark] == [
        f"1 results in {folders[1]} are double and left out: b"
    ]
    assert not [remark for remark in found.remarks if "contradict" in remark]
    sections = {section.label: section for section in make_sections(found, resamples=10)}
    assert sections["WER % (asr2)"].lines[0].cells["all"].value == 50


def test_a_scorer_one_run_lacked_is_not_absent(tmp_path, results):
    row = result("d", "audiolm", "prompted", "short", errors=0)
    row["scores"]["dnsmos"] = {"ovrl_mos": 3.0, "p808_mos": 3.0, "sig_mos": 3.0, "bak_mos": 3.0}
    sections = make_sections(read_results([results, write(tmp_path / "more", [row], absent=())]), resamples=10)
    [section] = [section for section in sections if section.label == "DNSMOS OVRL"]
    assert section.note == "Measured with dnsmos (1)."
    assert section.lines[0].cells["all"].value == 3.0


def test_scores_of_two_models_in_one_column_are_refused(tmp_path, results):
    other = write(tmp_path / "more", [result("a", "audiolm", "prompted", "short", errors=0, revision="2")])
    with pytest.raises(ValueError, match=r"named 'wer' come from asr@1 \(6 results\) and asr@2 \(1 results\): report"):
        read_results([results, other])


def test_scores_of_one_model_in_two_settings_are_refused(tmp_path, results):
    for folder, beams in (
        (results, 1),
        (write(tmp_path / "more", [result("d", "audiolm", "prompted", "short", errors=0)]), 5),
    ):
        run = json.loads((folder / "run.json").read_text())
        run["scorers"][0]["identity"] |= {"num_beams": beams, "language": None, "normalizer": {"name": "basic"}}
        (folder / "run.json").write_text(json.dumps(run))
        read_results([folder, folder])
    both = (
        r"named 'wer' come from asr@1 with num_beams 1 \(6 results\) and asr@1 with num_beams 5 \(1 results\): report"
    )
    with pytest.raises(ValueError, match=both):
        read_results([results, tmp_path / "more"])


def test_results_of_another_run_are_refused(tmp_path, results):
    other = write(tmp_path / "other", [result("a", "audiolm", "prompted", "short", errors=0, revision="2")])
    (results / "run.json").write_text((other / "run.json").read_text())
    with pytest.raises(
        ValueError, match=r"results\.jsonl is of another run than .*'wer' scored a with asr@1, not asr@2"
    ):
        read_results([results])


def test_results_changed_after_their_run_are_refused(results):
    run = json.loads((results / "run.json").read_text())
    run["digest"] = results_digest((results / "results.jsonl").read_bytes())
    (results / "run.json").write_text(json.dumps(run))
    assert len(read_results([results]).utterances) == 6
    lines = (results / "results.jsonl").read_text().splitlines()
    (results / "results.jsonl").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(ValueError, match=r"is of another run than the run\.json beside it .*changed by hand"):
        read_results([results])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("text", {"text": "something else"}),
        ("speaker", {"speaker": "bob", "text": ""}),
        ("split", {"split": "mid", "text": "", "speaker": ""}),
        ("seconds", {"original_seconds": 5.2, "text": "", "speaker": ""}),
    ],
)
def test_other_recordings_under_the_same_ids_are_refused(tmp_path, results, name, change):
    other = write(tmp_path / "other", [result("a", "audiolm", "prompted", "short", errors=0) | change])
    there, here = (
        {"text": "text a", "speaker": "ann", "split": "short", "seconds": 5.0}[name],
        next(iter(change.values())),
    )
    with pytest.raises(
        ValueError, match=f"a has {name} {there!r} in .*results and {here!r} in .*other: results of dif"
    ):
        read_results([results, other])


def test_clips_of_two_checkpoints_are_refused(tmp_path):
    folders = []
    for id, card in {
        "a": None,  # of before there were cards
        "b": {"weights": None, "codec": {"name": "dac"}},
        "c": {"weights": "xxh3:1", "codec": {"name": "dac"}},
        "d": {"weights": "xxh3:2", "codec": {"name": "dac"}},
    }.items():
        folders.append(write(tmp_path / id, [result(id, "soundstorm", "prompted", "short", errors=0)]))
        run = json.loads((folders[-1] / "run.json").read_text())
        cards = {} if card is None else {"cards": [{"system": "soundstorm", "condition": "prompted"} | card]}
        (folders[-1] / "run.json").write_text(json.dumps(run | cards))
    assert len(read_results(folders[:3]).utterances) == 3
    two = 'SoundStorm, prompted was rendered with weights="xxh3:1" in .*c and "xxh3:2" in .*d: report them apart'
    with pytest.raises(ValueError, match=two):
        read_results(folders)


def test_recordings_of_which_less_is_known_are_joined(tmp_path, results):
    unknown = result("a", "audiolm", "prompted", "short", errors=0, text="", speaker="", original_seconds=5.0005)
    assert len(read_results([results, write(tmp_path / "other", [unknown])]).utterances) == 7


def test_ids_that_are_double_in_one_file_are_counted_once(tmp_path):
    rows = [result("a", "original", "reference", "short", errors=errors) for errors in (0, 5)]
    found = read_results([write(tmp_path / "double", rows)])
    assert [u["scores"]["wer"]["word_errors"] for u in found.utterances] == [0]
    assert f"1 results in {tmp_path / 'double'} are double and left out: a" in found.remarks


def test_clips_that_a_row_lacks_are_named(tmp_path, results):
    more = write(tmp_path / "more", [result("a", "audiolm", "prompted", "short", errors=0)])
    remarks = read_results([results, more]).remarks
    assert "AudioLM, prompted: 2 clips that other rows have are missing: b, c" in remarks
    assert not [remark for remark in remarks if remark.startswith("Original:")]


def test_a_value_that_is_no_number_is_counted_and_never_averaged(tmp_path):
    rows = [result(id, "original", "reference", "short", errors=0, sim=0.5) for id in "abc"]
    rows[0]["scores"]["voice"]["sim_o"] = None
    rows[1]["scores"]["voice"]["sim_o"] = float("nan")
    report([write(tmp_path / "results", rows)], tmp_path / "report")
    cell = table(tmp_path / "report")["measured", "reference", "original", "voice/sim_o", "all"]
    assert (float(cell["value"]), cell["clips"], cell["missing"]) == (0.5, "1", "2")
    assert "Voice (SIM-o), Original: 2 × no finite value: a, b" in (tmp_path / "report" / "report.md").read_text()


def test_a_row_a_scorer_never_saw_is_named(tmp_path, results):
    row = result("a", "audiolm", "prompted", "short", errors=0)
    del row["scores"]["wer"], row["revisions"]["wer"]
    remarks = read_results([results, write(tmp_path / "more", [row])]).remarks
    assert "WER %, AudioLM, prompted: 1 of 1 results come from a run without 'wer'" in remarks


def test_empty_transcripts_are_named_though_they_are_scored(tmp_path):
    row = result("a", "original", "reference", "short", errors=10)
    row["problems"] = {"wer/wer": "empty transcript, all words counted as deleted"}
    remarks = read_results([write(tmp_path / "results", [row])]).remarks
    assert "WER %, Original: 1 × empty transcript, all words counted as deleted: a" in remarks


@pytest.mark.parametrize("scores", [{}, {"word_errors": 3}, {"word_errors": 3, "words": 0}, {"words": 10}])
def test_scores_that_other_utterances_of_the_row_have_are_missed(tmp_path, scores):
    rows = [result(id, "original", "reference", "short", errors=1) for id in "abc"]
    rows[1]["scores"]["wer"] = scores
    report([write(tmp_path / "results", rows)], tmp_path / "report", resamples=10)
    cell = table(tmp_path / "report")["measured", "reference", "original", "wer", "all"]
    assert (float(cell["value"]), cell["clips"], cell["missing"]) == (10, "2", "1")
    assert "WER %, Original: 1 × no finite value: b" in (tmp_path / "report" / "report.md").read_text()


def test_a_measure_that_applies_to_no_utterance_of_a_row_is_not_missed(tmp_path):
    rows = [result("a", "original", "reference", "short", errors=1, sim=0.5)]
    rows.append(result("a", "soundstorm", "unprompted", "short", errors=1))
    rows[1]["scores"]["voice"] = {}
    report([write(tmp_path / "results", rows)], tmp_path / "report", resamples=10)
    assert ("measured", "unprompted", "soundstorm", "voice/sim_o", "all") not in table(tmp_path / "report")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"scores": {"wer": {"word_errors": "3", "words": 10}}}, "wer/wer: word_errors is '3', no number"),
        ({"scores": {"wer": {"word_errors": 3, "words": "10"}}}, "wer/wer: words is '10', no number"),
        ({"scores": {"consistency": {"curve": [0.9, "0.8"]}}}, "consistency/curve is .*, no numbers"),
        ({"scores": {"wer": None}}, "AttributeError"),
        ({"clip": "../../x.flac"}, r"its clip \.\./\.\./x\.flac lies outside of the folder"),
        ({"clip": "/etc/x.flac"}, "its clip /etc/x.flac lies outside of the folder"),
        ({"clip": 3}, "TypeError"),
        ({"id": ["b"]}, r"id is \['b'\], no text"),
        ({"seconds": "5"}, "seconds is '5', no duration"),
        ({"seconds": -5}, "seconds is -5, no duration"),
        ({"seconds": math.inf}, "seconds is inf, no duration"),
        ({"normalizers": None}, "normalizers is None, no mapping"),
        ({"problems": {"a": [1]}}, r"a problem is \[1\], no text"),
        ({"scores": {"wer": {"word_errors": 10**400, "words": 1}}}, "wer/wer: word_errors is 10+, no number"),
    ],
)
def test_results_edited_into_what_cannot_be_are_named(tmp_path, change, complaint):
    rows = [result(id, "original", "reference", "short", errors=1) for id in "ab"]
    folder = write(tmp_path / "results", [rows[0], rows[1] | change])
    with pytest.raises(ValueError, match=rf"results\.jsonl line 2 is no result \(.*{complaint}"):
        read_results([folder])


def test_a_result_that_does_not_tell_its_prompt_is_named(tmp_path):
    row = result("a", "original", "reference", "short", errors=1)
    del row["prompt_seconds"]
    with pytest.raises(ValueError, match=r"line 1 is no result \(KeyError\('prompt_seconds'\)\)"):
        read_results([write(tmp_path / "results", [row])])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"absent": [{}]}, "KeyError"),
        ({"absent": None}, "TypeError"),
        ({"data": {"missing": 3}}, "'missing' lists 3, no ids"),
        ({"cards": [{"condition": "prompted", "system": "soundstorm", "sampling": "x"}]}, "sampling of a card is 'x'"),
        ({"scorers": [{"name": "wer", "identity": {}, "measures": []}]}, "KeyError"),
        ({"scorers": [{"name": "wer", "identity": None, "measures": [MEASURE | {"scale": "x"}]}]}, "'m' is damaged"),
        ({"scorers": [{"name": "wer", "identity": None, "measures": [MEASURE | {"digits": -1}]}]}, "has digits=-1"),
        ({"scorers": [{"name": "wer", "identity": None, "measures": [MEASURE | {"label": 3}]}]}, "label is 3, no text"),
    ],
)
def test_a_run_edited_into_what_cannot_be_is_named(results, change, complaint):
    run = json.loads((results / "run.json").read_text())
    (results / "run.json").write_text(json.dumps(run | change))
    with pytest.raises(ValueError, match=rf"run\.json is damaged \(.*{complaint}"):
        read_results([results])


def test_line_breaks_in_ids_do_not_break_the_remarks(tmp_path):
    rows = [result("a\nb", "original", "reference", "short", errors=1)]
    rows.append(result("c", "soundstorm", "prompted", "short", errors=1))
    assert not [r for r in read_results([write(tmp_path / "results", rows)]).remarks if "\n" in r]


def test_similarity_across_recordings_is_told_from_that_within_one(tmp_path):
    rows = [result("a", "original", "reference", "short", errors=1, sim=0.9)]
    rows.append(result("a", "soundstorm", "prompted", "short", errors=1, sim=0.8))
    within = read_results([write(tmp_path / "within", rows)]).remarks
    rows.append(result("a", "soundstorm", "prompted_other", "short", errors=1, sim=0.7, own_prompt=False))
    across = read_results([write(tmp_path / "across", rows)]).remarks
    [said] = [remark for remark in across if "own beginnings" in remark]
    assert said.startswith("Voice (SIM-o): ")
    assert said.endswith("SoundStorm, prompted by another utterance")
    assert not [remark for remark in within if "own beginnings" in remark]


def test_empty_results_are_named(results):
    (results / "results.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"results/results\.jsonl is empty; make results with"):
        read_results([results])


def test_damaged_results_are_named(tmp_path, results):
    with open(results / "results.jsonl", "a") as stream:
        stream.write('{"id": 1}\n')
    with pytest.raises(ValueError, match=r"results\.jsonl line 7 is no result"):
        read_results([results])
    with pytest.raises(FileNotFoundError, match="nowhere holds no results"):
        read_results([tmp_path / "nowhere"])


def test_the_command_takes_several_folders(tmp_path, results):
    more = write(tmp_path / "more", [result("a", "audiolm", "prompted", "short", errors=0)])
    options = ["--output", str(tmp_path / "out"), "--resamples", "10", "--published", "false"]
    main(["report", str(results), str(more), *options])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "AudioLM, prompted" in text
    assert "published" not in text


def test_a_report_writer_needs_results(tmp_path):
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[ReportWriter()], default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="needs a ResultsWriter"):
        trainer.callbacks[0].setup(trainer, None, "test")


def test_other_recordings_of_the_same_systems_are_refused_and_not_taken_for_doubles(tmp_path, results):
    other = write(tmp_path / "other", [result("a", "original", "reference", "short", errors=0, text="other words")])
    with pytest.raises(ValueError, match=r"a has text 'text a' in .*results and 'other words' in .*other"):
        read_results([results, other])


def test_names_that_differ_have_sounds_that_differ(tmp_path):
    rows = [result("u 1", system, "prompted", "short", errors=1) for system in ("a b", "a+b")]
    rows += [result("u+1", "a b", "prompted", "short", errors=1)]
    folder = write(tmp_path / "results", rows)
    for number, row in enumerate(rows):
        row["clip"] = f"clips/{number}.flac"
        (folder / "clips").mkdir(exist_ok=True)
        soundfile.write(folder / row["clip"], np.full(8000, 0.1 * (number + 1)), 16_000)
    write(folder, rows)
    report([folder], tmp_path / "report", resamples=10)
    sounds = sorted((tmp_path / "report").glob("clips/*/*.flac"))
    assert sorted(round(float(soundfile.read(sound)[0].max()), 1) for sound in sounds) == [0.1, 0.2, 0.3]
    (folder / rows[0]["clip"]).write_bytes(b"no audio")
    with pytest.raises(ValueError, match=r"0\.flac cannot be decoded .*; evaluate again"):
        report([folder], tmp_path / "again", resamples=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problems": None}, "problems is None, no mapping"),
        ({"revisions": []}, r"revisions is \[\], no mapping"),
        ({"text": 7}, "text is 7, no text"),
        ({"clip": "clips/a.flac", "seconds": None}, "it has a clip and no seconds"),
        ({"system": "a\nb"}, "no name"),
        ({"scores": {"wer": {"words": -3, "word_errors": 1}}}, "wer/wer: words is -3"),
    ],
)
def test_a_damaged_result_is_named_with_its_line(tmp_path, results, change, message):
    rows = [json.loads(line) for line in (results / "results.jsonl").read_text().splitlines()]
    (results / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [rows[0], rows[1] | change]))
    with pytest.raises(ValueError, match=rf"results\.jsonl line 2 is no result .*{message}"):
        read_results([results])


def test_bytes_that_are_no_text_are_named_with_their_file(results):
    (results / "results.jsonl").write_bytes(b"\xff" + (results / "results.jsonl").read_bytes())
    with pytest.raises(ValueError, match=r"results\.jsonl is damaged \('utf-8' codec"):
        read_results([results])


def test_a_line_ends_where_its_line_break_is(tmp_path):
    folder = write(tmp_path / "results", [result("a", "original", "reference", "short", errors=0)])
    row = result("a", "original", "reference", "short", errors=0, text="one\u2028two")
    (folder / "results.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_results([folder]).utterances[0]["text"] == "one\u2028two"


def test_each_of_three_scorers_of_one_measure_is_named(tmp_path):
    folders = []
    for name in ("wer", "second", "third"):
        folder = write(tmp_path / name, [result("a", "original", "reference", "short", errors=0)])
        run = json.loads((folder / "run.json").read_text())
        for scorer in run["scorers"]:
            scorer["name"] = name if scorer["name"] == "wer" else scorer["name"]
        (folder / "run.json").write_text(json.dumps(run))
        folders.append(folder)
    labels = [column.label for column in read_results(folders).columns]
    assert {"WER % (wer)", "WER % (second)", "WER % (third)"} <= set(labels)
    assert "WER %" not in labels


def test_prompts_of_different_lengths_in_one_row_are_named(tmp_path, results):
    assert not [remark for remark in read_results([results]).remarks if "different lengths" in remark]
    rows = [
        result(str(seconds), "soundstorm", "prompted", "short", errors=0, prompt_seconds=seconds, own_prompt=own)
        for seconds, own in ((3.0, True), (3.01, True), (5.0, False))
    ]
    remarks = read_results([write(tmp_path / "mixed", rows)]).remarks
    assert "SoundStorm, prompted: prompts of different lengths are averaged: 3 s (2), 5 s (1)" in remarks
    assert "SoundStorm, prompted: prompts of the utterances themselves and of others are averaged" in remarks
    rows = [result(str(n), "soundstorm", "prompted", "short", errors=0, prompt_seconds=n + 0.5) for n in range(5)]
    remarks = read_results([write(tmp_path / "list", rows)]).remarks
    assert "SoundStorm, prompted: prompts of different lengths are averaged: 0.5 to 4.5 s" in remarks


def test_sounds_that_are_gone_are_named(tmp_path, results):
    add_sounds(results)
    (results / "clips" / "b" / "soundstorm-prompted.flac").unlink()
    report([results], tmp_path / "report", resamples=10)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "1 sounds that results name are not there, and not to be heard" in text
    assert "b/soundstorm-prompted.flac" in text


def test_splits_without_a_column_are_named(tmp_path):
    rows = [
        result(id, "original", "reference", split, errors=0)
        for id, split in zip("abc", ("other", "dev", "dev"), strict=True)
    ]
    remarks = read_results([write(tmp_path / "results", rows)]).remarks
    assert "1 clips last less than 4 or more than 30 s: in no split of the table, only in “all”" in remarks
    assert "2 clips are of a split 'dev': in no split of the table, only in “all”" in remarks


def test_line_breaks_and_bars_break_no_table(tmp_path):
    folder = write(tmp_path / "results", [result("a", "a|b", "prompted", "short", errors=0)])
    run = json.loads((folder / "run.json").read_text())
    run["absent"][0]["reason"] = "is not\nhere"
    run["rejected"] = [{"id": "z", "path": "z.wav", "reason": "broke\n\nin two"}]
    (folder / "run.json").write_text(json.dumps(run))
    report([folder], tmp_path / "report", resamples=10)
    text = (tmp_path / "report" / "report.md").read_text()
    assert r"| a\|b, prompted" in text
    assert "is not here" in text
    assert "z was left out: broke in two" in text
    behind = (tmp_path / "report" / "table.tex").read_text().rpartition(r"\end{table*}")[2]
    assert all(line.startswith("%") for line in behind.strip().split("\n"))


def test_a_scorer_without_scores_in_its_own_run_is_told_from_one_that_was_not_run(tmp_path):
    row = result("a", "original", "reference", "short", errors=0)
    row["revisions"]["consistency"] = "consistency@"
    remarks = read_results([write(tmp_path / "results", [row])]).remarks
    assert "Consistency, Original: 1 of 1 results hold no scores of 'consistency'" in remarks
    assert "Voice (SIM-o), Original: 1 of 1 results hold no scores of 'voice'" in remarks


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        rows = [result(place, "original", "reference", "short", errors=0)]
        folders.append(write(tmp_path / place / "results", rows, data={"gone: left out": [f"{place}-x"]}))
    remarks = read_results(folders).remarks
    assert {f"1 utterances gone: left out ({folder}): {folder.parent.name}-x" for folder in folders} <= set(remarks)


def test_each_number_tells_what_rendered_and_what_scored_it(tmp_path, results):
    run = json.loads((results / "run.json").read_text())
    card = {
        "system": "soundstorm",
        "condition": "prompted",
        "codec": {"name": "dac", "revision": "7"},
        "weights": "xxh3:1",
    }
    run["cards"] = [card | {"sampling": {"schedule": {"temperature": 1.0}}}]
    run["scorers"][0]["identity"]["normalizer"] = "english"
    (results / "run.json").write_text(json.dumps(run))
    report([results], tmp_path / "report", resamples=10)
    line = "SoundStorm, prompted: weights xxh3:1; codec dac@7; schedule {'temperature': 1.0}"
    assert f"- {line}\n" in (tmp_path / "report" / "report.md").read_text()
    assert html.escape(line) in (tmp_path / "report" / "index.html").read_text()
    cells = table(tmp_path / "report")
    assert cells["measured", "reference", "original", "wer", "all"]["scored_by"] == "asr@1, normalised by english"
    assert cells["published", "prompted", "soundstorm", "wer", "long"]["scored_by"] == ""


def test_texts_normalised_in_another_way_than_their_run_are_refused(results):
    lines = (results / "results.jsonl").read_text().splitlines()
    run = json.loads((results / "run.json").read_text())
    run["scorers"][0]["identity"]["normalizer"] = "english"
    (results / "run.json").write_text(json.dumps(run))
    lines[1] = json.dumps(json.loads(lines[1]) | {"normalizers": {"wer": "basic"}})
    (results / "results.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="'wer' normalised b by basic, not english"):
        read_results([results])


def test_rows_that_only_the_figure_shows_are_named(tmp_path):
    rows = [result("a", system, "prompted", "short", errors=0) for system in ("soundstorm", "my-finer-2")]
    remarks = read_results([write(tmp_path / "results", rows)]).remarks
    assert "1 rows over iterations are in the figure and table.csv only: my-finer-2" in remarks


def test_a_measure_that_applies_to_no_clip_is_not_said_to_be_measured(tmp_path):
    rows = [result("a", "original", "reference", "short", errors=0, sim=0.5)]
    report([write(tmp_path / "results", rows)], tmp_path / "report", resamples=10)
    text = (tmp_path / "report" / "report.md").read_text()
    assert re.search(r"Voice \(SIM-r\).*: Applies to no clip\.", text)
    assert "Voice (SIM-o): Measured with xv (1)." in text


def test_a_row_of_which_every_clip_lost_a_score_is_named(tmp_path):
    rows = [result(id, "original", "reference", "short", errors=1) for id in "ab"]
    for row in rows:
        del row["scores"]["wer"]["word_errors"]
    assert "WER %, Original: 2 × no finite value: a, b" in read_results([write(tmp_path / "results", rows)]).remarks


def test_without_published_numbers_nothing_is_said_of_them(tmp_path, results):
    for published in (True, False):
        report([results], tmp_path / "report", resamples=10, published=published)
        page = (tmp_path / "report" / "index.html").read_text()
        assert ("beside published" in page) is published
        assert ("Borsos" in page) is published


@pytest.mark.parametrize("name", ["clips", "worst", "resamples"])
def test_a_negative_number_is_refused(tmp_path, results, name):
    with pytest.raises(ValueError, match=f"{name}=-1 must not be negative; 0 is for none"):
        report([results], tmp_path / "report", **{name: -1})


def test_clips_are_sorted_by_what_differs_from_clip_to_clip(tmp_path, results):
    add_sounds(results)
    report([results], tmp_path / "report", resamples=10)
    menu = (
        (tmp_path / "report" / "index.html").read_text().partition("<select id=measure>")[2].partition("</select>")[0]
    )
    assert 'value="wer/wer"' in menu
    assert "_mean" not in menu


def test_the_papers_numbers_need_no_torch():
    code = "import sys, pipeline.paper; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
