"""How well semantic tokens tell phones apart: the measures of HuBERT (Hsu et al. 2021, section IV-D)."""

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import mutual_info_score
from torch import Tensor

SILENCE = "SIL"


class Phone(NamedTuple):
    """A phone and when it is spoken."""

    name: str  # of the CMU set, such as AH; SIL between words
    start: float  # seconds
    end: float


class PhoneAgreement(NamedTuple):
    """What tokens say about phones, each from 0 to 1."""

    phone_purity: float  # frames whose phone is the most frequent one of their token
    cluster_purity: float  # frames whose token is the most frequent one of their phone
    normalized_mutual_information: float  # share of the uncertainty about the phone that the token takes away
    unheard_accuracy: float | None  # frames whose phone is their token's most frequent one in other speech


class PhoneAligner:
    """Finds out when each phone of an English transcript is spoken, by PocketSphinx, which brings its models.

    Needs the extra ``phones``.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """

    sample_rate = 16_000
    frame_rate = 100.0  # of its alignments

    def __init__(self) -> None:
        try:
            self._package: Any = importlib.import_module("pocketsphinx")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "aligning phones needs PocketSphinx: pip install 'soundstorm-lightning[phones]'"
            ) from error

    def __call__(self, audio: Tensor, text: str) -> list[Phone] | None:
        """Align a recording with its transcript.

        Args:
            audio: Mono audio at 16 kHz in [-1, 1], ``[N]``.
            text: What is said; everything but letters and apostrophes is ignored.

        Returns:
            The phones in order; None where a word is not in the dictionary or the alignment fails.
        """
        words = "".join(c if c.isalpha() or c == "'" else " " for c in text.lower().replace("’", "'"))
        samples = (audio.clamp(-1, 1) * 32767).to(torch.int16).numpy().tobytes()
        # A decoder that has failed once does not recover.
        decoder = self._package.Decoder(samprate=self.sample_rate, bestpath=False, loglevel="FATAL")
        try:
            decoder.set_align_text(" ".join(words.split()))
            self._listen(decoder, samples)  # for the words; then for the phones in them
            decoder.set_alignment()
            self._listen(decoder, samples)
            found = [phone for word in decoder.get_alignment() for phone in word]
        except (RuntimeError, TypeError):
            return None
        rate = self.frame_rate
        return [Phone(phone.name, phone.start / rate, (phone.start + phone.duration) / rate) for phone in found]

    def _listen(self, decoder: Any, samples: bytes) -> None:
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()


def phones_of_frames(phones: Sequence[Phone], num_frames: int, frame_rate: float) -> list[str]:
    """Name the phone at the centre of each frame; silence where there is none.

    Args:
        phones: Phones in order.
        num_frames: Number of frames.
        frame_rate: Frames per second.

    Returns:
        Names, one per frame.
    """
    starts = np.array([phone.start for phone in phones])
    centres = (np.arange(num_frames) + 0.5) / frame_rate
    current = np.searchsorted(starts, centres, side="right") - 1
    return [
        phones[i].name if i >= 0 and centre < phones[i].end else SILENCE
        for i, centre in zip(current.tolist(), centres.tolist(), strict=True)
    ]


def phone_agreement(
    tokens: Sequence[int], phones: Sequence[str], other: tuple[Sequence[int], Sequence[str]] | None = None
) -> PhoneAgreement:
    """Compare tokens with the phones of the same frames.

    With many tokens and little speech, purities are flattering: a token seen once is pure. ``unheard_accuracy`` is not.

    Args:
        tokens: Token of each frame.
        phones: Phone of each frame.
        other: Tokens and phones of other speech, to take each token's most frequent phone from.

    Returns:
        The measures.

    Raises:
        ValueError: There are no frames, or as many tokens as phones there are not.
    """
    counts, token_names, phone_names = _count(tokens, phones)
    total = counts.sum()
    shares = counts.sum(axis=0) / total
    entropy = -(shares * np.log(shares)).sum()
    information = mutual_info_score(None, None, contingency=counts)
    accuracy = None
    if other is not None:
        theirs, their_tokens, their_phones = _count(*other)
        usual = dict(zip(their_tokens.tolist(), their_phones[theirs.argmax(axis=1)].tolist(), strict=True))
        guessed = [usual.get(token) for token in token_names.tolist()]
        places = {name: i for i, name in enumerate(phone_names.tolist())}
        accuracy = sum(int(row[places[g]]) for row, g in zip(counts, guessed, strict=True) if g in places) / total
    return PhoneAgreement(
        phone_purity=float(counts.max(axis=1).sum() / total),
        cluster_purity=float(counts.max(axis=0).sum() / total),
        normalized_mutual_information=float(information / entropy) if entropy > 0 else 0.0,
        unheard_accuracy=None if accuracy is None else float(accuracy),
    )


def _count(tokens: Sequence[int], phones: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Count frames by token and phone ``[K, P]``; also give the K tokens and the P phones."""
    if len(tokens) != len(phones) or not len(tokens):
        raise ValueError(f"{len(tokens)} tokens and {len(phones)} phones: there must be one of each per frame")
    token_names, token = np.unique(np.asarray(tokens), return_inverse=True)
    phone_names, phone = np.unique(np.asarray(phones), return_inverse=True)
    counts = np.zeros((len(token_names), len(phone_names)), dtype=np.int64)
    np.add.at(counts, (token, phone), 1)
    return counts, token_names, phone_names
