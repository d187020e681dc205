"""Damaged files: an error that names the file, never a hang, another kind of error or, where the format can tell, a
wrong value.

``FUZZ=3000 python -m pytest tests/reliability/test_fuzzing.py`` tries more of them.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parent))
import test_writers as made
from corruption import damages, in_time

from callbacks.checkpoint_io import AtomicCheckpointIO
from datamodules.audio_crops import CropDataset, read_clips
from datamodules.audio_files import AudioReader, UnusableAudio, audio_seconds
from datamodules.audio_manifest import AudioManifest
from datamodules.generated_set import GeneratedCard, GeneratedRow, GeneratedSetWriter, read_rows
from datamodules.token_card import TokenSetCard
from datamodules.token_set import TokenSetWriter, done_ids, open_token_set, read_rejected
from datamodules.token_set import read_rows as read_tokens
from modules.batches import Rejection

COUNT = int(os.environ.get("FUZZ", "18"))
NAMED = (ValueError, OSError)


def try_all(file, read, same, *, count=COUNT, exact=True, named=None, undetected="nothing"):
    """Damage a file in many ways; return how many were noticed."""
    content = file.read_bytes()
    whole = read()
    noticed = 0
    for damage, damaged in damages(content, count):
        file.write_bytes(damaged)
        with in_time(20):
            message = None
            try:
                value = read()
            except NAMED as error:
                message = f"{type(error).__name__}: {error}"
            except Exception as error:
                raise AssertionError(f"{damage}: {type(error).__name__}: {error}") from error
        if message is not None:
            noticed += 1
            assert (named or file.name) in message, f"{damage}: {message}"
            assert len(message) < 6000, f"{damage}: {message}"
        else:
            assert same(value, whole) or not exact or damage.startswith(undetected), f"{damage}: read as {value!r:.500}"
    file.write_bytes(content)
    assert noticed >= count // 10, "hardly any damage was noticed"
    return noticed


def speech():
    time = np.arange(24_000) / 16_000
    random = np.random.default_rng(0)
    return 0.3 * np.sin(2 * np.pi * 200 * time) * np.sin(3 * time) + random.normal(0, 0.02, len(time))


@pytest.mark.parametrize("suffix", ["flac", "ogg", "wav", "mp3"])
def test_audio(tmp_path, suffix):
    """FLAC has checksums; the other formats cannot tell a flipped bit from a sound, but must stay sound."""
    file = tmp_path / f"a.{suffix}"
    soundfile.write(file, speech(), 16_000)
    reader = AudioReader(16_000)

    def read():
        try:
            audio_seconds(file)
            return reader(file)
        except UnusableAudio as error:
            raise ValueError(f"{file}: {error}") from error  # as the datamodule does: the reason has no name

    def same(value, whole):
        assert value.dtype == torch.float32
        assert value.ndim == 1
        assert value.isfinite().all()
        assert value.abs().max() <= 1
        return value.shape == whole.shape and torch.allclose(value, whole, atol=1e-4)

    # libsndfile fills up with silence where FLAC's header promises more than its frames hold.
    try_all(file, read, same, exact=suffix == "flac", undetected="number")


@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_crops(tmp_path, suffix):
    """The reader of codec training names the file."""
    file = tmp_path / f"a.{suffix}"
    soundfile.write(file, speech(), 16_000)

    def read():
        return CropDataset(read_clips(tmp_path), 16_000, 8_000)[0]

    try_all(file, read, lambda value, whole: value.shape == whole.shape and value.isfinite().all(), exact=True)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_manifest(tmp_path, suffix):
    file = tmp_path / f"list.{suffix}"
    rows = [{"path": f"a/{n}.wav", "speaker": f"s{n}", "text": f"number {n}"} for n in range(8)]
    if suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        tab = "\t" if suffix == "tsv" else ","
        lines = [tab.join(rows[0]), *(tab.join(row.values()) for row in rows)]
        file.write_text("".join(line + "\n" for line in lines))

    def read():
        return [AudioManifest(str(file))[index] for index in range(len(AudioManifest(str(file))))]

    def same(value, whole):
        assert all(Path(row.path).resolve().is_relative_to(tmp_path) for row in value)
        return value == whole

    try_all(file, read, same, exact=False)  # text holds no checksum


def token_set(folder):
    with TokenSetWriter(folder, made.CARD) as writer:
        made.add(writer, 6)
        writer.reject(Rejection("bad", "bad.wav", "is empty"))


@pytest.mark.parametrize("fresh", [True, False], ids=["cache made anew", "cache there"])
def test_shard(tmp_path, fresh):
    """Pages have checksums, so that a flipped bit is never a token."""
    token_set(tmp_path)
    [file] = (tmp_path / "data").glob("*.parquet")
    caches = iter(range(10_000))

    def read():
        cache = tmp_path / "caches" / str(next(caches) if fresh else 0)
        dataset = open_token_set(tmp_path, cache_dir=cache)
        rows = read_tokens(dataset, range(len(dataset)), 2)
        return [(row.id, row.speaker, row.text, row.semantic.tolist(), row.codes.tolist()) for row in rows]

    try_all(file, read, lambda value, whole: value == whole, count=COUNT if fresh else 12)


def test_ids_of_a_shard(tmp_path):
    token_set(tmp_path)
    [file] = (tmp_path / "data").glob("*.parquet")
    try_all(file, lambda: done_ids(tmp_path), lambda value, whole: value == whole)


def test_token_card(tmp_path):
    token_set(tmp_path)

    def same(value, whole):
        """A flipped digit cannot be told, but a value of another kind can."""
        for name in ("sample_rate", "num_quantizers", "codebook_size", "semantic_vocab_size"):
            assert type(getattr(value, name)) is int
            assert getattr(value, name) > 0
        assert isinstance(value.codec, dict)
        assert isinstance(value.semantic, dict)
        assert 0 < value.frame_rate < float("inf")

    try_all(tmp_path / "card.json", lambda: TokenSetCard.load(tmp_path), same, exact=False)


def test_rejected_inputs_are_read_as_far_as_they_can_be(tmp_path):
    token_set(tmp_path)
    file = tmp_path / "rejected.jsonl"
    content = file.read_bytes()
    for damage, damaged in damages(content, COUNT):
        file.write_bytes(damaged)
        for row in read_rejected(tmp_path):
            assert all(isinstance(value, str) for value in row), damage


@pytest.mark.parametrize("name", ["card.json", "manifest.jsonl"])
def test_audio_set(tmp_path, name):
    card = GeneratedCard("s", "c", 16_000, {"name": "x"})
    writer = GeneratedSetWriter(tmp_path, card)
    for n in range(4):
        row = GeneratedRow(f"u{n}", f"audio/u{n}.flac", "x", "", 50, 0.0, 1.0, 16_000, n, "s", "c")
        writer.write(row, np.zeros(16_000))
    writer.close()
    os.rename(tmp_path / "manifest-r0.jsonl", tmp_path / "manifest.jsonl")

    def same(value, whole):
        card, rows = value
        assert type(card.sample_rate) is int
        assert isinstance(card.codec, dict)
        assert all(isinstance(row.id, str) and isinstance(row.path, str) for row in rows)
        assert all((tmp_path / row.path).resolve().is_relative_to(tmp_path) for row in rows)

    try_all(tmp_path / name, lambda: (GeneratedCard.load(tmp_path), read_rows(tmp_path)), same, exact=False)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
@pytest.mark.parametrize("kind", ["codec", "semantic"])
def test_folders_of_weights(tmp_path, kind, name):
    """Weights have no checksum of their own: the digest in `identity()`, kept on every card, tells."""
    write, _ = getattr(made, kind)(tmp_path)
    write(1)

    def read():
        if kind == "codec":
            return made.SoundStream.from_pretrained(tmp_path)
        return made.SemanticTokenizer.from_pretrained(str(tmp_path))

    def same(value, whole):
        for (key, tensor), expected in zip(value.state_dict().items(), whole.state_dict().values(), strict=True):
            if tensor.shape != expected.shape:
                return False
            changed = not torch.equal(tensor, expected)
            # A decoder may be exchanged: the identity is that of what makes the codes.
            assert not changed or key.startswith("decoder.") or value.identity() != whole.identity(), key
        return True

    try_all(tmp_path / name, read, same, exact=name == "model.safetensors", named=tmp_path.name)


def test_codebooks(tmp_path):
    write, read = made.quantizer(tmp_path)
    write(1)
    try_all(tmp_path / "rvq.safetensors", lambda: [len(read())] * 0, lambda value, whole: value == whole)


def test_checkpoint(tmp_path):
    write, read = made.checkpoint(tmp_path)
    write(1)
    try_all(tmp_path / "last.ckpt", read, lambda value, whole: value == whole)
    assert AtomicCheckpointIO  # what reads it
