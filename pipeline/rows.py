"""What a report is made of: rows, columns, and the results in them."""

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from modules.measure import Measure

CONDITIONS = {
    "reference": "recordings",
    "unprompted": "unprompted",
    "prompted": "prompted",
    "prompted_other": "prompted by another utterance",
}


SYSTEMS = {"original": "Original", "reconstruction": "Codec reconstruction", "soundstorm": "SoundStorm"}


SYSTEMS |= {
    "audiolm": "AudioLM",
    "valle": "VALL-E",
    "valle2": "VALL-E 2",
    "original_soundstream_rec": "SoundStream reconstruction",
}


PAPER_SPLITS = ("short", "mid", "long")  # by duration, see modules.evaluation.items.split_of


# How the systems of the paper's iteration ablation (Figure 4) are named: soundstorm-level1-8, soundstorm-finer-2.
SWEEP_NAME = re.compile(r"(?P<system>.+)-(?P<levels>level1|finer)-(?P<iterations>[1-9]\d*)")


SWEEP_LABELS = {"level1": "at level 1", "finer": "at each finer level"}


class Sweep(NamedTuple):
    """One point of a curve over decoding iterations."""

    system: str
    levels: str  # "level1" or "finer": where the iterations are varied
    iterations: int


class Row(NamedTuple):
    """A row of the table."""

    condition: str
    system: str

    @property
    def name(self) -> str:
        """The system's name."""
        if (sweep := self.sweep) is not None:
            name, plural = SYSTEMS.get(sweep.system, sweep.system), "s" if sweep.iterations > 1 else ""
            return f"{name}, {sweep.iterations} iteration{plural} {SWEEP_LABELS[sweep.levels]}"
        return SYSTEMS.get(self.system, self.system)

    @property
    def sweep(self) -> Sweep | None:
        """The point of an ablation over iterations that the system's name says it is, if it does."""
        found = SWEEP_NAME.fullmatch(self.system)
        return Sweep(found["system"], found["levels"], int(found["iterations"])) if found else None

    @property
    def condition_name(self) -> str:
        """What the system was given."""
        return CONDITIONS.get(self.condition, self.condition)

    @property
    def label(self) -> str:
        """The system's name, and the condition where it is not a recording's."""
        return self.name if self.condition == "reference" else f"{self.name}, {self.condition_name}"


class Column(NamedTuple):
    """A measure and the scorer that filled it."""

    scorer: str
    measure: Measure
    label: str
    identity: dict[str, Any] | None  # None: the scorer was not available


@dataclass
class Results:
    """Everything that was found by one or several evaluations.

    Attributes:
        utterances: Rows of ``results.jsonl``; ``folder`` is added, where their clips lie.
        columns: Measures, in the order of the configuration.
        absent: Scorer -> why it has no numbers, and the remedy.
        cards: What rendered the rows but the recordings, see ``datamodules.generated_set.GeneratedCard``.
        remarks: What a reader has to know: what was missing, double, unreadable.
    """

    utterances: list[dict[str, Any]] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    cards: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """Rows of the table: recordings first, then unprompted and prompted systems."""
        found = {Row(utterance["condition"], utterance["system"]) for utterance in self.utterances}
        return sorted(found, key=row_order)

    @property
    def origins(self) -> list[str]:
        """Say for each row, as far as it is known, which weights rendered it, with which codec and which settings."""
        lines = []
        for card in sorted(self.cards, key=lambda card: row_order(Row(card["condition"], card["system"]))):
            codec = card.get("codec") or {}
            facts = {
                "weights": card.get("weights"),
                "codec": "@".join(str(codec[key]) for key in ("name", "revision") if codec.get(key)),
                **{"sampling" if key == "name" else key: value for key, value in (card.get("sampling") or {}).items()},
            }
            told = "; ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, "", {}))
            if told:
                lines.append(f"{Row(card['condition'], card['system']).label}: {told}")
        return lines

    def of(self, row: Row, split: str | None = None) -> list[dict[str, Any]]:
        """Utterances of a row, of one split or of all."""
        return [
            utterance
            for utterance in self.utterances
            if (utterance["condition"], utterance["system"]) == row and split in (None, utterance["split"])
        ]


def row_order(row: Row) -> tuple[int, str, int, str]:
    """Sort recordings first, then unprompted and prompted systems, then conditions of the user's own."""
    condition = list(CONDITIONS).index(row.condition) if row.condition in CONDITIONS else len(CONDITIONS)
    base, levels, iterations = row.sweep or (row.system, "", 0)
    system = list(SYSTEMS).index(base) if base in SYSTEMS else len(SYSTEMS)
    return condition, row.condition, system, f"{base} {levels} {iterations:06d}"
