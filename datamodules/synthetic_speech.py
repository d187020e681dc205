"""An artificial language of tokens with the structure that SoundStorm has to learn, and a way to check what it learnt.

An utterance has a hidden speaker. Its semantic tokens come in segments, one following another as a Markov chain. The
code of level 0 says two things, which semantic class the frame belongs to and who speaks; a finer level derives its
class from the level above and names the speaker again, in its own way. What a model generates can therefore be read:
which speaker each frame speaks with, whether the frames agree, and whether the levels do.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.seeding import mix, uniform
from datamodules.token_card import TokenSetCard
from datamodules.token_set import TokenRow

_TABLE_STREAM, _SPEAKER_STREAM, _LENGTH_STREAM, _TOKEN_STREAM = 0x7AB1E, 0x59EA, 0x1E46, 0x70CE
_SUCCESSORS = 4  # tokens that may follow a token
_MEAN_SEGMENT = 4  # semantic tokens, each two frames long: 160 ms at 50 frames/s
SAMPLE_RATE = 16_000


class _Tables(NamedTuple):
    successors: npt.NDArray[np.int64]  # [V, 4], which tokens may follow a token
    classes: npt.NDArray[np.int64]  # [V], the class of a token
    class_orders: npt.NDArray[np.int64]  # [Q, classes], how a level names the class of the level above
    speaker_orders: npt.NDArray[np.int64]  # [Q, speakers], how a level names the speaker


@dataclass(frozen=True)
class SyntheticSpeech:
    """The language: what tokens there are and how they hang together.

    Attributes:
        num_quantizers: Levels Q.
        codebook_size: Entries C per level; ``C // num_speakers`` semantic classes can be told apart.
        semantic_vocab_size: Number of semantic tokens.
        num_speakers: Number of hidden speakers.
        noise: Probability that a code is replaced by a random one. Finer levels then follow the class of the wrong
            code, as a residual quantiser would, but keep the speaker.
        frame_rate: Frames per second.
        seed: Of the language: which token belongs to which class, who follows whom.

    Raises:
        ValueError: A value is out of range.
    """

    num_quantizers: int = 4
    codebook_size: int = 64
    semantic_vocab_size: int = 32
    num_speakers: int = 8
    noise: float = 0.0
    frame_rate: float = 50.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_speakers < 2 or self.codebook_size < 2 * self.num_speakers:
            raise ValueError(
                f"codebook_size ({self.codebook_size}) must be at least twice num_speakers ({self.num_speakers}), and "
                "that at least 2: a code says who speaks and what"
            )
        if self.num_quantizers < 1 or self.semantic_vocab_size < self.num_classes or not 0 <= self.noise <= 1:
            raise ValueError(
                f"num_quantizers ({self.num_quantizers}) must be at least 1, semantic_vocab_size "
                f"({self.semantic_vocab_size}) at least {self.num_classes} and noise ({self.noise}) a probability"
            )

    @property
    def num_classes(self) -> int:
        """Semantic classes that the codes tell apart."""
        return self.codebook_size // self.num_speakers

    @property
    def card(self) -> TokenSetCard:
        """What the tokens mean."""
        revision = f"{self.num_speakers} speakers, seed {self.seed}"
        return TokenSetCard(
            codec={
                "name": "synthetic",
                "revision": revision,
                "sample_rate": SAMPLE_RATE,
                "frame_rate": self.frame_rate,
                "num_quantizers": self.num_quantizers,
                "codebook_size": self.codebook_size,
            },
            semantic={"name": "synthetic", "revision": revision, "vocab_size": self.semantic_vocab_size},
            sample_rate=SAMPLE_RATE,
            frame_rate=self.frame_rate,
            num_quantizers=self.num_quantizers,
            codebook_size=self.codebook_size,
            semantic_vocab_size=self.semantic_vocab_size,
        )

    def speak(self, semantic: npt.NDArray[np.integer], speaker: int | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Give the codes, without noise, of semantic tokens ``[T]`` in the voice of a speaker (one, or ``[T]``).

        Returns:
            int64, shape ``[Q, T]``.
        """
        return self._speak(semantic, speaker, None)

    def utterance(self, number: int, num_frames: int) -> TokenRow:
        """Make an utterance: a pure function of the language, the number and the length."""
        rng = np.random.default_rng([self.seed, _TOKEN_STREAM, number])
        tokens = [int(rng.integers(self.semantic_vocab_size))]
        segments = -(-num_frames // 2)  # as many as could be needed
        for choice in rng.integers(_SUCCESSORS, size=segments - 1):
            tokens.append(int(self._tables.successors[tokens[-1], choice]))
        semantic = np.repeat(tokens, 2 * rng.geometric(1 / _MEAN_SEGMENT, size=segments))[:num_frames]
        speaker = self.speaker_of(number)
        codes = self._speak(semantic, speaker, rng)
        return TokenRow(
            f"synthetic-{number:06d}",
            f"speaker-{speaker}",
            "",
            semantic.astype(np.uint16),
            codes.astype(np.uint16),
        )

    def speaker_of(self, number: int) -> int:
        """Say who speaks utterance ``number``."""
        return int(mix(self.seed, _SPEAKER_STREAM, number)[0] % np.uint64(self.num_speakers))

    def speakers_heard(self, codes: npt.ArrayLike, semantic: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Recover from level 0 which speaker each frame speaks with.

        Args:
            codes: Generated or true codes, shape ``[Q, T]``.
            semantic: The semantic tokens they are to say, shape ``[T]``.

        Returns:
            int64, shape ``[T]``; -1 where the code does not say what the semantic token asks for.
        """
        classes, speakers = np.divmod(np.asarray(codes)[0].astype(np.int64), self.num_speakers)
        return np.where(classes == self._tables.classes[np.asarray(semantic)], speakers, -1)

    def speaker_consistency(self, codes: npt.ArrayLike, semantic: npt.ArrayLike) -> float:
        """Say how consistent an utterance is with itself.

        Args:
            codes: shape ``[Q, T]``.
            semantic: shape ``[T]``.

        Returns:
            The fraction of frames that say the right thing with the utterance's most frequent speaker: 1 for true
            codes, about ``1 / num_speakers`` if each frame had a speaker of its own.
        """
        heard = self.speakers_heard(codes, semantic)
        counts = np.bincount(heard[heard >= 0], minlength=self.num_speakers)
        return float(counts.max() / len(heard))

    def level_agreement(self, codes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Say how well each finer level follows: the class of the level above it, the speaker of level 0.

        Args:
            codes: shape ``[Q, T]``.

        Returns:
            Fraction of frames per finer level, shape ``[Q - 1]``; 1 for true codes without noise.
        """
        codes = np.asarray(codes).astype(np.int64)
        agreement = np.empty(self.num_quantizers - 1)
        for level in range(1, self.num_quantizers):
            expected = self._finer(level, codes[level - 1], codes[0] % self.num_speakers)
            agreement[level - 1] = (codes[level] == expected).mean()
        return agreement

    @cached_property
    def _tables(self) -> _Tables:
        rng = np.random.default_rng([self.seed, _TABLE_STREAM])
        size, levels = self.semantic_vocab_size, range(self.num_quantizers)
        return _Tables(
            successors=rng.integers(size, size=(size, _SUCCESSORS)),
            classes=rng.permutation(np.arange(size) % self.num_classes),
            class_orders=np.stack([rng.permutation(self.num_classes) for _ in levels]),
            speaker_orders=np.stack([rng.permutation(self.num_speakers) for _ in levels]),
        )

    def _finer(
        self, level: int, above: npt.NDArray[np.int64], speaker: int | npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int64]:
        # Codes past the last whole class have none of their own; they count as the first.
        classes = (above // self.num_speakers) % self.num_classes
        class_order, speaker_order = self._tables.class_orders[level], self._tables.speaker_orders[level]
        return class_order[classes] * self.num_speakers + speaker_order[speaker]

    def _speak(
        self,
        semantic: npt.NDArray[np.integer],
        speaker: int | npt.NDArray[np.integer],
        rng: np.random.Generator | None,
    ) -> npt.NDArray[np.int64]:
        codes = np.empty((self.num_quantizers, len(semantic)), dtype=np.int64)
        for level in range(self.num_quantizers):
            if level == 0:
                codes[0] = self._tables.classes[semantic] * self.num_speakers + speaker
            else:
                codes[level] = self._finer(level, codes[level - 1], speaker)
            if rng is not None and self.noise:
                wrong = rng.random(len(semantic)) < self.noise
                codes[level, wrong] = rng.integers(self.codebook_size, size=int(wrong.sum()))
        return codes


class SyntheticUtterances:
    """Numbered utterances of the language, made when they are read.

    Args:
        language: The language.
        first: Number of the first utterance.
        count: How many there are.
        min_frames: Shortest utterance.
        max_frames: Longest utterance; lengths are uniform.
    """

    def __init__(self, language: SyntheticSpeech, first: int, count: int, min_frames: int, max_frames: int) -> None:
        self.language = language
        self.first = first
        self.card = language.card
        numbers = np.arange(first, first + count)
        spread = uniform(mix(language.seed, _LENGTH_STREAM, numbers)) * (max_frames - min_frames + 1)
        self.frames = (min_frames + spread.astype(np.int32)).astype(np.int32)

    def read(self, rows: npt.ArrayLike) -> list[TokenRow]:
        """Make utterances by number, in the order asked for."""
        return [self.language.utterance(self.first + int(row), int(self.frames[row])) for row in np.asarray(rows)]
