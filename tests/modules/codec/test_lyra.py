"""Lyra: its past, its files, and the real thing where it is at hand."""

import os
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from modules.codec import LyraCodec, ResidualVQ, fit_residual_vq
from modules.codec.lyra import LyraNetworks


@pytest.fixture
def folder(tiny_folders):
    return tiny_folders("lyra")


def test_a_frame_answers_to_the_frames_before_it(folder):
    networks = LyraNetworks(folder)
    audio = torch.randn(4 * networks.hop_length)
    latents = networks.analyse(audio)
    assert latents.shape == (4, networks.dim)
    later = networks.analyse(audio[networks.hop_length :])
    # The first frame of the cut audio has lost its past, the others have not.
    assert (later[0] - latents[1]).abs().max() > 0.1
    assert torch.equal(later[1:], latents[2:])


def test_a_recording_knows_nothing_of_the_one_before(folder):
    networks = LyraNetworks(folder)
    audio = torch.randn(4 * networks.hop_length)
    latents, sound = networks.analyse(audio), networks.synthesise(torch.ones(3, networks.dim))
    networks.analyse(torch.randn(64))
    networks.synthesise(torch.randn(5, networks.dim))
    assert torch.equal(networks.analyse(audio), latents)
    assert torch.equal(networks.synthesise(torch.ones(3, networks.dim)), sound)


def test_codes_are_the_quantised_latents(folder, build):
    codec = build("lyra")
    audio = torch.randn(1, 5 * codec.hop_length)
    latents = LyraNetworks(folder).analyse(audio[0])
    quantizer = ResidualVQ.load(folder / "rvq.safetensors")
    codes = codec.encode(audio)
    assert torch.equal(codes[0], quantizer.encode(latents))
    assert torch.equal(codec.decode(codes)[0], LyraNetworks(folder).synthesise(quantizer.decode(codes[0])))


def test_identity_follows_the_networks(folder, build, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    decoder = tmp_path / "lyragan.tflite"
    decoder.write_bytes(decoder.read_bytes() + b"\0")
    assert build("lyra", folder=tmp_path).identity()["revision"] != build("lyra").identity()["revision"]


def test_missing_files_are_named_with_their_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no soundstream_encoder.tflite in .*github.com/google/lyra"):
        LyraNetworks(tmp_path)


def test_a_missing_extra_is_named_with_the_remedy(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'soundstorm-lightning\[lyra\]'") as caught:
        LyraNetworks(folder)
    assert caught.value.__suppress_context__


def test_codebooks_of_another_width_are_refused(folder, tmp_path):
    ResidualVQ(torch.randn(2, 8, 3)).save(tmp_path / "rvq.safetensors")
    with pytest.raises(ValueError, match=r"are 3 wide, Lyra's latents 4"):
        LyraCodec(folder, tmp_path / "rvq.safetensors")


@pytest.mark.assets
def test_real_lyra_carries_speech(tmp_path):
    if "SOUNDSTORM_LYRA" not in os.environ:
        pytest.skip("SOUNDSTORM_LYRA does not name a folder with Lyra's files")
    folder = Path(os.environ["SOUNDSTORM_LYRA"])
    networks = LyraNetworks(folder)
    assert (networks.hop_length, networks.dim) == (320, 64)
    clips = sorted((Path(__file__).parents[3] / "datamodules" / "demo_speech" / "audio").rglob("*.ogg"))[:12]
    audio = [torch.from_numpy(soundfile.read(clip, dtype="float32")[0])[:64000] for clip in clips]
    latents = [networks.analyse(clip) for clip in audio]
    fit_residual_vq(torch.cat(latents[1:]), num_quantizers=8, codebook_size=64).save(tmp_path / "rvq.safetensors")

    def similarity(codec):
        heard = codec.decode(codec.encode(audio[0][None]))[0]
        return torch.corrcoef(torch.stack([log_spectrum(audio[0]), log_spectrum(heard[: len(audio[0])])]))[0, 1]

    coarse = similarity(LyraCodec(folder, tmp_path / "rvq.safetensors", num_quantizers=1))
    fine = similarity(LyraCodec(folder, tmp_path / "rvq.safetensors"))
    assert 0.5 < coarse < fine
    assert fine > 0.8


def log_spectrum(audio):
    spectrum = torch.stft(audio, 640, 320, window=torch.hann_window(640), return_complex=True).abs()
    return spectrum.clamp_min(1e-3).log().flatten()
