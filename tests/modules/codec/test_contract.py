"""What every codec keeps, whatever is inside."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn


def speechlike(*shape):
    return 0.1 * torch.randn(shape)


@pytest.mark.parametrize(("frames", "extra"), [(0, 1), (1, -1), (1, 0), (1, 1), (5, 0), (7, 3)])
def test_frames_are_samples_over_hop_rounded_up(codec, frames, extra):
    samples = frames * codec.hop_length + extra
    codes = codec.encode(speechlike(2, samples))
    expected_frames = -(-samples // codec.hop_length)
    assert codes.shape == (2, codec.num_quantizers, expected_frames)
    assert codes.dtype == torch.int64
    assert 0 <= codes.min() <= codes.max() < codec.codebook_size
    audio = codec.decode(codes)
    assert audio.shape == (2, expected_frames * codec.hop_length)
    assert audio.dtype == torch.float32
    assert audio.isfinite().all()


def test_frame_rate_is_exact(codec):
    assert codec.frame_rate * codec.hop_length == codec.sample_rate


def test_the_codes_depend_on_the_audio(codec):
    codes = codec.encode(speechlike(1, 30 * codec.hop_length))
    assert len(codes.unique()) > 2
    assert (codec.decode(codes) - codec.decode(codes.flip(-1))).abs().max() > 0


def test_the_last_frame_is_filled_with_silence(codec):
    audio = speechlike(1, 3 * codec.hop_length + 5)
    filled = nn.functional.pad(audio, (0, codec.hop_length - 5))
    assert torch.equal(codec.encode(audio), codec.encode(filled))


def test_a_row_does_not_depend_on_the_rows_beside_it(codec):
    audio = speechlike(3, 6 * codec.hop_length)
    codes = codec.encode(audio)
    decoded = codec.decode(codes)
    for row in range(3):
        assert torch.equal(codec.encode(audio[row : row + 1])[0], codes[row])
        torch.testing.assert_close(codec.decode(codes[row : row + 1])[0], decoded[row], rtol=1e-4, atol=1e-5)


def test_each_call_starts_afresh(codec):
    first, second = speechlike(1, 4 * codec.hop_length), speechlike(1, 4 * codec.hop_length)
    codes = codec.encode(first)
    codec.encode(second)
    assert torch.equal(codec.encode(first), codes)
    audio = codec.decode(codes)
    codec.decode(codec.encode(second))
    assert torch.equal(codec.decode(codes), audio)


def test_fewer_quantizers_are_the_leading_ones(codec, kind, build):
    coarse = build(kind, num_quantizers=3)
    assert coarse.num_quantizers == 3 < codec.num_quantizers
    audio = speechlike(2, 6 * codec.hop_length)
    codes = codec.encode(audio)
    assert torch.equal(coarse.encode(audio), codes[:, :3])
    assert torch.equal(codec.decode(codes[:, :3]), coarse.decode(codes[:, :3]))
    assert (codec.decode(codes[:, :3]) - codec.decode(codes)).abs().max() > 0


@pytest.mark.parametrize("asked", [0, 40])
def test_more_quantizers_than_there_are_is_an_error_with_both_numbers(codec, kind, build, asked):
    with pytest.raises(ValueError, match=f"has {codec.num_quantizers} quantizers.* cannot be {asked}"):
        build(kind, num_quantizers=asked)


def test_a_mask_id_is_not_decoded(codec):
    codes = codec.encode(speechlike(1, 2 * codec.hop_length))
    codes[0, 1, 1] = codec.codebook_size
    with pytest.raises(ValueError, match=f"0..{codec.codebook_size - 1}"):
        codec.decode(codes)


@pytest.mark.parametrize("shape", [(100,), (1, 1, 100), (2, 0)])
def test_audio_of_another_shape_is_named(codec, shape):
    with pytest.raises(ValueError, match=r"\[B, N\]"):
        codec.encode(torch.zeros(shape))


def test_codes_of_another_shape_are_named(codec):
    too_many = torch.zeros(1, codec.num_quantizers + 1, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=rf"1..{codec.num_quantizers}"):
        codec.decode(too_many)


def test_training_around_it_changes_nothing(codec):
    audio = speechlike(4, 6 * codec.hop_length)
    codes = codec.encode(audio)
    nn.ModuleList([codec]).train()
    assert not any(module.training for module in codec.modules())
    assert torch.equal(codec.encode(audio), codes)


def test_autocast_around_it_changes_nothing(codec):
    audio = speechlike(2, 100 * codec.hop_length)
    codes = codec.encode(audio)
    decoded = codec.decode(codes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(audio), codes)
        assert torch.equal(codec.decode(codes), decoded)


def test_no_graph_is_built(codec):
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    assert not codec.decode(codec.encode(speechlike(1, codec.hop_length).requires_grad_())).requires_grad


def test_it_can_be_copied(codec):
    audio = speechlike(1, 3 * codec.hop_length)
    assert torch.equal(copy.deepcopy(codec).encode(audio), codec.encode(audio))


def test_identity_is_complete(codec):
    identity = codec.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["sample_rate"] == codec.sample_rate
    assert identity["frame_rate"] == codec.frame_rate
    assert identity["num_quantizers"] == codec.num_quantizers
    assert identity["codebook_size"] == codec.codebook_size


def test_identity_follows_the_weights_not_the_folder(codec, kind, build, tiny_folders, tmp_path):
    copied = shutil.copytree(tiny_folders(kind), tmp_path / "elsewhere")
    assert build(kind, folder=copied).identity() == codec.identity()
    weights = copied / ("rvq.safetensors" if kind == "lyra" else "model.safetensors")
    tensors = load_file(weights)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel() > 1)
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    assert build(kind, folder=copied).identity()["revision"] != codec.identity()["revision"]


def test_code_vectors_add_up_to_the_latent(codec):
    codes = torch.randint(codec.codebook_size, (2, codec.num_quantizers, 6))
    vectors = codec.code_vectors()
    assert vectors.shape[:2] == (codec.num_quantizers, codec.codebook_size)
    total = sum(vectors[level][codes[:, level]] for level in range(codec.num_quantizers))
    latents = codec.latents(codes)
    assert total.flatten(0, 1).std() > 0
    difference = (latents - total).flatten(0, 1)
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), rtol=1e-4, atol=1e-4)
