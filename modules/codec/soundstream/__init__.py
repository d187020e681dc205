"""SoundStream: our own trainable codec, with convolutional networks as published or light spectral ones for CPUs."""

from typing import TYPE_CHECKING

from modules.codec.soundstream.codec import SoundStream
from modules.codec.soundstream.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from modules.codec.soundstream.discriminators import (
    DiscriminatorSet,
    SpectralPatchDiscriminator,
    STFTDiscriminator,
    WaveformDiscriminator,
)
from modules.codec.soundstream.losses import ComplexSpectralLoss, MultiScaleMelLoss
from modules.codec.soundstream.quantizer import ResidualVectorQuantizer
from modules.codec.soundstream.spectral import SpectralDecoder, SpectralEncoder
from modules.lazy import lazy_names

if TYPE_CHECKING:
    from modules.codec.soundstream.training import SoundStreamTraining

__all__ = [
    "ComplexSpectralLoss",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "DiscriminatorSet",
    "MultiScaleMelLoss",
    "ResidualVectorQuantizer",
    "STFTDiscriminator",
    "SoundStream",
    "SoundStreamTraining",
    "SpectralDecoder",
    "SpectralEncoder",
    "SpectralPatchDiscriminator",
    "WaveformDiscriminator",
]

__getattr__ = lazy_names(__name__, {"SoundStreamTraining": "modules.codec.soundstream.training"})
