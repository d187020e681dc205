"""A full disk, or a crash while a file is written, never destroys what was there before.

A full disk is a limit on the size of files: writes then fail as the operating system makes them fail, in C too.
"""

import contextlib
import os
import resource

import numpy as np
import pytest
import soundfile
import torch

from callbacks.checkpoint_io import AtomicCheckpointIO
from datamodules.generated_set import (
    GeneratedCard,
    GeneratedRow,
    GeneratedSetWriter,
    finished_ids,
    merge_parts,
    read_rows,
    write_flac,
)
from datamodules.token_card import TokenSetCard
from datamodules.token_set import TokenSetWriter, done_ids, open_token_set
from modules.atomic import write_atomically
from modules.codec.residual_vq import ResidualVQ
from modules.codec.soundstream import ResidualVectorQuantizer, SoundStream, SpectralDecoder, SpectralEncoder
from modules.semantic import LogMelFeatures, SemanticTokenizer

CARD = TokenSetCard({"name": "c"}, {"name": "s"}, 16000, 50.0, 2, 1024, 64)


class PowerCut(BaseException):
    """Nothing after it runs."""


@contextlib.contextmanager
def full_disk(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def checkpoint(folder):
    def write(number):
        AtomicCheckpointIO().save_checkpoint({"weights": torch.full((5000,), number)}, folder / "last.ckpt")

    def read():
        return AtomicCheckpointIO().load_checkpoint(folder / "last.ckpt")["weights"].unique().tolist()

    return write, read


def text(folder):
    file = folder / "card.json"
    return lambda number: write_atomically(file, str(number) * 9000), lambda: [int(c) for c in set(file.read_text())]


def flac(folder):
    file = folder / "a.flac"
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, 20_000)
    return (
        lambda number: write_flac(file, noise + number / 4, 16000, "a", "s", "c"),
        lambda: [round(4 * float(soundfile.read(file)[0].mean()))],
    )


def manifest(folder):
    card = GeneratedCard("s", "c", 16000, {})

    def write(number):
        row = GeneratedRow("a", "audio/a.flac", "x" * 3000, "", 1, 0.0, 1.0, 16000, number, "s", "c")
        if number == 1:
            GeneratedSetWriter(folder, card).write(row, np.zeros(16))
        else:
            (folder / "manifest-r0.jsonl").write_text("")  # what lies there already is put together anew
        merge_parts(folder)

    return write, lambda: [row.seed for row in read_rows(folder)]


def quantizer(folder):
    def write(number):
        ResidualVQ(torch.full((2, 64, 64), float(number))).save(folder / "rvq.safetensors")

    return write, lambda: ResidualVQ.load(folder / "rvq.safetensors").codebooks.unique().tolist()


def codec(folder):
    def write(number):
        made = tiny_codec()
        torch.nn.init.constant_(next(made.parameters()), number)
        made.save_pretrained(folder)

    return write, lambda: next(SoundStream.from_pretrained(folder).parameters()).unique().tolist()


def tiny_codec():
    sizes = {"latent_dim": 6, "dim": 8, "num_blocks": 1, "hop_length": 16, "n_fft": 32, "stft_hop": 8}
    return SoundStream(
        SpectralEncoder(**sizes),
        SpectralDecoder(**sizes),
        ResidualVectorQuantizer(6, num_quantizers=3, codebook_size=8),
    )


def semantic(folder):
    def write(number):
        features = LogMelFeatures()
        made = SemanticTokenizer(features, num_clusters=8)
        made.set_codebook(
            torch.zeros(features.dim), torch.ones(features.dim), torch.full((8, features.dim), float(number))
        )
        made.save_pretrained(folder)

    return write, lambda: SemanticTokenizer.from_pretrained(str(folder)).centroids.unique().tolist()


WRITERS = [checkpoint, text, flac, manifest, quantizer, codec, semantic]


@pytest.mark.parametrize("make", WRITERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("size", [0, 1500])
def test_a_full_disk_leaves_what_was_there(tmp_path, make, size):
    write, read = make(tmp_path)
    write(1)
    assert read() == [1]
    with full_disk(size), pytest.raises(Exception, match=r".") as error:
        write(2)
    assert not isinstance(error.value, AssertionError)
    assert read() == [1]
    write(3)
    assert read() == [3] or make is manifest


@pytest.mark.parametrize("make", WRITERS, ids=lambda make: make.__name__)
def test_a_power_cut_before_the_file_is_in_place_leaves_what_was_there(tmp_path, make, monkeypatch):
    write, read = make(tmp_path)
    write(1)

    def cut(*args):
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(PowerCut):
            write(2)
    assert read() == [1]
    write(3)
    assert read() == [3] or make is manifest


@pytest.mark.parametrize("make", [checkpoint, text, flac], ids=lambda make: make.__name__)
def test_a_full_disk_is_named_with_the_file_and_leaves_no_rubbish(tmp_path, make):
    write, _ = make(tmp_path)
    write(1)
    [file] = tmp_path.iterdir()
    with full_disk(1500), pytest.raises(OSError, match=rf"{file.name}.*too large") as error:
        write(2)
    assert str(tmp_path) in str(error.value)
    assert list(tmp_path.iterdir()) == [file]


def test_a_disk_that_is_full_at_the_last_block_of_audio_is_noticed(tmp_path):
    """libsndfile closes such a file without a word."""
    write, read = flac(tmp_path)
    write(1)
    with full_disk((tmp_path / "a.flac").stat().st_size - 2000), pytest.raises(OSError, match=r"a.flac cannot"):
        write(2)
    assert read() == [1]


def add(writer, count, first=0):
    random = np.random.default_rng(first)
    for number in range(first, first + count):
        codes = random.integers(0, 1024, (2, 400))
        writer.write(f"u{number}", codes[0] % 64, codes)


def test_a_full_disk_keeps_the_shards_and_the_rows_not_yet_written(tmp_path):
    writer = TokenSetWriter(tmp_path, CARD, shard_rows=4)
    add(writer, 4)
    with full_disk(3000), pytest.raises(OSError, match=r"train-r000-00001.parquet cannot be written .*make room"):
        add(writer, 4, first=4)
    assert done_ids(tmp_path) == {f"u{n}" for n in range(4)}
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["train-r000-00000.parquet"]
    writer.close()  # there is room again
    assert done_ids(tmp_path) == {f"u{n}" for n in range(8)}
    assert len(open_token_set(tmp_path)) == 8


def test_a_power_cut_costs_a_token_set_the_shard_being_written_only(tmp_path, monkeypatch):
    add(writer := TokenSetWriter(tmp_path, CARD, shard_rows=4), 4)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(PowerCut))
        with pytest.raises(PowerCut):
            add(writer, 4, first=4)
    add(again := TokenSetWriter(tmp_path, CARD, shard_rows=4), 4, first=4)
    again.close()
    assert done_ids(tmp_path) == {f"u{n}" for n in range(8)}
    assert not list((tmp_path / "data").glob("*.tmp"))


def test_a_row_cut_short_by_a_full_disk_costs_an_audio_set_that_row_only(tmp_path):
    card = GeneratedCard("s", "c", 16000, {})
    rows = [GeneratedRow(f"u{n}", f"audio/u{n}.flac", "x" * 900, "", 1, 0.0, 1.0, 16000, n, "s", "c") for n in range(3)]
    writer = GeneratedSetWriter(tmp_path, card)
    writer.write(rows[0], np.zeros(16))
    with full_disk(1500), pytest.raises(OSError, match="too large"):
        writer.write(rows[1], np.zeros(16))
    again = GeneratedSetWriter(tmp_path, card)
    assert finished_ids(tmp_path) == {"u0"}
    for row in rows[1:]:
        again.write(row, np.zeros(16))
    again.close()
    assert merge_parts(tmp_path) == 3


def test_the_link_to_the_last_checkpoint_never_dangles(tmp_path, monkeypatch):
    """With `save_last: link` Lightning removes the file that last.ckpt names before it makes the new link."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.demos.boring_classes import BoringModel

    removed = []
    plain = AtomicCheckpointIO.remove_checkpoint

    def watched(self, path):
        plain(self, path)
        removed.append((tmp_path / "last.ckpt").resolve().is_file())

    monkeypatch.setattr(AtomicCheckpointIO, "remove_checkpoint", watched)
    Trainer(
        accelerator="cpu",
        max_steps=6,
        plugins=[AtomicCheckpointIO()],
        callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_last="link")],
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(BoringModel())
    assert removed == [True, True]
    assert (tmp_path / "last.ckpt").resolve().name == "step=6.ckpt"


class Malice:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickle_in_a_checkpoints_place_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Malice()}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=r"bad.ckpt is damaged or no checkpoint of plain values"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "bad.ckpt", weights_only=False)
    assert not (tmp_path / "pwned").exists()
