"""Speech features from the hidden states of any speech encoder of transformers."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.utils import logging as transformers_logging

from modules.semantic.features import SpeechFeatures
from modules.semantic.front_ends import FrontEnd, KaldiFilterbank, Waveform, WhisperLogMel

FRONT_ENDS: dict[type, type[FrontEnd]] = {
    Wav2Vec2FeatureExtractor: Waveform,
    SeamlessM4TFeatureExtractor: KaldiFilterbank,
    WhisperFeatureExtractor: WhisperLogMel,
}
UNUSED_WEIGHTS = {"masked_spec_embed"}  # stands in for masked frames in pre-training only


class TransformersFeatures(SpeechFeatures):
    """Hidden states of one layer of a speech encoder: w2v-BERT 2.0, HuBERT, WavLM, wav2vec 2.0 or Whisper's.

    Blocks above the wanted layer are not even built, and of Whisper only the encoder is kept. The audio is prepared
    as the model's own preprocessor configuration says, but never padded: Whisper sees the audio as it is, with as
    many of its positions as there are frames, and so takes up to 30 s.

    Frames per utterance of N samples at 16 kHz (a codec with hop 320 makes ``ceil(N / 320)``):

    ================================== ============================================
    wav2vec 2.0, HuBERT, WavLM         ``floor((N - 400) / 320) + 1``
    w2v-BERT 2.0                       ``floor((1 + floor((N - 400) / 160)) / 2)``
    Whisper                            ``ceil(floor(N / 160) / 2)``
    ================================== ============================================

    Args:
        model: Hub id or local folder.
        layer: Number of the block whose output is taken, from 1; the same as the index into transformers'
            ``hidden_states``. AudioLM takes layer 7 of w2v-BERT XL, later work layer 17 of w2v-BERT 2.0.
        revision: Commit, branch or tag on the hub; ignored for a folder.

    Raises:
        OSError: The model is neither a folder nor to be had from the hub.
        ValueError: It is no speech encoder of these families, lacks that layer, or lacks weights.
    """

    def __init__(self, model: str, layer: int, revision: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.layer = layer
        self.revision = revision
        extractor, config = _load_configuration(model, revision)
        self.front_end = _front_end(model, extractor, config)
        self.encoder = _load_encoder(model, layer, revision, config)
        self.name = str(config.model_type)
        self.sample_rate = int(extractor.sampling_rate)
        self.hop_length = self.front_end.hop_length
        self.dim = int(config.hidden_size)
        self.max_samples = self.encoder.max_frames * self.hop_length if self.encoder.max_frames else None
        # Taken now: the device and precision the weights move to later would change it.
        self._digest = _digest(self.encoder, self.front_end.settings())

    def num_frames(self, num_samples: int) -> int:
        """Number of frames, exactly, as in the table above."""
        return self.front_end.num_frames(num_samples)

    def extract(self, audio: Tensor) -> Tensor:
        """Compute the hidden states: ``[B, N]`` to ``[B, T, dim]``."""
        return self.encoder(self.front_end(audio))

    def identity(self) -> dict[str, Any]:
        """Family, layer and a digest of the weights in use: the same for a hub id and a copy of it in a folder."""
        return {"name": self.name, "revision": self._digest, "layer": self.layer}

    def init_args(self) -> dict[str, Any]:
        """Arguments that construct these features again."""
        return {"model": self.model, "layer": self.layer, "revision": self.revision}


class HiddenStates(nn.Module):
    """The output of the last block that was built, without any normalisation that follows the topmost one.

    Args:
        model: A model of transformers that ends at the wanted block.
    """

    max_frames: int | None = None

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's input to ``[B, T, dim]``."""
        return self.model(inputs, output_hidden_states=True).hidden_states[-1]


class UnpaddedWhisperEncoder(nn.Module):
    """Whisper's encoder on audio shorter than 30 s: the position table is cut to the frames there are.

    The model was trained on padded audio, but at layer 4 of Whisper base the cosine between unpadded and padded
    features of read speech is 0.96 to 0.98, for a small fraction of the time.

    Args:
        encoder: Encoder of a Whisper of transformers.
        final_norm: Whether to end with the encoder's layer norm, as its topmost hidden state does.
    """

    def __init__(self, encoder: Any, final_norm: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = encoder.conv1, encoder.conv2
        self.positions = encoder.embed_positions
        self.layers = encoder.layers
        self.norm = encoder.layer_norm if final_norm else nn.Identity()
        self.max_frames = self.positions.num_embeddings

    def forward(self, inputs: Tensor) -> Tensor:
        """``[B, bands, 2 T]`` to ``[B, T, dim]``."""
        hidden = nn.functional.gelu(self.conv2(nn.functional.gelu(self.conv1(inputs)))).transpose(1, 2)
        hidden = hidden + self.positions.weight[: hidden.shape[1]]
        for layer in self.layers:
            hidden = layer(hidden, None)
        return self.norm(hidden)


def _load_configuration(model: str, revision: str | None) -> tuple[Any, Any]:
    with _loading(model):
        extractor = AutoFeatureExtractor.from_pretrained(model, revision=revision)
        config = AutoConfig.from_pretrained(model, revision=revision)
    return extractor, config


def _front_end(model: str, extractor: Any, config: Any) -> FrontEnd:
    front_end = FRONT_ENDS.get(type(extractor))
    if front_end is None:
        known = ", ".join(sorted(extractor.__name__ for extractor in FRONT_ENDS))
        raise ValueError(
            f"{model!r} prepares its input with {type(extractor).__name__}; speech encoders with {known} are supported"
        )
    return front_end(extractor, config)


def _load_encoder(model: str, layer: int, revision: str | None, config: Any) -> Any:
    num_layers = config.num_hidden_layers
    if not 1 <= layer <= num_layers:
        raise ValueError(f"{model!r} has layers 1 to {num_layers}, layer {layer} was asked for")
    # A model configured to end at the wanted block: transformers leaves the weights of the rest in the file.
    config.num_hidden_layers = layer
    config.decoder_layers = 0
    config.add_adapter = False
    config.use_intermediate_ffn_before_adapter = False
    with _loading(model):
        built, report = AutoModel.from_pretrained(
            model, revision=revision, config=config, dtype=torch.float32, output_loading_info=True
        )
    missing = set(report["missing_keys"]) - UNUSED_WEIGHTS
    if isinstance(built, WhisperModel):
        missing = {name for name in missing if name.startswith("encoder.")}
        encoder = UnpaddedWhisperEncoder(built.get_encoder(), final_norm=layer == num_layers)
    else:
        encoder = HiddenStates(built)
    if missing:
        # transformers would go on with random values in their place.
        raise ValueError(f"{model!r} lacks weights of a {type(built).__name__}: {', '.join(sorted(missing)[:3])}, ...")
    return encoder.requires_grad_(False).eval()


@contextmanager
def _loading(model: str) -> Generator[None]:
    """Name model and remedy when it cannot be loaded, and keep transformers from reporting the weights left out."""
    verbosity = transformers_logging.get_verbosity()
    progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except OSError as error:
        kind = "cannot be read" if Path(model).is_dir() else "is no local folder and cannot be fetched from the hub"
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"speech encoder {model!r} {kind} ({reason}); name a folder that holds it, or connect to the hub once "
            f"with `hf download {model}`"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if progress:
            transformers_logging.enable_progress_bar()


def _digest(encoder: nn.Module, settings: dict[str, Any]) -> str:
    # Of the tensors without their names, which other versions of transformers may change.
    digests = sorted(
        xxhash.xxh3_64_hexdigest(value.contiguous().reshape(-1).view(torch.uint8).numpy())
        for key, value in encoder.state_dict().items()
        if key.rpartition(".")[2] not in UNUSED_WEIGHTS
    )
    return f"xxh3:{xxhash.xxh3_64_hexdigest(json.dumps([settings, digests], sort_keys=True).encode())}"
