"""The codec: lengths, independence of rows, published folders."""

from pathlib import Path

import pytest
import torch
import yaml

from modules.codec.soundstream import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    ResidualVectorQuantizer,
    SoundStream,
    SpectralDecoder,
    SpectralEncoder,
)

HOP = 16


def quantizer() -> ResidualVectorQuantizer:
    return ResidualVectorQuantizer(dim=6, num_quantizers=3, codebook_size=8)


def light() -> SoundStream:
    torch.manual_seed(0)
    arguments = {"latent_dim": 6, "dim": 8, "num_blocks": 1, "hop_length": HOP, "n_fft": 32, "stft_hop": 8}
    return SoundStream(SpectralEncoder(**arguments), SpectralDecoder(**arguments), quantizer())


def paper() -> SoundStream:
    torch.manual_seed(0)
    return SoundStream(ConvolutionalEncoder(6, 2, (2, 8)), ConvolutionalDecoder(6, 2, (8, 2)), quantizer())


@pytest.fixture(params=[light, paper])
def codec(request) -> SoundStream:
    return request.param()


@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, HOP + 1, 10 * HOP + 3])
def test_frames_are_hops_begun_and_come_back_whole(codec, samples):
    codes = codec.encode(torch.randn(2, samples))
    frames = -(-samples // HOP)
    assert codes.shape == (2, 3, frames)
    assert codec.decode(codes).shape == (2, frames * HOP)
    assert codec(torch.randn(2, samples)).audio.shape == (2, samples)


def test_a_row_does_not_depend_on_its_neighbours(codec):
    audio = torch.randn(3, 100)
    codes = codec.encode(audio)
    assert torch.equal(codec.encode(audio[1:2])[0], codes[1])
    torch.testing.assert_close(codec.decode(codes[1:2])[0], codec.decode(codes)[1])


def test_training_mode_does_not_change_codes(codec):
    audio = torch.randn(2, 100)
    assert torch.equal(codec.train().encode(audio), codec.eval().encode(audio))


def test_leading_levels_decode(codec):
    codes = codec.encode(torch.randn(1, 64))
    assert codec.decode(codes[:, :1]).shape == (1, 64)
    assert not torch.equal(codec.decode(codes[:, :1]), codec.decode(codes))


def test_more_levels_than_there_are_is_an_error(codec):
    with pytest.raises(ValueError, match="codes have 4 levels, the codec has 3"):
        codec.decode(torch.zeros(1, 4, 2, dtype=torch.long))


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="hop of 16 samples, decoder of 4"):
        SoundStream(ConvolutionalEncoder(6, 2, (2, 8)), ConvolutionalDecoder(6, 2, (2, 2)), quantizer())
    with pytest.raises(ValueError, match="encoder 5, quantizer 6, decoder 6"):
        SoundStream(ConvolutionalEncoder(5, 2, (2, 8)), ConvolutionalDecoder(6, 2, (8, 2)), quantizer())
    with pytest.raises(ValueError, match=r"1\.\.3, is 4"):
        SoundStream(light().encoder, light().decoder, quantizer(), num_quantizers=4)


def test_a_saved_codec_gives_the_same_codes_and_audio(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    loaded = SoundStream.from_pretrained(tmp_path)
    audio = torch.randn(2, 200)
    codes = codec.encode(audio)
    assert torch.equal(loaded.encode(audio), codes)
    assert torch.equal(loaded.decode(codes), codec.decode(codes))
    assert loaded.identity() == codec.identity()
    assert not loaded.training
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "model.safetensors"]


def test_half_precision_is_smaller_and_reads_back_as_float32(tmp_path):
    light().save_pretrained(tmp_path / "half", torch.float16)
    light().save_pretrained(tmp_path / "full")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.7 * sizes[1]
    loaded = SoundStream.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.decode(loaded.encode(torch.randn(1, 64))).dtype == torch.float32


def test_fewer_levels_can_be_asked_for_at_loading(tmp_path):
    codec = light()
    codec.save_pretrained(tmp_path)
    loaded = SoundStream.from_pretrained(tmp_path, num_quantizers=2)
    audio = torch.randn(1, 64)
    assert torch.equal(loaded.encode(audio), codec.encode(audio)[:, :2])
    assert loaded.identity() == codec.identity() | {"num_quantizers": 2}


def test_identity_follows_the_weights_that_make_codes():
    codec = light()
    before = codec.identity()
    assert before == light().identity()
    assert before["frame_rate"] == 1000
    with torch.no_grad():
        next(codec.decoder.parameters()).add_(1e-3)
    assert codec.identity() == before
    with torch.no_grad():
        next(codec.encoder.parameters()).add_(1e-3)
    assert codec.identity()["revision"] != before["revision"]


@pytest.mark.parametrize(
    "class_path",
    ["os.system", "modules.codec.soundstream.pretrained.snapshot_download", "modules.warmup.WarmupCosine"],
)
def test_a_folder_that_names_a_foreign_class_is_refused(class_path, tmp_path):
    light().save_pretrained(tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["init_args"]["encoder"] = {"class_path": class_path, "init_args": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=f"'{class_path}' is not allowed"):
        SoundStream.from_pretrained(tmp_path)


def test_a_part_of_a_codec_is_no_codec(tmp_path):
    light().save_pretrained(tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config["init_args"]["quantizer"]))
    with pytest.raises(ValueError, match=r"another model|holds a ResidualVectorQuantizer"):
        SoundStream.from_pretrained(tmp_path)


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no readable config\.yaml"):
        SoundStream.from_pretrained(tmp_path)
    light().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"model\.safetensors is missing, damaged"):
        SoundStream.from_pretrained(tmp_path)
    paper().save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="of another model"):
        SoundStream.from_pretrained(tmp_path)


def test_a_foreign_class_cannot_be_saved(tmp_path):
    class Other(SpectralEncoder):
        pass

    codec = light()
    codec.encoder = Other(6, 8, 1, HOP, 32, 8)
    with pytest.raises(ValueError, match="cannot be published"):
        codec.save_pretrained(tmp_path)


def test_codes_do_not_depend_on_the_precision_of_a_run():
    codec = SoundStream.from_pretrained(Path(__file__).parents[4] / "checkpoints" / "small-16k" / "codec")
    audio = 0.1 * torch.randn(1, 8000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = codec.encode(audio)
    assert torch.equal(under_autocast, codec.encode(audio))
