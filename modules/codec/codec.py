"""The contract every audio codec keeps."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class AudioCodec(nn.Module, ABC):
    """A residual-vector-quantising audio codec: audio in, codes out, and back.

    Implementations are frozen at use: :meth:`encode` and :meth:`decode` run in evaluation mode, without gradients,
    and their result for a row does not depend on the rows beside it.

    Attributes:
        sample_rate: Samples per second of the audio that goes in and comes out, in Hz.
        hop_length: Samples per frame.
        num_quantizers: Levels Q of the residual quantiser that are used, coarse first.
        codebook_size: Entries C of the codebook of one level.
    """

    sample_rate: int
    hop_length: int
    num_quantizers: int
    codebook_size: int

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @abstractmethod
    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio into codes.

        Args:
            audio: Mono audio at ``sample_rate``, float32, shape ``[B, N]``; all rows are N samples long.

        Returns:
            Codes, int64, shape ``[B, Q, T]`` with ``T = ceil(N / hop_length)``.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes into audio.

        Args:
            codes: int64, shape ``[B, Q', T]`` with ``Q' <= num_quantizers``: leading levels alone decode
                more coarsely.

        Returns:
            Audio at ``sample_rate``, float32, shape ``[B, T * hop_length]``.
        """

    def latents(self, codes: Tensor) -> Tensor:
        """Look up what is decoded: the sum of the code vectors of a frame.

        Args:
            codes: int64, shape ``[B, Q', T]`` with ``Q' <= num_quantizers``.

        Returns:
            Latents, float32, shape ``[B, T, d]``.

        Raises:
            NotImplementedError: The codec does not tell.
        """
        raise NotImplementedError(f"{type(self).__name__} does not give its latents")

    @torch.no_grad()
    def code_vectors(self) -> Tensor:
        """Give what each code adds to the latent, up to a constant per level.

        Returns:
            Float32, shape ``[Q, C, d]``, each level with mean zero.
        """
        device = next((tensor.device for tensor in (*self.parameters(), *self.buffers())), None)
        every = torch.arange(self.codebook_size, device=device)
        levels = []
        for level in range(self.num_quantizers):
            codes = torch.zeros(1, self.num_quantizers, self.codebook_size, dtype=torch.long, device=device)
            codes[:, level] = every
            vectors = self.latents(codes)[0].float()
            levels.append(vectors - vectors.mean(0))
        return torch.stack(levels)

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Say which codec this is, for the card of a token set.

        Returns:
            JSON-serialisable values: at least ``name``, ``revision`` (a digest of the weights, so that a copy in a
            folder is the same codec as its original on the hub), ``sample_rate``, ``frame_rate``, ``num_quantizers``
            and ``codebook_size``. Two codecs whose codes mean different audio have different identities; the folder
            the weights lie in is no part of it.
        """
