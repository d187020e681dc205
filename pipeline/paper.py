"""The paper's own numbers, and nothing that was measured: ``soundstorm published``."""

from pathlib import Path

from pipeline.rows import PAPER_SPLITS
from pipeline.table import PAPER_LABELS, published_lines
from pipeline.table_text import aligned, format_cell

# What the paper's text says beside Table 1.
STATED = (
    "Runtime: real-time factor 0.017 on one TPU v4 for 30 s, decoding to audio included; two orders of magnitude below "
    "AudioLM's acoustic stages.",
    "Iterations: 16 at level 1 give 0.1 to 0.2 more estimated quality than level-wise greedy decoding; more than 16 "
    "there, or more than one at other levels, give no significant gain.",
    "Detection: a classifier finds 98.5 % of the generated speech.",
)
SOURCE = (
    "Borsos et al. 2023, SoundStorm: Efficient Parallel Audio Generation, Table 1 and text; LibriSpeech test-clean."
)


def paper_numbers() -> str:
    """The paper's numbers in Markdown."""
    tables = []
    for metric, label in PAPER_LABELS.items():
        arrow = "↓" if metric in ("wer", "cer") else "↑"
        body = [
            [line.label, *(format_cell(line.cells[split], 2, intervals=False) for split in PAPER_SPLITS)]
            for line in published_lines(metric)
        ]
        tables.append(aligned([[f"{label} {arrow}", *PAPER_SPLITS], *body]) + "\n")
    return "\n".join([*tables, *(f"- {line}" for line in (*STATED, f"Source: {SOURCE}"))]) + "\n"


def published(output: Path | None = None) -> None:
    """Print the paper's numbers.

    Args:
        output: Markdown file to write them to as well.
    """
    text = paper_numbers()
    if output is not None:
        output.write_text(text, encoding="utf-8")
    print(text)
