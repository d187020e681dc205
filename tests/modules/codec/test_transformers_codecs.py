"""The adapters say what transformers says, and load what is safe to load."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import pad

from modules.codec import DacCodec, EncodecCodec, MimiCodec, XcodecCodec

SAMPLES = 5 * 320 + 7


def whole_frames(audio, codec):
    return pad(audio, (0, -audio.shape[1] % codec.hop_length))[:, None]


def test_dac_is_transformers_dac(build, tiny_folders):
    codec = build("dac")
    audio = 0.1 * torch.randn(2, SAMPLES)
    direct = codec.model_class.from_pretrained(tiny_folders("dac")).eval()
    with torch.no_grad():
        codes = direct.encode(whole_frames(audio, codec)).audio_codes
        decoded = direct.decode(audio_codes=codes).audio_values
    assert torch.equal(codec.encode(audio), codes)
    # The decoder's odd stride loses 8 samples of every recording.
    assert decoded.shape == (2, 6 * 320 - 8)
    assert torch.equal(codec.decode(codes), pad(decoded, (0, 8)))


@pytest.mark.parametrize(("num_quantizers", "bandwidth"), [(2, 0.6), (3, 1.2), (8, 2.4)])
def test_encodec_is_transformers_encodec(build, tiny_folders, num_quantizers, bandwidth):
    codec = build("encodec", num_quantizers)
    audio = 0.1 * torch.randn(2, SAMPLES)
    direct = codec.model_class.from_pretrained(tiny_folders("encodec")).eval()
    with torch.no_grad():
        encoded = direct.encode(whole_frames(audio, codec), bandwidth=bandwidth)
        codes = encoded.audio_codes[:, :, :num_quantizers]
        decoded = direct.decode(codes, encoded.audio_scales).audio_values
    assert torch.equal(codec.encode(audio), codes[0])
    assert torch.equal(codec.decode(codes[0]), decoded[:, 0])


@pytest.mark.parametrize("num_quantizers", [1, 3])
def test_mimi_is_transformers_mimi(build, tiny_folders, num_quantizers):
    codec = build("mimi", num_quantizers)
    audio = 0.1 * torch.randn(2, 3 * 1920 + 7)
    direct = codec.model_class.from_pretrained(tiny_folders("mimi")).eval()
    with torch.no_grad():
        codes = direct.encode(whole_frames(audio, codec), num_quantizers=num_quantizers).audio_codes
        decoded = direct.decode(codes).audio_values
    assert torch.equal(codec.encode(audio), codes)
    assert torch.equal(codec.decode(codes), decoded[:, 0])


@pytest.mark.parametrize(("num_quantizers", "bandwidth"), [(1, 0.2), (3, 0.8)])
def test_xcodec_is_transformers_xcodec(build, tiny_folders, num_quantizers, bandwidth):
    codec = build("xcodec", num_quantizers)
    audio = 0.1 * torch.randn(2, SAMPLES)
    direct = codec.model_class.from_pretrained(tiny_folders("xcodec")).eval()
    with torch.no_grad():
        codes = direct.encode(whole_frames(audio, codec), bandwidth=bandwidth).audio_codes[:, :num_quantizers]
        decoded = direct.decode(codes).audio_values
    assert torch.equal(codec.encode(audio), codes)
    assert torch.equal(codec.decode(codes), decoded[:, 0])


@pytest.mark.parametrize("codec_class", [DacCodec, EncodecCodec, MimiCodec, XcodecCodec])
def test_an_unreachable_hub_is_one_line_with_the_remedy(codec_class):
    with pytest.raises(FileNotFoundError) as caught:
        codec_class()
    message = str(caught.value)
    assert f"`hf download {codec_class.default_model}`" in message
    assert "local folder" in message
    assert "\n" not in message
    assert caught.value.__suppress_context__


def test_a_path_that_does_not_exist_is_named():
    with pytest.raises(FileNotFoundError, match=r"no folder '\./no/such/folder'"):
        DacCodec("./no/such/folder")


def test_a_model_of_another_kind_is_refused(tiny_folders):
    with pytest.raises(ValueError, match="type 'encodec', not 'dac'"):
        DacCodec(tiny_folders("encodec"))


def test_missing_weights_are_not_made_up(tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders("dac"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["decoder.conv1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"not complete: decoder.conv1.weight"):
        DacCodec(folder)


def test_pickled_weights_are_not_read(tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders("dac"), tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks .*model.safetensors"):
        DacCodec(folder)


def test_half_precision_weights_run_in_float32(build, tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders("dac"), tmp_path / "model")
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    codec = DacCodec(folder)
    assert {parameter.dtype for parameter in codec.parameters()} == {torch.float32}


def test_the_hubs_older_names_of_weights_load(build, tiny_folders, tmp_path):
    # Models published before weight norm was a parametrization, such as facebook/encodec_24khz.
    folder = shutil.copytree(tiny_folders("encodec"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    older = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert older.keys() != tensors.keys()
    save_file(older, folder / "model.safetensors", metadata={"format": "pt"})
    audio = 0.1 * torch.randn(1, SAMPLES)
    codec = build("encodec")
    assert torch.equal(EncodecCodec(folder).decode(codec.encode(audio)), codec.decode(codec.encode(audio)))


@pytest.mark.parametrize("change", [{"normalize": True}, {"audio_channels": 2}, {"chunk_length_s": 1.0}])
def test_encodec_that_needs_more_than_codes_is_refused(tiny_folders, tmp_path, change):
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(**json.loads((tiny_folders("encodec") / "config.json").read_text()) | change)
    EncodecModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot be decoded from codes alone"):
        EncodecCodec(tmp_path)


def test_a_model_in_the_hubs_cache_is_found_by_id_and_is_the_same_codec(build, tiny_folders, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_folders("dac"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert DacCodec("someone/tiny").identity() == build("dac").identity()
    assert DacCodec("someone/tiny", revision=commit, local_files_only=True).identity() == build("dac").identity()
    with pytest.raises(FileNotFoundError, match="hf download someone/tiny"):
        DacCodec("someone/tiny", revision="another")
