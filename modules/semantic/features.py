"""The contract of speech features: what semantic tokens are clusters of."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class SpeechFeatures(nn.Module, ABC):
    """A frozen map from audio to one vector per frame.

    It stays in evaluation mode whatever is asked of the modules around it, computes no gradients, and a row's result
    does not depend on the rows beside it.

    Attributes:
        sample_rate: Samples per second of the audio that goes in, in Hz.
        hop_length: Samples per frame.
        dim: Width of a frame's vector.
        max_samples: Samples of the longest audio that is accepted; None where nothing but memory limits it.
    """

    sample_rate: int
    hop_length: int
    dim: int
    max_samples: int | None = None

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @abstractmethod
    def num_frames(self, num_samples: int) -> int:
        """Number of frames T of audio of ``num_samples`` samples; 0 where it is too short for one."""

    @abstractmethod
    def extract(self, audio: Tensor) -> Tensor:
        """Compute the features of audio that :meth:`compute` has checked: ``[B, N]`` to ``[B, T, dim]``."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Say which features these are, for the card of a token set.

        Returns:
            JSON-serialisable values, at least ``name`` and ``revision``. Features that differ have different
            identities; the folder or hub that weights came from is no part of it.
        """

    @abstractmethod
    def init_args(self) -> dict[str, Any]:
        """Arguments, fit for YAML, that construct these features again."""

    def weights(self) -> dict[str, Tensor]:
        """Tensors that the folder of a tokenizer carries along; none where weights lie elsewhere, or there are none."""
        return {}

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        """Compute the features of audio.

        Args:
            audio: Mono audio at ``sample_rate``, float32, shape ``[B, N]``; all rows are N samples long.

        Returns:
            Features, float32, shape ``[B, T, dim]`` with ``T = num_frames(N)``.

        Raises:
            ValueError: The audio is not ``[B, N]``, is too short for one frame, or is longer than ``max_samples``.
        """
        # In full precision under any autocast: tokens that depend on the run that made them do not fit the next run's.
        with torch.autocast(audio.device.type, enabled=False):
            return self.compute(audio.float())

    def compute(self, audio: Tensor) -> Tensor:
        """Compute the features as :meth:`forward` does, but in the precision of the autocast around it.

        For targets of a training, which are not kept. Arguments, result and errors are those of :meth:`forward`.
        """
        if audio.dim() != 2:
            raise ValueError(f"expected audio of shape [B, N], got {list(audio.shape)}")
        num_samples = audio.shape[1]
        seconds = num_samples / self.sample_rate
        if self.max_samples is not None and num_samples > self.max_samples:
            limit = self.max_samples / self.sample_rate
            raise ValueError(f"{seconds:.2f} s of audio is more than the {limit:g} s the speech features take: cut it")
        num_frames = self.num_frames(num_samples)
        if num_frames < 1:
            raise ValueError(f"{seconds:.4f} s of audio is too short for one frame of speech features")
        features = self.extract(audio).float()
        if features.shape[1] != num_frames:
            raise RuntimeError(f"{type(self).__name__} made {features.shape[1]} frames where {num_frames} were due")
        return features

    def train(self, mode: bool = True) -> "SpeechFeatures":
        """Stay in evaluation mode: these features are frozen."""
        return super().train(False)
