"""Voice embeddings that need an optional package: Resemblyzer, and speaker models in ONNX format."""

import importlib
import math
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from modules.evaluation.pretrained import file_digest
from modules.evaluation.scorer import ScorerUnavailableError
from modules.evaluation.speaker import VoiceEmbedding


class ResemblyzerEmbedding(VoiceEmbedding):
    """The GE2E speaker encoder of the ``resemblyzer`` package, which brings its weights.

    Small and old, but at hand without a hub; different speakers have cosines of about 0.5, the same one about 0.87. Its
    own preparation is kept: volume brought to one level, long silences cut out.
    """

    sample_rate = 16_000
    min_seconds = 0.5

    def load(self) -> None:
        """Import the package."""
        try:
            self._package = importlib.import_module("resemblyzer")
        except ImportError as error:
            raise ScorerUnavailableError(
                f"resemblyzer cannot be imported ({error})",
                "pip install --no-deps resemblyzer, then pip install webrtcvad-wheels librosa",
            ) from error
        self._encoder: Any = self._package.VoiceEncoder("cpu", verbose=False)

    @torch.inference_mode()
    def forward(self, audio: Tensor) -> Tensor:
        """Embed one clip: float32 mono ``[N]`` -> ``[256]``, of length 1; NaN for silence."""
        samples = audio.float().cpu().numpy()
        if not samples.any():
            return torch.full((256,), math.nan)
        prepared = self._package.preprocess_wav(samples, source_sr=self.sample_rate)
        # Where it takes everything for silence, there is still something to compare.
        embedding = self._encoder.embed_utterance(prepared if len(prepared) else samples)
        return nn.functional.normalize(torch.from_numpy(np.asarray(embedding)).float(), dim=-1)

    def identity(self) -> dict[str, Any]:
        """The package and its version."""
        return {"name": "Resemblyzer", "revision": version("resemblyzer")}


class OnnxVoiceEmbedding(VoiceEmbedding):
    """A speaker model in ONNX format that takes Kaldi filterbanks: wespeaker's, or CAM++ and ERes2Net of 3D-Speaker.

    Needs the optional package ``onnxruntime``. The model's first input is ``[1, T, num_mels]``, 10 ms apart, the mean
    over time subtracted; its last output is ``[1, D]``.

    Args:
        path: The ``.onnx`` file.
        window: ``hamming`` for wespeaker, ``povey`` for 3D-Speaker.
        num_mels: Mel bands.
    """

    sample_rate = 16_000
    min_seconds = 0.5

    def __init__(self, path: str, window: Literal["hamming", "povey"] = "hamming", num_mels: int = 80) -> None:
        super().__init__()
        self.path = path
        self.window = window
        self.num_mels = num_mels

    def load(self) -> None:
        """Import the package and read the file."""
        try:
            package = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise ScorerUnavailableError(
                f"onnxruntime cannot be imported ({error})", "pip install onnxruntime"
            ) from error
        if not Path(self.path).is_file():
            raise ScorerUnavailableError(f"there is no {self.path!r}", "name the .onnx file of a speaker model")
        try:
            self._session: Any = package.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors derive from nothing narrower
            reason = f"{self.path!r} cannot be loaded ({str(error).strip().splitlines()[0]})"
            raise ScorerUnavailableError(reason, "name the .onnx file of a speaker model") from error
        self.revision = file_digest(Path(self.path))

    @cached_property
    def _filters(self) -> np.ndarray:
        return mel_filter_bank(
            257, self.num_mels, 20.0, 8000.0, self.sample_rate, norm=None, mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )  # fmt: skip

    def filterbank(self, audio: Tensor) -> np.ndarray:
        """Kaldi's log filterbank of audio ``[N]``, the mean over time subtracted: ``[T, num_mels]``, float32."""
        features = spectrogram(
            audio.float().cpu().numpy() * 2**15,  # Kaldi counts in 16-bit integers
            window_function(400, self.window, periodic=False),
            frame_length=400,
            hop_length=160,
            fft_length=512,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=self._filters,
            log_mel="log",
            mel_floor=float(np.finfo(np.float32).eps),
            remove_dc_offset=True,
        ).T
        return (features - features.mean(axis=0, keepdims=True)).astype(np.float32)

    def forward(self, audio: Tensor) -> Tensor:
        """Embed one clip: float32 mono ``[N]`` -> ``[D]``, of length 1."""
        *_, embedding = self._session.run(None, {self._session.get_inputs()[0].name: self.filterbank(audio)[None]})
        return nn.functional.normalize(torch.from_numpy(np.asarray(embedding)).float().reshape(-1), dim=-1)

    def identity(self) -> dict[str, Any]:
        """File name, digest and window."""
        return {"name": Path(self.path).stem, "revision": self.revision, "window": self.window}
