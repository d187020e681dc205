"""Tokenize: a batch of audio to acoustic and semantic tokens."""

from dataclasses import asdict
from fractions import Fraction
from functools import partial
from typing import Any, NoReturn

import soxr
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from modules.batches import AudioBatch, Rejection, SoftTokens, TokenizedBatch
from modules.codec.codec import AudioCodec
from modules.semantic.batching import equal_length_groups
from modules.semantic.posterior import Posterior
from modules.semantic.tokenizer import SemanticTokenizer
from modules.tokenization.alignment import align_tokens


class Tokenization(LightningModule):
    """Turn audio into the codec's codes and semantic tokens at the codec's frame rate (``predict`` only).

    Utterances of one length share a batch, all others go alone: nothing is ever padded, so an utterance's tokens do not
    depend on its neighbours. An utterance that cannot be tokenized (too short, or its two lengths drift apart) ends
    among the rejected; the others go on.

    Semantic tokens may drift by two frames of the codec or, where those are shorter, of the speech features: encoders
    without padding make up to two frames fewer than the audio has.

    Args:
        codec: Makes the codes; also decides sample and frame rate.
        semantic: Makes the semantic tokens. Where its sample rate is another, audio is resampled for it.
        soft: Keep, beside each semantic token, the most probable ones with their probabilities; none if None.

    Raises:
        ValueError: ``soft`` asks for more tokens than there are.
    """

    def __init__(self, codec: AudioCodec, semantic: SemanticTokenizer, soft: Posterior | None = None) -> None:
        super().__init__()
        self.codec = codec
        self.semantic = semantic
        self.soft = soft
        if soft is not None:
            soft.check(semantic.vocab_size)
        self.frame_rate = Fraction(codec.sample_rate, codec.hop_length)
        features_rate = Fraction(semantic.features.sample_rate, semantic.features.hop_length)
        self.max_drift = max(Fraction(2), 2 * self.frame_rate / features_rate)

    def card(self) -> dict[str, Any]:
        """What the tokens mean: the fields of a token set's card.

        Raises:
            RuntimeError: The semantic tokenizer has no codebook yet.
        """
        self.semantic.require_codebook()
        return {
            "codec": self.codec.identity(),
            "semantic": self.semantic.identity(),
            "sample_rate": self.codec.sample_rate,
            "frame_rate": self.codec.frame_rate,
            "num_quantizers": self.codec.num_quantizers,
            "codebook_size": self.codec.codebook_size,
            "semantic_vocab_size": self.semantic.vocab_size,
            "soft_semantic": asdict(self.soft) if self.soft else None,
        }

    def setup(self, stage: str) -> None:
        """Refuse whatever is not ``predict``.

        Raises:
            RuntimeError: There is nothing to fit, validate or test.
        """
        if stage != "predict":
            self._refuse()

    def training_step(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to train; here so that :meth:`setup` gets to say so."""
        self._refuse()

    def configure_optimizers(self) -> None:
        """Nothing to optimise."""

    def predict_step(self, batch: AudioBatch, batch_idx: int) -> TokenizedBatch:
        """Tokenize the utterances of a batch.

        Args:
            batch: Audio at the codec's sample rate.
            batch_idx: Not used.

        Returns:
            The tokens of those that could be tokenized, in their order, and what was rejected, now or earlier.

        Raises:
            ValueError: The audio comes at another rate than the codec's.
            RuntimeError: The semantic tokenizer has no codebook.
        """
        if batch.sample_rate != self.codec.sample_rate:
            raise ValueError(
                f"the audio comes at {batch.sample_rate} Hz, the codec needs {self.codec.sample_rate} Hz: "
                f"set data.init_args.sample_rate={self.codec.sample_rate}"
            )
        tokens: dict[int, tuple[Tensor, Tensor, SoftTokens | None]] = {}
        rejected = list(batch.rejected)
        for rows in equal_length_groups(batch.audio):
            try:
                tokens.update(zip(rows, self._tokenize(batch, rows), strict=True))
            except ValueError as error:  # of the length, which all of these rows share
                paths = batch.paths or [""] * len(batch.ids)
                rejected += [Rejection(batch.ids[row], paths[row], str(error)) for row in rows]
        kept = sorted(tokens)
        return TokenizedBatch(
            ids=[batch.ids[row] for row in kept],
            semantic=[tokens[row][0] for row in kept],
            codes=[tokens[row][1] for row in kept],
            speakers=[batch.speakers[row] for row in kept],
            texts=[batch.texts[row] for row in kept],
            rejected=rejected,
            soft_semantic=[soft for row in kept if (soft := tokens[row][2]) is not None],
        )

    def _tokenize(self, batch: AudioBatch, rows: list[int]) -> list[tuple[Tensor, Tensor, SoftTokens | None]]:
        """Semantic tokens ``[T]``, codes ``[Q, T]``, soft tokens of each of some utterances of one length."""
        codes = self.codec.encode(torch.stack([batch.audio[row] for row in rows]))
        audio = torch.stack([self._resample(batch.audio[row]) for row in rows])
        align = partial(
            align_tokens,
            num_frames=codes.shape[-1],
            token_rate=self.semantic.exact_frame_rate,
            frame_rate=self.frame_rate,
            max_drift=self.max_drift,
            dim=1,
        )
        if self.soft is None:
            semantic = align(self.semantic.encode(audio))
            return [(tokens, row, None) for tokens, row in zip(semantic, codes, strict=True)]
        soft, probabilities = map(align, self.semantic.encode_soft(audio, self.soft))
        # The most probable token is the one without alternatives.
        return [(t[:, 0], row, SoftTokens(t, p)) for t, p, row in zip(soft, probabilities, codes, strict=True)]

    def _resample(self, audio: Tensor) -> Tensor:
        """Bring one utterance ``[N]`` to the sample rate of the semantic tokenizer."""
        if self.semantic.sample_rate == self.codec.sample_rate:
            return audio
        resampled = soxr.resample(audio.cpu().numpy(), self.codec.sample_rate, self.semantic.sample_rate)
        return torch.from_numpy(resampled).to(audio)

    def _refuse(self) -> NoReturn:
        raise RuntimeError("tokenization can only predict: run `soundstorm predict -c configs/tokenize/<preset>.yaml`")
