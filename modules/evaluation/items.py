"""What the scorers see: one utterance of one system beside its original recording."""

from typing import NamedTuple

from torch import Tensor

from modules.batches import Rejection

# The paper's splits by duration, half-open so that no clip falls into two: [4, 10), [10, 20), [20, 30] seconds.
SPLITS = ("short", "mid", "long", "other")


def split_of(seconds: float) -> str:
    """Name the split of LibriSpeech test-clean (section 4.1 of the paper) that a duration belongs to.

    Args:
        seconds: Duration of the original recording.

    Returns:
        ``short`` for [4, 10) s, ``mid`` for [10, 20) s, ``long`` for [20, 30] s, ``other`` outside of them.
    """
    if 4 <= seconds < 10:
        return "short"
    if 10 <= seconds < 20:
        return "mid"
    if 20 <= seconds <= 30:
        return "long"
    return "other"


class EvaluationItem(NamedTuple):
    """One utterance as one system rendered it."""

    id: str
    system: str  # "original", "reconstruction", "soundstorm", ...
    condition: str  # "reference", "unprompted", "prompted" or "prompted_other"
    split: str  # one of SPLITS, by the duration of the original
    audio: Tensor  # [N] float32 mono, what is scored, prompt included
    original: Tensor  # [M] float32 mono, the recording of the utterance
    sample_rate: int  # Hz, of both
    prompt_seconds: float  # leading seconds of `audio` that are the prompt; 0 where there is none
    own_prompt: bool  # whether the prompt is the utterance's own beginning, or was put before the utterance
    seed: int | None  # the random stream the codes were drawn from; None for recordings
    speaker: str  # "" where unknown
    text: str  # "" where unknown
    other_prompt: Tensor | None = None  # [P] float32 mono, the prompt as recorded, where another utterance gave it
    prompt_problem: str = ""  # why that recording cannot be had

    @property
    def prompt_samples(self) -> int:
        """Leading samples of ``audio`` that are the prompt."""
        return round(self.prompt_seconds * self.sample_rate)

    @property
    def recorded_prompt(self) -> Tensor | None:
        """The prompt as recorded; None where that cannot be had."""
        return self.original[: self.prompt_samples] if self.own_prompt else self.other_prompt

    @property
    def continuation(self) -> Tensor:
        """The audio with the prompt cut off."""
        return self.audio[self.prompt_samples :]

    @property
    def original_continuation(self) -> Tensor:
        """What :attr:`continuation` renders, as recorded."""
        return self.original[self.prompt_samples :] if self.own_prompt else self.original

    @property
    def spoken(self) -> Tensor:
        """The audio of the utterance's text: all of it, or what comes after the prompt of another utterance."""
        return self.audio if self.own_prompt else self.continuation


class EvaluationBatch(NamedTuple):
    """Items of one batch, and what could not be read."""

    items: list[EvaluationItem]
    rejected: list[Rejection]
