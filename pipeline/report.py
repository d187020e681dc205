"""Makes tables, figures and a page to listen to from results folders."""

import shutil
from pathlib import Path

import soundfile

from datamodules.audio_sources import safe_id
from datamodules.token_card import write_atomically
from pipeline.page import Clip, Rendering, make_page
from pipeline.results import Results, Row, read_results
from pipeline.spectrograms import draw_consistency, draw_spectrogram
from pipeline.table import make_sections
from pipeline.table_text import table_csv, table_markdown, table_summary


def report(
    results: list[Path],
    output: Path = Path("runs/report"),
    clips: int = 6,
    resamples: int = 2000,
    published: bool = True,
) -> None:
    """Turn results into the paper's table, measured beside published, and a page to look at and listen to.

    Writes ``index.html``, ``report.md``, ``table.csv`` and the pictures and sounds of the page, and prints the table.

    Args:
        results: Folders that ``soundstorm test`` wrote; several are joined into one table.
        output: Folder of the report.
        clips: Utterances on the page.
        resamples: Draws of the bootstrap for the confidence intervals.
        published: Whether to put the paper's numbers beside the measured ones.

    Raises:
        FileNotFoundError: A folder holds no results.
        ValueError: A file is damaged, or scores of one name come from different models.
    """
    found = read_results(results)
    sections = make_sections(found, resamples, published)
    output.mkdir(parents=True, exist_ok=True)
    caption = draw_consistency(found, output / "consistency.png")
    shown = copy_clips(found, output, clips)
    page = make_page(found, sections, shown, ("consistency.png", caption) if caption else None)
    remarks = "".join(f"- {remark}\n" for remark in found.remarks)
    text = f"# SoundStorm evaluation\n\n{table_markdown(sections)}"
    write_atomically(output / "table.csv", table_csv(sections))
    write_atomically(output / "report.md", text + (f"\n## Missing, double, unscored\n\n{remarks}" if remarks else ""))
    write_atomically(output / "index.html", page)
    print(f"\n{table_summary(sections)}")
    if remarks:
        print(remarks)
    print(f"Confidence intervals, figures and {len(shown)} clips to listen to: {output / 'index.html'}")


def copy_clips(results: Results, output: Path, number: int) -> list[Clip]:
    """Bring sounds and spectrograms of some utterances beside the page.

    Args:
        results: What was found; its folders hold the sounds.
        output: Folder of the page.
        number: How many utterances, spread evenly over those that have sounds.

    Returns:
        The clips, with their files.
    """
    by_id: dict[str, list[dict]] = {}
    for utterance in results.utterances:
        if utterance.get("clip") and (utterance["folder"] / utterance["clip"]).is_file():
            by_id.setdefault(utterance["id"], []).append(utterance)
    ids = sorted(by_id)
    chosen = ids[:: max(1, -(-len(ids) // number))][:number] if number else []
    return [_copy_clip(by_id[id], output, results.rows) for id in chosen]


def _copy_clip(utterances: list[dict], output: Path, rows: list[Row]) -> Clip:
    renderings = []
    utterances = sorted(utterances, key=lambda found: rows.index(Row(found["condition"], found["system"])))
    folder = safe_id(utterances[0]["id"])
    longest = max(utterance["seconds"] for utterance in utterances)
    for utterance in utterances:
        row = Row(utterance["condition"], utterance["system"])
        name = f"clips/{folder}/{safe_id(f'{row.system}-{row.condition}')}"
        sound, picture = output / f"{name}.flac", output / f"{name}.png"
        sound.parent.mkdir(parents=True, exist_ok=True)
        original = utterance["folder"] / utterance["clip"]
        if not (sound.exists() and sound.samefile(original)):
            shutil.copyfile(original, sound)
        audio, sample_rate = soundfile.read(sound, dtype="float32")
        prompt_seconds = 0.0 if row.condition == "reference" else utterance["prompt_seconds"]
        draw_spectrogram(audio, sample_rate, picture, longest, prompt_seconds)
        renderings.append(Rendering(row, f"{name}.flac", f"{name}.png", utterance))
    first = utterances[0]
    return Clip(first["id"], first.get("text", ""), first.get("speaker", ""), first["seconds"], renderings)
