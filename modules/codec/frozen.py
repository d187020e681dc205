"""What the codecs that are only used, not trained, have in common."""

from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.codec.codec import AudioCodec


class FrozenCodec(AudioCodec):
    """A codec with fixed weights: keeps the contract of :class:`AudioCodec` around two hooks.

    The hooks see whole frames only, never build a graph, and run in float32 under any autocast: codes that depend on
    the precision of the run that made them would not fit the codes of the next run.

    Attributes:
        name: The kind of codec, for :meth:`identity`.
        revision: Digest of everything that turns codes into audio, for :meth:`identity`.
    """

    name: str
    revision: str

    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio into codes; the last frame is filled up with silence.

        Args:
            audio: Mono audio at ``sample_rate``, floating point, shape ``[B, N]`` with N of at least 1.

        Returns:
            Codes, int64, shape ``[B, Q, T]`` with ``T = ceil(N / hop_length)``.

        Raises:
            ValueError: If the audio is not ``[B, N]`` or holds no sample.
        """
        if audio.ndim != 2 or audio.shape[1] == 0 or not audio.is_floating_point():
            raise ValueError(f"audio must be floating point [B, N] with N >= 1, not {audio.dtype} {list(audio.shape)}")
        num_frames = -(-audio.shape[1] // self.hop_length)
        whole = F.pad(audio, (0, num_frames * self.hop_length - audio.shape[1])).float()
        with torch.no_grad(), torch.autocast(audio.device.type, enabled=False):
            codes = self._encode(whole).long()
        if codes.shape != (len(audio), self.num_quantizers, num_frames):
            wanted = [len(audio), self.num_quantizers, num_frames]
            raise RuntimeError(f"{type(self).__name__} made codes {list(codes.shape)} where {wanted} belong")
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes into audio.

        Args:
            codes: int64, shape ``[B, Q', T]`` with ``1 <= Q' <= num_quantizers``, each in ``0 .. codebook_size - 1``.

        Returns:
            Audio at ``sample_rate``, float32, shape ``[B, T * hop_length]``.

        Raises:
            ValueError: If the codes have another shape, or hold values that are no codes (such as a mask id).
        """
        if codes.ndim != 3 or not 1 <= codes.shape[1] <= self.num_quantizers or codes.shape[2] == 0:
            raise ValueError(f"codes must be [B, 1..{self.num_quantizers}, T] with T >= 1, not {list(codes.shape)}")
        # On a GPU an index out of range would abort the process later, far from here.
        low, high = (int(bound) for bound in codes.aminmax())
        if low < 0 or high >= self.codebook_size:
            raise ValueError(f"codes must lie in 0..{self.codebook_size - 1}, not {low}..{high}")
        num_samples = codes.shape[2] * self.hop_length
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            audio = self._decode(codes)
        if abs(audio.shape[-1] - num_samples) >= self.hop_length:
            raise RuntimeError(f"{type(self).__name__} made {audio.shape[-1]} samples where {num_samples} belong")
        return F.pad(audio, (0, num_samples - audio.shape[-1]))

    def identity(self) -> dict[str, Any]:
        """Say which codec this is, by a digest of its weights: the same for the hub and for a folder of any name."""
        return {
            "name": self.name,
            "revision": self.revision,
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "num_quantizers": self.num_quantizers,
            "codebook_size": self.codebook_size,
        }

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, also where the module around is trained."""
        return super().train(False)

    @abstractmethod
    def _encode(self, audio: Tensor) -> Tensor:
        """Turn whole frames ``[B, T * hop_length]`` into codes ``[B, Q, T]``."""

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """Turn codes ``[B, Q', T]`` into audio ``[B, M]``, M less than one frame away from ``T * hop_length``."""


def choose_num_quantizers(asked: int | None, available: int, owner: str) -> int:
    """Check a wished number of levels against what a codec has.

    Args:
        asked: Levels to use; all where ``None``.
        available: Levels the codec has.
        owner: The codec's name, for the message.

    Returns:
        The number of levels to use.

    Raises:
        ValueError: If more levels are asked for than there are, or none.
    """
    if asked is None:
        return available
    if not 1 <= asked <= available:
        raise ValueError(f"{owner} has {available} quantizers, so num_quantizers cannot be {asked}")
    return asked
