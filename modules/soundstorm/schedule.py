"""How many tokens are fixed in which pass, and how they are chosen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

Order = Literal["confidence", "random", "low_discrepancy"]


class Pass(NamedTuple):
    """One forward pass over one utterance, counted in tokens of its level (in spans, where those are fixed)."""

    num_masked: int  # masked when the pass begins
    num_fixed: int  # of these, fixed by it
    greedy: bool  # argmax instead of a sample
    remask: bool = False  # the masked tokens are the level's least confident ones, masked once more


@dataclass(frozen=True)
class DecodingSchedule:
    """Settings of the decoder; the defaults are the paper's.

    The paper states the iterations, the cosine schedule, sampling with confidence-based choice, and that the last
    iteration of a level is greedy. It does not state the temperatures; here tokens are sampled from the model's own
    distribution, and positions chosen by confidence alone.

    Attributes:
        iterations: Forward passes per RVQ level, coarse first: (16, 1, ..., 1). Where the last numbers are 0, the
            finest levels are left out: the codec decodes the others, and a weak network knows little of the finest.
        temperature: Temperature of the sampled tokens.
        choice_temperature: Scale of the Gumbel noise on the log-probabilities that positions are chosen by, annealed
            linearly to 0 over the iterations of a level (MaskGIT; 4.5 there, for images).
        top_k: Sample from the k most probable tokens only; 0 for all.
        top_p: Sample from the most probable tokens that hold this much probability; 1 for all.
        order: Which positions are fixed first: the most confident, random ones, or a fixed low-discrepancy (van der
            Corput) order that spreads the positions of one pass over the utterance.
        span_length: Score and fix runs of this many frames together (MAGNeT); 1 for single frames.
        guidance_scale: Classifier-free guidance w: logits become ``conditional + w * (conditional - unconditional)``;
            0 for none.
        guidance_rescale: Share in which the guided logits are brought back to the standard deviation of the
            conditional ones, per position.
        guidance_on: What the unconditional branch lacks: the voice ``prompt``, the ``semantic`` tokens, or ``both``.
            The network has to know that from training (``MaskingOptions.prompt_dropout``, ``semantic_dropout``).
        remask_passes: Extra passes at the end of each level with more than one iteration that mask the least
            confident tokens once more and predict them greedily; a token is masked again once at most.
        remask_fraction: Share of the tokens masked again in each of them.
    """

    iterations: Sequence[int] = (16, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    temperature: float = 1.0
    choice_temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    order: Order = "confidence"
    span_length: int = 1
    guidance_scale: float = 0.0
    guidance_rescale: float = 0.0
    guidance_on: Literal["prompt", "semantic", "both"] = "prompt"
    remask_passes: int = 0
    remask_fraction: float = 0.05

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is out of its range.
        """
        for field in fields(self):
            value, number = getattr(self, field.name), isinstance(field.default, int | float)
            if number and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{field.name}={value!r} must be a number")
        listed = isinstance(self.iterations, Sequence) and len(self.iterations) > 0
        if not listed or any(type(i) is not int or i < 0 for i in self.iterations):
            raise ValueError(f"iterations={self.iterations!r} must give each level a whole number, at least 0")
        if not all(self.iterations[: max(1, self.num_levels)]):
            raise ValueError(
                f"iterations={self.iterations!r}: the finest levels may be left out by 0, not one that others refine"
            )
        for name, holds, wanted in (
            ("temperature", self.temperature > 0, "be positive; for greedy decoding set iterations to 1 per level"),
            ("choice_temperature", self.choice_temperature >= 0, "not be negative"),
            ("top_k", self.top_k >= 0, "not be negative"),
            ("top_p", 0 < self.top_p <= 1, "lie in (0, 1]"),
            ("order", self.order in ("confidence", "random", "low_discrepancy"), "name a known order"),
            ("span_length", self.span_length >= 1, "be at least 1"),
            ("guidance_scale", self.guidance_scale >= 0, "not be negative"),
            ("guidance_rescale", 0 <= self.guidance_rescale <= 1, "lie in [0, 1]"),
            ("guidance_on", self.guidance_on in ("prompt", "semantic", "both"), "be 'prompt', 'semantic' or 'both'"),
            ("remask_passes", self.remask_passes >= 0, "not be negative"),
            ("remask_fraction", 0 < self.remask_fraction <= 1, "lie in (0, 1]"),
        ):
            if not holds:
                raise ValueError(f"{name}={getattr(self, name)!r} must {wanted}")

    @property
    def num_levels(self) -> int:
        """Levels that are decoded, coarse first: all, or those before the finest that are left out."""
        return max((level for level, passes in enumerate(self.iterations, start=1) if passes), default=0)

    @property
    def num_passes(self) -> int:
        """Forward passes over a whole utterance: 27 with the paper's iterations."""
        return sum(self.iterations) + self.remask_passes * sum(i > 1 for i in self.iterations)

    def count_passes(self, num_frames: int) -> int:
        """Count the forward passes for an utterance: :attr:`num_passes`, or fewer where it is very short.

        Args:
            num_frames: Frames to generate.
        """
        units = -(-num_frames // self.span_length)
        return sum(len(self.plan(units, level)) for level in range(self.num_levels))

    def plan(self, num_targets: int, level: int) -> list[Pass]:
        """Plan the passes of one level.

        After iteration i of I, ``floor(N cos(pi/2 * i/I))`` of N tokens are still masked, at least one and at most all
        but one of those masked before it (MaskGIT's rule); the last iteration fixes the rest. Fewer than I passes
        result where N is smaller than I.

        Args:
            num_targets: Number N of tokens to generate.
            level: RVQ level, 0-based.

        Returns:
            The passes, re-masking passes included.
        """
        passes: list[Pass] = []
        masked, iterations = num_targets, self.iterations[level]
        if masked == 0:
            return passes
        for i in range(1, iterations + 1):
            if i == iterations or masked == 1:
                passes.append(Pass(masked, masked, greedy=True))
                break
            left = math.floor(num_targets * math.cos(math.pi / 2 * i / iterations))
            left = min(max(left, 1), masked - 1)
            passes.append(Pass(masked, masked - left, greedy=False))
            masked = left
        if iterations > 1:
            untouched = num_targets
            for _ in range(self.remask_passes):
                again = min(max(1, math.floor(num_targets * self.remask_fraction)), untouched)
                if again == 0:
                    break
                passes.append(Pass(again, again, greedy=True, remask=True))
                untouched -= again
        return passes
