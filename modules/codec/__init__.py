"""Audio codecs: the contract, published ones, and our own."""

from modules.codec.codec import AudioCodec
from modules.codec.lyra import LyraCodec
from modules.codec.lyra_fitting import LyraQuantizerFitting
from modules.codec.reconstruction import CodecReconstruction
from modules.codec.residual_vq import ResidualVQ, fit_residual_vq
from modules.codec.transformers_codecs import DacCodec, EncodecCodec, MimiCodec, XcodecCodec

__all__ = [
    "AudioCodec",
    "CodecReconstruction",
    "DacCodec",
    "EncodecCodec",
    "LyraCodec",
    "LyraQuantizerFitting",
    "MimiCodec",
    "ResidualVQ",
    "XcodecCodec",
    "fit_residual_vq",
]
