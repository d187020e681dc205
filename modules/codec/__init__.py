"""Audio codecs: the contract, published ones, and our own."""

from typing import TYPE_CHECKING

from modules.codec.codec import AudioCodec
from modules.codec.lyra import LyraCodec
from modules.codec.residual_vq import ResidualVQ, fit_residual_vq
from modules.lazy import lazy_names

if TYPE_CHECKING:
    from modules.codec.lyra_fitting import LyraQuantizerFitting
    from modules.codec.reconstruction import CodecReconstruction
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

__getattr__ = lazy_names(
    __name__,
    {
        "CodecReconstruction": "modules.codec.reconstruction",
        "LyraQuantizerFitting": "modules.codec.lyra_fitting",
        "DacCodec": "modules.codec.transformers_codecs",
        "EncodecCodec": "modules.codec.transformers_codecs",
        "MimiCodec": "modules.codec.transformers_codecs",
        "XcodecCodec": "modules.codec.transformers_codecs",
    },
)
