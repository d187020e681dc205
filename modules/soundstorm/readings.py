"""Several readings of the same words, of which the one is kept that says them best."""

import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from modules.codec.codec import AudioCodec
from modules.semantic.tokenizer import SemanticTokenizer
from modules.soundstorm.decoding import PassTrace, decode
from modules.soundstorm.network import SoundStormNetwork
from modules.soundstorm.schedule import DecodingSchedule
from modules.tokenization.alignment import aligned_indices

READING_STEP = 1_000_003


class ReadingChoice:
    """Listens to readings with the semantic tokenizer and keeps the one nearest to the tokens that were to be said.

    SoundStorm's paper takes the first reading; SPEAR-TTS (Kharitonov et al. 2023) draws several and keeps the one of
    best estimated quality. Here it is the words that are listened for: how much farther the audio's speech features are
    from the centres of the wanted tokens than from the nearest ones, in squared distance per dimension, averaged over
    frames; 0 where exactly the wanted tokens are heard, and there is no doubt of what is wanted.

    Args:
        codec: Codes to audio.
        semantic: Audio to speech features; its tokens have to mean what those of the network do.
        readings: How many there are to choose from; they cost as many times one.

    Raises:
        ValueError: ``readings`` is less than 1, or the tokenizer listens at another sample rate than the codec speaks.
    """

    def __init__(self, codec: AudioCodec, semantic: SemanticTokenizer, readings: int = 4) -> None:
        if readings < 1:
            raise ValueError(f"readings={readings} must be at least 1")
        if codec.sample_rate != semantic.sample_rate:
            raise ValueError(
                f"the codec speaks at {codec.sample_rate} Hz and the semantic tokenizer listens at "
                f"{semantic.sample_rate} Hz: to choose among readings takes two of one sample rate"
            )
        self.codec, self.semantic, self.readings = codec.eval(), semantic.eval(), readings

    def check(self, tokens: Mapping[str, Any]) -> None:
        """Refuse tokens that this codec does not speak or this tokenizer does not hear.

        Args:
            tokens: The identities of the codec and the semantic tokenizer that a network was trained on.

        Raises:
            ValueError: One of them is another; a distilled tokenizer may stand in for its teacher.
        """
        listening = [self.semantic.identity(), getattr(self.semantic.features, "teacher", None)]
        for part, mine in (("codec", [self.codec.identity()]), ("semantic", listening)):
            if json.loads(json.dumps(tokens[part])) not in json.loads(json.dumps(mine)):
                raise ValueError(f"the network was trained on tokens of the {part} {tokens[part]}, not of {mine[0]}")

    @torch.no_grad()
    def misreadings(self, codes: Tensor, semantic: Tensor, start: int) -> Tensor:
        """Measure how far what is heard in readings is from what they were to say.

        Args:
            codes: Readings of one utterance, int64 ``[R, Q, T]``.
            semantic: What each was to say, int64 ``[T]``, or the probability of each token, floats ``[T, V]``: the
                distance to a wanted centre is then the mean of the distances to all.
            start: First frame that counts: a prompt is the same in all.

        Returns:
            One number per reading, float32 ``[R]``, the smaller the better; zeros where the audio is too short to
            listen to.

        Raises:
            ValueError: The audio is longer than the speech features take.
        """
        device = codes.device
        self.codec.to(device)
        self.semantic.to(device)
        with torch.autocast(device.type, enabled=False):
            audio = self.codec.decode(codes)
            if not self.semantic.num_tokens(audio.shape[1]):
                return torch.zeros(len(codes), device=device)
            features = self.semantic.standardize(self.semantic.frames(audio))
            frame_rate = Fraction(self.codec.sample_rate, self.codec.hop_length)
            index = aligned_indices(features.shape[1], len(semantic), self.semantic.exact_frame_rate, frame_rate)
            heard = features[:, torch.tensor(index, device=device)[start:]]
            nearest, wanted = self.semantic.nearest(heard)[1], semantic[start:]
            if not wanted.is_floating_point():
                farther = (heard - self.semantic.centroids[wanted]).square().sum(-1) - nearest
            else:
                farther = self._mean_distance(heard, wanted.float()) - wanted.float().sum(-1) * nearest
            return farther.mean(1) / heard.shape[-1]

    def _mean_distance(self, heard: Tensor, wanted: Tensor) -> Tensor:
        """Squared distances of features ``[R, T, dim]`` to all centres, weighted by probabilities ``[T, V]``."""
        centroids = self.semantic.centroids
        crossed = (heard * (wanted @ centroids)).sum(-1)
        return wanted.sum(-1) * heard.square().sum(-1) - 2 * crossed + wanted @ centroids.square().sum(1)


def decode_best(
    network: SoundStormNetwork,
    semantic: Tensor,
    prompt: Tensor,
    lengths: Tensor,
    schedule: DecodingSchedule,
    seeds: Tensor,
    prompt_lengths: Tensor,
    choice: ReadingChoice | None = None,
    keep_trace: bool = False,
    on_pass: Callable[[], None] | None = None,
) -> tuple[Tensor, list[PassTrace]]:
    """Decode, and where there is a choice, decode each row several times side by side and keep its best reading.

    Args:
        network: The network.
        semantic: Semantic tokens of prompt and target on one time axis, int64 ``[B, T]``, or probabilities, as in
            :func:`decode`.
        prompt: Acoustic tokens of the leading frames at every level, int64 ``[B, Q, P]``.
        lengths: Real frames per row, prompt included, ``[B]``.
        schedule: Passes and choices.
        seeds: Seed per row, int64 ``[B]``, of its first reading; the first is what is decoded without a choice.
        prompt_lengths: Prompt frames per row, ``[B]``.
        choice: Among how many readings, and by whose ear; one reading if None.
        keep_trace: Return also what each pass did in the readings that are kept.
        on_pass: Called after each pass, to show progress; all readings share the passes.

    Returns:
        Codes, int64 ``[B, Q, T]``, 0 beyond a row's length; and the passes in order, none without ``keep_trace``.
    """
    # Where every pass is greedy, all readings are one.
    count = choice.readings if choice and max(schedule.iterations) > 1 else 1
    again = [x.repeat_interleave(count, dim=0) for x in (semantic, prompt, lengths, prompt_lengths)]
    result = decode(
        network, again[0], again[1], again[2], schedule, reading_seeds(seeds.tolist(), count),
        return_trace=keep_trace, prompt_lengths=again[3], on_pass=on_pass,
    )  # fmt: skip
    codes, passes = result if isinstance(result, tuple) else (result, [])
    if choice is None or count == 1:
        return codes, passes
    kept = []
    for b, (length, start) in enumerate(zip(lengths.tolist(), prompt_lengths.tolist(), strict=True)):
        rows = codes[b * count : (b + 1) * count, :, :length]
        best = int(choice.misreadings(rows, semantic[b, :length], start).argmin()) if start < length else 0
        kept.append(b * count + best)
    return codes[kept], [trace.select(kept) for trace in passes]


def reading_seeds(seeds: Sequence[int], count: int) -> list[int]:
    """Give each reading a seed of its own, the first the row's.

    Steps are wide, because the chunks of an utterance take the integers that follow its seed, and yet within the lower
    32 bits: PyTorch's generator on the CPU knows no others.

    Args:
        seeds: Seed of each row.
        count: Readings per row.

    Returns:
        The seeds of the readings of the first row, then those of the second, and so on.
    """
    return [seed + r * READING_STEP for seed in seeds for r in range(count)]
