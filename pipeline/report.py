"""Makes tables, figures and a page to listen to from results folders."""

import shutil
from pathlib import Path

import soundfile

from datamodules.audio_sources import distinct_file_name
from modules.atomic import write_atomically
from modules.evaluation.choice import choose_worst, ranking_measure, spread_evenly
from pipeline.figures import draw_figures
from pipeline.page import Clip, Rendering, make_page
from pipeline.results import read_results
from pipeline.rows import Results, Row
from pipeline.spectrograms import draw_spectrogram
from pipeline.table import make_sections, without_sweeps
from pipeline.table_latex import table_latex
from pipeline.table_text import aligned, table_csv, table_markdown, table_summary
from pipeline.timings import read_timings, speed_cells, sum_up, timings_file


def report(
    results: list[Path],
    output: Path = Path("runs/report"),
    clips: int = 6,
    worst: int = 6,
    resamples: int = 2000,
    published: bool = True,
) -> None:
    """Turn results into the paper's table, measured beside published, figures, and a page to look at and listen to.

    Writes ``index.html`` with its pictures and sounds, ``report.md``, ``table.csv`` and ``table.tex``, and prints the
    table. Rows of an ablation over iterations are in the figure and in ``table.csv`` only.

    Args:
        results: Folders that ``soundstorm test`` wrote, joined into one table, and folders with a ``speed.jsonl``.
        output: Folder of the report.
        clips: Utterances on the page, spread evenly over those that have sounds.
        worst: How many more, of which a system made the worst by the first measure.
        resamples: Draws of the bootstrap for the confidence intervals.
        published: Whether to put the paper's numbers beside the measured ones.

    Raises:
        FileNotFoundError: A folder holds no results.
        ValueError: A file is damaged or of another run, or scores of one name come from different models; or a number
            is negative.
    """
    for name, number in (("clips", clips), ("worst", worst), ("resamples", resamples)):
        if number < 0:
            raise ValueError(f"{name}={number} must not be negative; 0 is for none")
    speeds = sum_up(read_timings(results))
    found = read_results([folder for folder in results if not holds_timings_only(folder)])
    everything = make_sections(found, resamples, published)
    sections = without_sweeps(everything)
    output.mkdir(parents=True, exist_ok=True)
    pictures = draw_figures(found, speeds, output, resamples)
    shown = copy_clips(found, output, clips, worst)
    page = make_page(found, sections, shown, pictures, speeds)
    text = f"# SoundStorm evaluation\n\n{table_markdown(sections)}"
    if speeds:
        text += f"\n## Speed\n\n{aligned(speed_cells(speeds))}\n"
    text += "".join(f"\n## {drawn.title}\n\n![{drawn.title}]({drawn.file})\n\n{drawn.caption}\n" for drawn in pictures)
    if found.origins:
        text += "\n## What rendered the rows\n\n" + "".join(f"- {origin}\n" for origin in found.origins)
    remarks = "".join(f"- {remark}\n" for remark in found.remarks)
    write_atomically(output / "table.csv", table_csv(everything))
    write_atomically(output / "table.tex", table_latex(sections))
    write_atomically(output / "report.md", text + (f"\n## Missing, double, unscored\n\n{remarks}" if remarks else ""))
    write_atomically(output / "index.html", page)
    print(f"\n{table_summary(sections)}")
    if speeds:
        print(f"{aligned(speed_cells(speeds))}\n")
    if remarks:
        print(remarks)
    print(f"Confidence intervals, figures and {len(shown)} clips to listen to: {output / 'index.html'}")


def holds_timings_only(given: Path) -> bool:
    """Tell whether a path leads to a benchmark and not to results."""
    return timings_file(given) is not None and not (given / "results.jsonl").is_file()


def copy_clips(results: Results, output: Path, number: int, worst: int) -> list[Clip]:
    """Bring sounds and spectrograms of some utterances beside the page.

    Args:
        results: What was found; its folders hold the sounds.
        output: Folder of the page.
        number: How many utterances, spread evenly over those that have sounds.
        worst: How many more, the worst of them by the first measure.

    Returns:
        The clips, with their files; of sounds that are not there a remark is added to the results.
    """
    by_id: dict[str, list[dict]] = {}
    lost = []
    for utterance in results.utterances:
        if utterance.get("clip"):
            file = utterance["folder"] / utterance["clip"]
            if file.is_file():
                by_id.setdefault(utterance["id"], []).append(utterance)
            else:
                lost.append(file)
    if lost:
        results.remarks.append(f"{len(lost)} sounds that results name are not there, and not to be heard: {lost[0]}")
    chosen = dict.fromkeys(spread_evenly(sorted(by_id), number), "")
    measures = [(column.scorer, column.measure) for column in results.columns if column.identity is not None]
    if (by := ranking_measure(measures)) is not None:
        sounding = [utterance for utterances in by_id.values() for utterance in utterances]
        chosen |= dict.fromkeys(choose_worst(sounding, *by, worst), f"among the worst by {by[1].label}")
    return [_copy_clip(by_id[id], output, results.rows, why) for id, why in sorted(chosen.items())]


def _copy_clip(utterances: list[dict], output: Path, rows: list[Row], why: str) -> Clip:
    renderings = []
    utterances = sorted(utterances, key=lambda found: rows.index(Row(found["condition"], found["system"])))
    folder = distinct_file_name(utterances[0]["id"])
    longest = max(utterance["seconds"] for utterance in utterances)
    for utterance in utterances:
        row = Row(utterance["condition"], utterance["system"])
        name = f"clips/{folder}/{distinct_file_name(f'{row.system}-{row.condition}')}"
        sound, picture = output / f"{name}.flac", output / f"{name}.png"
        sound.parent.mkdir(parents=True, exist_ok=True)
        original = utterance["folder"] / utterance["clip"]
        if not (sound.exists() and sound.samefile(original)):
            shutil.copyfile(original, sound)
        try:
            audio, sample_rate = soundfile.read(sound, dtype="float32")
        except (RuntimeError, OSError) as error:
            raise ValueError(
                f"{original} cannot be decoded ({error}); evaluate again, or report with clips 0"
            ) from None
        prompt_seconds = 0.0 if row.condition == "reference" else utterance["prompt_seconds"]
        draw_spectrogram(audio, sample_rate, picture, longest, prompt_seconds)
        renderings.append(Rendering(row, f"{name}.flac", f"{name}.png", utterance))
    first = utterances[0]
    return Clip(first["id"], first.get("text", ""), first.get("speaker", ""), first["seconds"], renderings, why)
