"""The page of a report: tables, figures, and clips to listen to, in one file beside its sounds and pictures."""

import json
import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from pipeline.figures import Picture
from pipeline.rows import Column, Results, Row
from pipeline.table import SPLITS, Cell, Line, Section, holds_published
from pipeline.table_text import NOTHING, format_cell, heading, notes_markdown
from pipeline.timings import Speed, speed_cells

SPLIT_LABELS = {"short": "short<br>4–10 s", "mid": "mid<br>10–20 s", "long": "long<br>20–30 s", "all": "all<br>clips"}

PUBLISHED = (
    " Numbers marked “paper” are those of Borsos et al. 2023, Table 1, on LibriSpeech test-clean with scorers that are "
    "not public: they show the order of magnitude, they are no competitor on the same clips."
)


class Rendering(NamedTuple):
    """One utterance as one system rendered it, to look at and to listen to."""

    row: Row
    sound: str  # file, relative to the page
    picture: str
    utterance: dict[str, Any]


class Clip(NamedTuple):
    """One utterance in all renderings."""

    id: str
    text: str
    speaker: str
    seconds: float
    renderings: list[Rendering]
    why: str = ""  # it is shown, where that is not by its place in the set


def make_page(
    results: Results,
    sections: Sequence[Section],
    clips: Sequence[Clip],
    pictures: Sequence[Picture],
    speeds: Sequence[Speed],
) -> str:
    """Write the page.

    Args:
        results: What was found.
        sections: The table.
        clips: What can be listened to.
        pictures: The figures.
        speeds: What was timed.

    Returns:
        HTML that fetches nothing from elsewhere.
    """
    ids = {utterance["id"] for utterance in results.utterances}
    speakers = {utterance["speaker"] for utterance in results.utterances if utterance.get("speaker")}
    count = f"Utterances: {len(ids)}" + (f" (speakers: {len(speakers)})" if speakers else "")
    in_paper = [section for section in sections if section.paper]
    further = [section for section in sections if not section.paper and section.lines]
    systems = [row.label for row in results.rows if row.sweep is None]
    published = holds_published(sections)
    jump = " <a href='#listen'>Listen.</a>" if clips else ""
    parts = [
        "<h1>SoundStorm evaluation</h1>",
        f"<p class=soft>{count}. Systems: {'; '.join(map(escape, systems))}. "
        f"Intervals: 95 %, bootstrap by utterance.{PUBLISHED if published else ''}{jump}</p>",
        f"<h2>Table 1{', measured beside published' if published else ''}</h2>",
        _cards(in_paper),
    ]
    if further:
        parts += ["<h2>Further measures</h2>", _cards(further)]
    if unmeasured := [section for section in sections if not any(not line.published for line in section.lines)]:
        parts.append(f"<div class='card absent'>{_list(notes_markdown(unmeasured).splitlines())}</div>")
    for picture in pictures:
        parts += [
            f"<h2>{escape(picture.title)}</h2>",
            f'<figure class=card><div class=scroll><a href="{quote(picture.file)}">'
            f'<img src="{quote(picture.file)}" alt="{escape(picture.title)}"></a></div>'
            f"<figcaption class=soft>{escape(picture.caption)}</figcaption></figure>",
        ]
        if picture.file == "runtime.png":
            parts.append(_speeds(speeds))
    if clips:
        parts += ["<h2 id=listen>Listen</h2>", _controls(clips, results.columns), "<div id=clips>"]
        parts += [*(_clip(clip, results) for clip in clips), "</div>"]
    if results.origins:
        parts += ["<h2>What rendered the rows</h2>", f"<div class=card>{_list(results.origins)}</div>"]
    if results.remarks:
        parts += ["<h2>Missing, double, unscored</h2>", f"<div class=card>{_list(results.remarks)}</div>"]
    css, script = (_resource(name) for name in ("page.css", "page.js"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>SoundStorm evaluation</title><link rel="icon" href="data:,"><style>\n{css}</style></head>\n'
        "<body><main>\n" + "\n".join(parts) + f"\n</main><script>\n{script}</script></body></html>\n"
    )


def _resource(name: str) -> str:
    return resources.files("pipeline").joinpath(name).read_text(encoding="utf-8")


def _speeds(speeds: Sequence[Speed]) -> str:
    head, *body = speed_cells(speeds)
    header = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in head)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<div class='card scroll'>{table}</div>"


def _key(row: Row) -> str:
    return f"{row.system}-{row.condition}"


def _controls(clips: Sequence[Clip], columns: Sequence[Column]) -> str:
    """The line above the clips from which they are sorted."""
    scored = [
        column
        for column in columns
        if column.measure.higher_is_better is not None and _per_clip(column) and _scored(clips, column)
    ]
    if not scored:
        return ""
    measures = "".join(
        f'<option value="{escape(_measure_key(column))}" data-digits={column.measure.digits} '
        f"data-better={'higher' if column.measure.higher_is_better else 'lower'}>{escape(column.label)}</option>"
        for column in scored
    )
    rows = dict.fromkeys(rendering.row for clip in clips for rendering in clip.renderings)
    systems = "".join(
        f'<option value="{escape(_key(row))}"{"" if row.condition == "reference" else " data-generated=1"}>'
        f"{escape(row.label)}</option>"
        for row in rows
    )
    order = "<option value=given>as listed</option><option value=worst>worst first</option>"
    return (
        "<form class='card controls' autocomplete=off>"
        f"<label>Sort by <select id=measure>{measures}</select></label>"
        f"<label>of <select id=system><option value=''>the worst system</option>{systems}</select></label>"
        f"<label>Order <select id=order>{order}<option value=best>best first</option></select></label></form>"
    )


def _measure_key(column: Column) -> str:
    return f"{column.scorer}/{column.measure.name}"


def _per_clip(column: Column) -> bool:
    # Of a measure at corpus level one utterance shows the same ratio as of its mean: once is enough.
    return not column.measure.name.endswith("_mean")


def _scored(clips: Sequence[Clip], column: Column) -> bool:
    return any(_value(rendering, column) is not None for clip in clips for rendering in clip.renderings)


def _value(rendering: Rendering, column: Column) -> float | None:
    """A measure of one utterance, in the units of the table; ``None`` where there is none."""
    terms = column.measure.terms(rendering.utterance["scores"].get(column.scorer, {}))
    if terms is None or not all(map(math.isfinite, terms)):
        return None
    return column.measure.scale * terms[0] / terms[1]


def _cards(sections: Sequence[Section]) -> str:
    return f"<div class=sections>{''.join(map(_card, sections))}</div>"


def _list(lines: Sequence[str]) -> str:
    items = (escape(line.removeprefix("- ")) for line in lines)
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _card(section: Section) -> str:
    head = "".join(f"<th scope=col>{SPLIT_LABELS[split]}</th>" for split in SPLITS)
    body, condition = [], None
    for line in section.lines:
        if line.row.condition != condition:
            condition = line.row.condition
            name = escape(line.row.condition_name.capitalize())
            body.append(f"<tr class=condition><th colspan={len(SPLITS) + 1}><span>{name}</span></th></tr>")
        body.append(_line(line, section.digits))
    return (
        f"<section class=card><h3>{escape(heading(section))}</h3><div class=scroll><table>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f"<p class=soft>{escape(section.note)}</p></section>"
    )


def _line(line: Line, digits: int) -> str:
    name = escape(line.row.name)
    label = f"{name} <span class=badge>paper</span>" if line.published else name
    cells = "".join(f"<td>{_cell(line.cells.get(split, NOTHING), digits)}</td>" for split in SPLITS)
    return f"<tr{' class=published' if line.published else ''}><td>{label}</td>{cells}</tr>"


def _cell(cell: Cell, digits: int) -> str:
    text = format_cell(cell, digits, intervals=False)
    below = []
    if not math.isnan(cell.low):
        below.append(f"{cell.low:.{digits}f} … {cell.high:.{digits}f}")
    if cell.clips or cell.missing:
        below.append(f"n = {cell.clips}" + (f", {cell.missing} missing" if cell.missing else ""))
    return text + "".join(f"<small>{line}</small>" for line in below)


def _clip(clip: Clip, results: Results) -> str:
    speaker = f" · speaker {escape(clip.speaker)}" if clip.speaker else ""
    why = f" · {escape(clip.why)}" if clip.why else ""
    renderings = "".join(_rendering(rendering, results) for rendering in clip.renderings)
    text = escape(clip.text) or "<span class=soft>no transcript</span>"
    scores: dict[str, dict[str, float]] = {}
    for column in results.columns:
        for rendering in clip.renderings:
            if (value := _value(rendering, column)) is not None:
                scores.setdefault(_measure_key(column), {})[_key(rendering.row)] = round(value, 6)
    return (
        f'<section class="card clip" data-id="{escape(clip.id)}" data-scores="{escape(json.dumps(scores))}">'
        f"<h3>{escape(clip.id)}</h3><output></output><p class=soft>{clip.seconds:.1f} s{speaker}{why}</p>"
        f"<p class=text>{text}</p><div class=renderings>{renderings}</div></section>"
    )


def _rendering(rendering: Rendering, results: Results) -> str:
    scores = []
    for column in results.columns:
        found = _value(rendering, column)
        if found is None or not _per_clip(column):
            continue
        value = f"{found:.{column.measure.digits}f}"
        scores.append(f"<div><dt>{escape(column.label)}</dt><dd>{value}</dd></div>")
    heard = "".join(
        f"<p class=heard><span class=soft>heard:</span> {escape(transcript)}</p>"
        for values in rendering.utterance["scores"].values()
        if (transcript := values.get("transcript"))
    )
    label = escape(rendering.row.label)
    return (
        f'<div class=rendering><strong>{label}</strong> <small class="soft length"></small>'
        f'<img src="{quote(rendering.picture)}" loading=lazy '
        f'alt="Spectrogram, {label}"><audio controls preload=metadata src="{quote(rendering.sound)}"></audio>'
        f"<dl>{''.join(scores)}</dl>{heard}</div>"
    )
