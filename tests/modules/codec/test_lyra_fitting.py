"""Fitting Lyra's quantiser as a stage."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from modules.batches import AudioBatch
from modules.codec import LyraCodec, LyraQuantizerFitting


def batches(count, samples=16 * 40, sample_rate=16000):
    def batch(index):
        return AudioBatch([f"{index}"], [torch.randn(samples)], sample_rate, [""], [""], [])

    return DataLoader([batch(index) for index in range(count)], batch_size=None)


def fit(model, loader):
    Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
        model, loader
    )


def test_the_fitted_quantiser_makes_a_codec(tiny_folders, tmp_path, capsys):
    output = tmp_path / "new" / "rvq.safetensors"
    fit(LyraQuantizerFitting(tiny_folders("lyra"), output, num_quantizers=3, codebook_size=8), batches(5))
    codec = LyraCodec(tiny_folders("lyra"), output)
    assert (codec.num_quantizers, codec.codebook_size) == (3, 8)
    networks = codec.networks
    audio = torch.randn(1, 16 * 40)
    latents = networks.analyse(audio[0])
    error = latents - codec.quantizer.decode(codec.encode(audio)[0])
    assert error.square().mean() < 0.5 * latents.var()
    assert "level 3 of 3" in capsys.readouterr().out


def test_reading_stops_at_max_frames(tiny_folders, tmp_path):
    model = LyraQuantizerFitting(tiny_folders("lyra"), tmp_path / "rvq.safetensors", 1, 4, max_frames=100)
    seen = []
    original = model.networks.analyse
    model.networks.analyse = lambda audio: seen.append(original(audio)) or seen[-1]
    fit(model, batches(10))
    assert len(seen) == 3  # 40 frames each


def test_audio_at_another_rate_is_refused(tiny_folders, tmp_path):
    model = LyraQuantizerFitting(tiny_folders("lyra"), tmp_path / "rvq.safetensors")
    with pytest.raises(ValueError, match="works at 16000 Hz, the data at 24000 Hz"):
        fit(model, batches(1, sample_rate=24000))


def test_too_little_audio_is_named_and_nothing_is_written(tiny_folders, tmp_path):
    model = LyraQuantizerFitting(tiny_folders("lyra"), tmp_path / "rvq.safetensors")
    with pytest.raises(ValueError, match="40 latents are too few to fit a codebook of 1024"):
        fit(model, batches(1))
    assert not list(tmp_path.iterdir())
