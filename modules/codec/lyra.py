"""Google's Lyra v2, the one public SoundStream with trained weights, run by LiteRT, with a quantiser of any shape."""

import hashlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.codec.frozen import FrozenCodec, choose_num_quantizers
from modules.codec.pretrained import digest_files
from modules.codec.residual_vq import ResidualVQ


class LyraNetworks:
    """Encoder and decoder of Lyra v2 around its quantiser: 16 kHz, 50 frames/s, 64 values per frame.

    Both are causal and keep their past in the interpreter: LiteRT's ``reset_all_variables`` leaves it there, so each
    recording gets an interpreter of its own (about 3 ms). They run on the CPU, one thread, one recording at a time.

    Args:
        folder: Folder with ``soundstream_encoder.tflite`` and ``lyragan.tflite``, as in ``lyra/model_coeffs`` of
            github.com/google/lyra (Apache-2.0).

    Attributes:
        sample_rate: 16000 Hz.
        hop_length: Samples per frame.
        dim: Values per latent frame.
        files: The two files.

    Raises:
        ModuleNotFoundError: If the optional dependency is not installed.
        FileNotFoundError: If a file is not there.
    """

    sample_rate = 16_000

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.files = [Path(folder) / name for name in ("soundstream_encoder.tflite", "lyragan.tflite")]
        for file in self.files:
            if not file.is_file():
                raise FileNotFoundError(
                    f"no {file.name} in {str(folder)!r}: take it from lyra/model_coeffs of github.com/google/lyra"
                )
        self._encoder, self._decoder = (file.read_bytes() for file in self.files)
        interpreter = _interpreter(self._encoder)
        self.hop_length = int(interpreter.get_input_details()[0]["shape"][-1])
        self.dim = int(interpreter.get_output_details()[0]["shape"][-1])

    def analyse(self, audio: Tensor) -> Tensor:
        """Turn one recording into latents.

        Args:
            audio: Mono audio at 16 kHz, float32 in [-1, 1], ``[N]``; filled up with silence to whole frames.

        Returns:
            Latents, float32 on the CPU, ``[ceil(N / hop_length), dim]``.
        """
        samples = audio.detach().float().cpu().numpy()
        samples = np.pad(samples, (0, -len(samples) % self.hop_length))
        return torch.from_numpy(_stream(self._encoder, samples.reshape(-1, self.hop_length), self.dim))

    def synthesise(self, latents: Tensor) -> Tensor:
        """Turn latents into one recording.

        Args:
            latents: ``[T, dim]``.

        Returns:
            Audio at 16 kHz, float32 on the CPU, ``[T * hop_length]``.
        """
        frames = latents.detach().float().cpu().numpy()
        return torch.from_numpy(_stream(self._decoder, frames, self.hop_length)).flatten()


class LyraCodec(FrozenCodec):
    """Lyra v2 with a residual quantiser of any shape, such as SoundStorm's 12 levels x 1024 at 50 frames/s.

    Needs the optional dependency ``lyra``. The networks run on the CPU whatever the device of the codec.

    Args:
        folder: Folder with Lyra's files, see :class:`LyraNetworks`.
        quantizer: Codebooks fitted to Lyra's latents, as :class:`modules.codec.LyraQuantizerFitting` writes them.
        num_quantizers: Levels to use, coarse first; all where None.

    Raises:
        ModuleNotFoundError: If the optional dependency is not installed.
        FileNotFoundError: If a file is not there.
        ValueError: If the codebooks are of another width than the latents, or fewer than asked for.
    """

    def __init__(
        self, folder: str | PathLike[str], quantizer: str | PathLike[str], num_quantizers: int | None = None
    ) -> None:
        super().__init__()
        self.networks = LyraNetworks(folder)
        self.sample_rate, self.hop_length = self.networks.sample_rate, self.networks.hop_length
        available, self.codebook_size, dim = (codebooks := ResidualVQ.load(quantizer).codebooks).shape
        if dim != self.networks.dim:
            raise ValueError(
                f"the codebooks in {str(quantizer)!r} are {dim} wide, Lyra's latents {self.networks.dim}:"
                " fit them to those latents"
            )
        self.num_quantizers = choose_num_quantizers(num_quantizers, available, f"the codebook file {str(quantizer)!r}")
        self.quantizer = ResidualVQ(codebooks[: self.num_quantizers])
        self.name = "lyra_v2"
        self.revision = _digest(self.networks.files, self.quantizer.codebooks)

    def _encode(self, audio: Tensor) -> Tensor:
        device = self.quantizer.codebooks.device
        rows = [self.quantizer.encode(self.networks.analyse(row).to(device)) for row in audio]
        return torch.stack(rows).to(audio.device)

    def _decode(self, codes: Tensor) -> Tensor:
        latents = self.quantizer.decode(codes.to(self.quantizer.codebooks.device))
        return torch.stack([self.networks.synthesise(row) for row in latents]).to(codes.device)

    def latents(self, codes: Tensor) -> Tensor:
        """Look up the sum of the code vectors, ``[B, Q', T] -> [B, T, d]``."""
        return self.quantizer.decode(codes)


def _interpreter(model: bytes) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise ModuleNotFoundError(
            "Lyra needs LiteRT, an optional dependency: pip install 'soundstorm-lightning[lyra]'"
        ) from None
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _stream(model: bytes, frames: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Run a stateful network from its initial state over frames ``[T, ...]``; one row of ``width`` values per frame."""
    interpreter = _interpreter(model)
    source = interpreter.get_input_details()[0]
    target = interpreter.get_output_details()[0]["index"]
    made = np.empty((len(frames), width), np.float32)
    for row, frame in zip(made, frames, strict=True):
        interpreter.set_tensor(source["index"], frame.reshape(source["shape"]))
        interpreter.invoke()
        row[:] = interpreter.get_tensor(target).reshape(-1)
    return made


def _digest(files: list[Path], codebooks: Tensor) -> str:
    networks = digest_files(files)
    digest = hashlib.sha256(networks.encode() + codebooks.cpu().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"
