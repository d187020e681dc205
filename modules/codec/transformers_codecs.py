"""Published neural codecs, run by transformers: DAC, EnCodec, Mimi, X-Codec."""

import json
from abc import abstractmethod
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import DacModel, EncodecModel, MimiModel, PreTrainedModel, XcodecModel

from modules.codec.frozen import FrozenCodec, choose_num_quantizers
from modules.codec.pretrained import digest_files, find_pretrained, weights_files


class TransformersCodec(FrozenCodec):
    """A codec of transformers, by hub id or local folder; a subclass names the model class and calls it.

    Args:
        model: Hub id, or local folder with ``config.json`` and ``model.safetensors`` as ``save_pretrained`` writes it;
            ``default_model`` of the class where None.
        num_quantizers: Levels to use, coarse first; all that the model has where None.
        revision: Commit, branch or tag on the hub; ignored for a folder.
        local_files_only: Look in the hub's cache only, without asking the hub for news.

    Raises:
        FileNotFoundError: If the weights are not to be had, with the remedy.
        ValueError: If the folder holds another kind of model, or the model has fewer levels than asked for.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    default_model: ClassVar[str]

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        num_quantizers: int | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        super().__init__()
        source = str(model or self.default_model)
        folder = find_pretrained(source, revision, local_files_only)
        self.model = _load_frozen(self.model_class, folder, source)
        config = self.model.config
        self.sample_rate, self.hop_length, available = self._geometry(config)
        self.num_quantizers = choose_num_quantizers(num_quantizers, available, f"{type(self).__name__} {source!r}")
        self.codebook_size = config.codebook_size
        self.name = config.model_type
        self.revision = digest_files(weights_files(folder))

    @staticmethod
    @abstractmethod
    def _geometry(config: Any) -> tuple[int, int, int]:
        """Read sample rate in Hz, samples per frame and number of levels from the model's configuration."""


class DacCodec(TransformersCodec):
    """Descript Audio Codec (Kumar et al. 2023); the 16 kHz model has the shape of SoundStorm's own codec.

    ``descript/dac_16khz``: 50 frames/s x 12 levels x 1024; ``descript/dac_24khz``: 75 x 32 x 1024;
    ``descript/dac_44khz``: about 86.1 x 9 x 1024.
    """

    model_class = DacModel
    default_model = "descript/dac_16khz"

    @staticmethod
    def _geometry(config: Any) -> tuple[int, int, int]:
        return config.sampling_rate, config.hop_length, config.n_codebooks

    def _encode(self, audio: Tensor) -> Tensor:
        return self.model.encode(audio[:, None], n_quantizers=self.num_quantizers).audio_codes

    def _decode(self, codes: Tensor) -> Tensor:
        # Each odd stride of the decoder loses a few samples at the end: 8 of the 16 kHz model, whatever T is.
        return self.model.decode(audio_codes=codes).audio_values

    def latents(self, codes: Tensor) -> Tensor:
        """Look up the sum of the code vectors, ``[B, Q', T] -> [B, T, d]``."""
        return self.model.quantizer.from_codes(codes)[0].transpose(1, 2)


class EncodecCodec(TransformersCodec):
    """EnCodec (Défossez et al. 2022): 75 frames/s x 32 levels x 1024 at 24 kHz; 0.75 kbit/s per level.

    The 48 kHz model does not fit: it is stereo, and its codes give no audio without the loudness of each second.
    """

    model_class = EncodecModel
    default_model = "facebook/encodec_24khz"

    @staticmethod
    def _geometry(config: Any) -> tuple[int, int, int]:
        if config.normalize or config.audio_channels != 1 or config.chunk_length_s is not None:
            raise ValueError(
                "an EnCodec model that is stereo, chunked or normalised by loudness cannot be decoded from codes alone:"
                " use facebook/encodec_24khz or one like it"
            )
        return config.sampling_rate, config.hop_length, config.num_quantizers

    def _encode(self, audio: Tensor) -> Tensor:
        bandwidth = _sufficient_bandwidth(self.model, self.num_quantizers)
        # One chunk [1, B, Q, T]: the whole recording.
        return self.model.encode(audio[:, None], bandwidth=bandwidth).audio_codes[0, :, : self.num_quantizers]

    def _decode(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes[None], audio_scales=[None]).audio_values[:, 0]

    def latents(self, codes: Tensor) -> Tensor:
        """Look up the sum of the code vectors, ``[B, Q', T] -> [B, T, d]``."""
        return self.model.quantizer.decode(codes.transpose(0, 1)).transpose(1, 2)


class MimiCodec(TransformersCodec):
    """Mimi (Défossez et al. 2024): 12.5 frames/s x 32 levels x 2048 at 24 kHz.

    Level 0 is distilled from a speech encoder ("semantic"); levels 1 and up are a residual quantiser of their own
    beside it, not of what level 0 left over.
    """

    model_class = MimiModel
    default_model = "kyutai/mimi"

    @staticmethod
    def _geometry(config: Any) -> tuple[int, int, int]:
        return config.sampling_rate, round(config.sampling_rate / config.frame_rate), config.num_quantizers

    def _encode(self, audio: Tensor) -> Tensor:
        return self.model.encode(audio[:, None], num_quantizers=self.num_quantizers, use_streaming=False).audio_codes

    def _decode(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values[:, 0]

    def latents(self, codes: Tensor) -> Tensor:
        """Look up the sum of the code vectors, ``[B, Q', T] -> [B, T, d]``."""
        return self.model.quantizer.decode(codes).transpose(1, 2)


class XcodecCodec(TransformersCodec):
    """X-Codec (Ye et al. 2024): 50 frames/s x 8 levels x 1024 at 16 kHz, on convolutional and HuBERT features."""

    model_class = XcodecModel
    default_model = "hf-audio/xcodec-hubert-librispeech"

    @staticmethod
    def _geometry(config: Any) -> tuple[int, int, int]:
        return config.sample_rate, config.hop_length, config.num_quantizers

    def _encode(self, audio: Tensor) -> Tensor:
        bandwidth = _sufficient_bandwidth(self.model, self.num_quantizers)
        return self.model.encode(audio[:, None], bandwidth=bandwidth).audio_codes[:, : self.num_quantizers]

    def _decode(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values[:, 0]

    def latents(self, codes: Tensor) -> Tensor:
        """Look up the sum of the code vectors, ``[B, Q', T] -> [B, T, d]``."""
        return self.model.quantizer.decode(codes.transpose(0, 1)).transpose(1, 2)


def _load_frozen(model_class: type[PreTrainedModel], folder: Path, name: str) -> Any:
    """Load a model in float32, frozen, and refuse what transformers would fill up with random weights."""
    found = json.loads((folder / "config.json").read_text()).get("model_type")
    wanted = model_class.config_class.model_type if model_class.config_class else None
    if found != wanted:
        raise ValueError(f"{name!r} holds a model of type {found!r}, not {wanted!r}")
    loaded: Any = model_class.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    model, info = loaded
    if info["missing_keys"]:
        absent = ", ".join(sorted(info["missing_keys"])[:3])
        raise ValueError(f"the weights of {name!r} are not complete: {absent} ... are missing")
    return model.eval().requires_grad_(False)


def _sufficient_bandwidth(model: Any, num_quantizers: int) -> float:
    """Choose the smallest bitrate in kbit/s that the model offers and that has at least so many levels."""
    levels = model.quantizer.get_num_quantizers_for_bandwidth
    return min(bandwidth for bandwidth in model.config.target_bandwidths if levels(bandwidth) >= num_quantizers)
