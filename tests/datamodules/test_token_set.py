"""The token set on disk: what is written is read back, whole or not at all."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.token_set import (
    SoftRow,
    TokenSetCard,
    TokenSetWriter,
    done_ids,
    forget_rejected,
    frame_counts,
    open_token_set,
    read_rejected,
    read_rows,
    shard_files,
    split_names,
)
from modules.batches import Rejection

CARD = TokenSetCard(
    codec={"name": "dac", "revision": "1f", "options": {"levels": [1, 2]}},
    semantic={"name": "kmeans"},
    sample_rate=16000,
    frame_rate=50.0,
    num_quantizers=3,
    codebook_size=1024,
    semantic_vocab_size=500,
)


def tokens(seed, frames=7):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 500, frames), rng.integers(0, 1024, (3, frames))


def fill(folder, numbers, **options):
    with TokenSetWriter(folder, CARD, **options) as writer:
        for number in numbers:
            writer.write(f"u{number}", *tokens(number, 3 + number), speaker=f"s{number % 2}", text=f"text {number}")


def test_reading_returns_what_was_written(tmp_path):
    fill(tmp_path, range(5), shard_rows=2)
    dataset = open_token_set(tmp_path)
    assert [row.id for row in read_rows(dataset, [4, 0, 4], 3)] == ["u4", "u0", "u4"]
    for number, row in enumerate(read_rows(dataset, range(5), 3)):
        semantic, codes = tokens(number, 3 + number)
        assert row[:3] == (f"u{number}", f"s{number % 2}", f"text {number}")
        np.testing.assert_array_equal(row.semantic, semantic)
        np.testing.assert_array_equal(row.codes, codes)
        assert row.codes.dtype == row.semantic.dtype == np.uint16
    assert frame_counts(dataset).tolist() == [3, 4, 5, 6, 7]
    assert frame_counts(dataset).dtype == np.int32
    assert TokenSetCard.load(tmp_path) == CARD


def test_acoustic_tokens_lie_frame_by_frame(tmp_path):
    with TokenSetWriter(tmp_path, CARD) as writer:
        writer.write("a", np.array([1, 2]), np.array([[10, 11], [20, 21], [30, 31]]))
    (file,) = shard_files(tmp_path, "train")
    table = pq.read_table(file)
    assert table["acoustic"].to_pylist() == [[10, 20, 30, 11, 21, 31]]
    assert table.schema.field("acoustic").type == pa.list_(pa.uint16())
    assert pq.ParquetFile(file).metadata.row_group(0).column(5).compression == "ZSTD"


def test_nothing_is_written_outside_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "global")
    fill(tmp_path / "set", range(2))
    open_token_set(tmp_path / "set")
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"card.json", "data", ".cache"}
    open_token_set(tmp_path / "set", cache_dir=tmp_path / "fast")
    assert {path.name for path in tmp_path.iterdir()} == {"set", "fast"}


def test_shards_added_later_are_seen(tmp_path):
    fill(tmp_path, range(2))
    assert len(open_token_set(tmp_path)) == 2
    fill(tmp_path, range(2, 5))
    assert len(open_token_set(tmp_path)) == 5


def test_ranks_and_restarts_never_share_a_name(tmp_path):
    fill(tmp_path, [0, 1, 2], shard_rows=2)
    fill(tmp_path, [3], rank=1, world_size=2)
    fill(tmp_path, [4])
    assert [file.name for file in shard_files(tmp_path, "train")] == [
        "train-r000-00000.parquet",
        "train-r000-00001.parquet",
        "train-r000-00002.parquet",
        "train-r001-00000.parquet",
    ]
    assert done_ids(tmp_path) == {f"u{number}" for number in range(5)}


def test_splits_do_not_mix(tmp_path):
    fill(tmp_path, [0], split="train")
    fill(tmp_path, [1], split="train-r1")
    assert done_ids(tmp_path, "train") == {"u0"}
    assert done_ids(tmp_path, "train-r1") == {"u1"}
    assert split_names(tmp_path) == ["train", "train-r1"]
    with pytest.raises(FileNotFoundError, match=r"has no split 'test', only \['train', 'train-r1'\]; make it with"):
        open_token_set(tmp_path, "test")


def fill_badly(writer):
    writer.write("a", *tokens(0))
    writer.write("b", np.zeros(1, int), np.zeros((1, 1), int))


def test_rows_survive_an_exception_but_are_never_half_there(tmp_path):
    with pytest.raises(ValueError, match="b: semantic"), TokenSetWriter(tmp_path, CARD) as writer:
        fill_badly(writer)
    assert done_ids(tmp_path) == {"a"}


def test_a_shard_that_fails_to_be_written_leaves_the_set_readable(tmp_path, monkeypatch):
    writer = TokenSetWriter(tmp_path, CARD, shard_rows=1)
    writer.write("a", *tokens(0))

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            writer.write("b", *tokens(1))
    assert done_ids(tmp_path) == {"a"}
    assert len(open_token_set(tmp_path)) == 1
    writer.close()  # there is space again
    assert done_ids(tmp_path) == {"a", "b"}


def test_what_a_killed_run_left_is_removed(tmp_path):
    fill(tmp_path, [0])
    for name in ("train-r000-00001.parquet.tmp", "train-r003-00000.parquet.tmp", "train-r001-00000.parquet.tmp"):
        (tmp_path / "data" / name).write_bytes(b"half")
    assert done_ids(tmp_path) == {"u0"}
    TokenSetWriter(tmp_path, CARD, rank=1, world_size=2)
    assert sorted(file.name for file in tmp_path.glob("data/*.tmp")) == ["train-r000-00001.parquet.tmp"]
    TokenSetWriter(tmp_path, CARD)
    assert not list(tmp_path.glob("data/*.tmp"))


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    fill(tmp_path, range(4), shard_rows=2)
    file = tmp_path / "data" / "train-r000-00001.parquet"
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(content[:half] if damage == "truncated" else content[:4] + bytes(half) + content[half + 4 :])
    for read in (open_token_set, done_ids):
        with pytest.raises(ValueError, match=r"train-r000-00001\.parquet is damaged .*; delete it and run"):
            read(tmp_path)


def test_a_foreign_shard_is_named(tmp_path):
    fill(tmp_path, [0])
    pq.write_table(pa.table({"id": ["x"], "audio": [1]}), tmp_path / "data" / "train-r009-00000.parquet")
    with pytest.raises(ValueError, match=r"train-r009-00000\.parquet is no shard .* id: string, audio: int64; remove"):
        open_token_set(tmp_path)


def test_a_row_whose_columns_disagree_is_named(tmp_path):
    fill(tmp_path, [0])
    with pytest.raises(ValueError, match="u0: 3 semantic and 9 acoustic tokens are not those of 3 frames of 4 levels"):
        read_rows(open_token_set(tmp_path), [0], 4)


def test_another_card_is_refused_naming_both_values(tmp_path):
    fill(tmp_path, [0])
    other = dataclasses.replace(CARD, codec={**CARD.codec, "name": "mimi"}, num_quantizers=8)
    with pytest.raises(ValueError, match=r"codec\.name: 'dac' and 'mimi'; num_quantizers: 3 and 8") as error:
        TokenSetWriter(tmp_path, other)
    assert "name another output folder" in str(error.value)
    assert TokenSetCard.load(tmp_path) == CARD


def test_cards_that_agree_match_after_a_round_trip(tmp_path):
    card = dataclasses.replace(CARD, codec={"name": "dac", "iterations": (16, 1)})
    card.save(tmp_path)
    TokenSetCard.load(tmp_path).check_matches(card)
    with pytest.raises(ValueError, match=r"^here and there differ in semantic\.layer: None and 4$"):
        card.check_matches(dataclasses.replace(card, semantic={"name": "kmeans", "layer": 4}), "here", "there")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"is no token set \(it has no card\.json\); make it with"),
        ("{", r"card\.json is damaged"),
        ('{"codec": {}}', r"card\.json holds \['codec'\] where"),
        (json.dumps({**dataclasses.asdict(CARD), "format_version": 9}), "format_version 9, this software reads up"),
    ],
)
def test_a_card_that_cannot_be_read_says_why(tmp_path, text, message):
    if text is not None:
        (tmp_path / "card.json").write_text(text)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        open_token_set(tmp_path)


def test_sizes_beyond_16_bits_are_refused():
    with pytest.raises(ValueError, match=r"codebook_size is 65537; .* 1 to 65536"):
        dataclasses.replace(CARD, codebook_size=65537)


@pytest.mark.parametrize(
    ("semantic", "codes", "message"),
    [
        (np.zeros(4, int), np.zeros((3, 5), int), r"semantic \[4\] and codes \[3, 5\]"),
        (np.zeros(5, int), np.zeros((2, 5), int), "with Q = 3"),
        (np.full(5, 500), np.zeros((3, 5), int), "semantic run from 500 to 500, not from 0 to 499"),
        (np.zeros(5, int), np.full((3, 5), -1), "codes run from -1 to -1, not from 0 to 1023"),
    ],
)
def test_tokens_that_do_not_fit_the_card_are_refused(tmp_path, semantic, codes, message):
    writer = TokenSetWriter(tmp_path, CARD)
    with pytest.raises(ValueError, match="u: .*" + message):
        writer.write("u", semantic, codes)
    writer.close()
    assert not shard_files(tmp_path, "train")


@pytest.mark.parametrize("split", ["", "a/b", "../x", ".hidden"])
def test_a_split_has_to_be_a_file_name(tmp_path, split):
    with pytest.raises(ValueError, match="becomes part of file names"):
        TokenSetWriter(tmp_path, CARD, split)


def test_rejections_are_on_disk_at_once_and_listed_once(tmp_path):
    writer = TokenSetWriter(tmp_path, CARD)
    writer.reject(Rejection("a", "a.wav", "is silent"))
    writer.reject(Rejection("b", "b\n\u2028.wav", "is empty"))
    TokenSetWriter(tmp_path, CARD, rank=1, world_size=2).reject(Rejection("a", "a.wav", "is silent still"))
    TokenSetWriter(tmp_path, CARD, split="test").reject(Rejection("c", "c.wav", "is long"))
    assert read_rejected(tmp_path) == [
        Rejection("a", "a.wav", "is silent still"),
        Rejection("b", "b\n\u2028.wav", "is empty"),
    ]
    assert (tmp_path / "rejected.jsonl").read_text().count("\n") == 4
    forget_rejected(tmp_path)
    assert read_rejected(tmp_path) == []
    assert read_rejected(tmp_path, "test") == [Rejection("c", "c.wav", "is long")]


def test_a_rejection_cut_short_by_a_crash_costs_only_itself(tmp_path):
    writer = TokenSetWriter(tmp_path, CARD)
    writer.reject(Rejection("a", "a.wav", "is silent"))
    with open(tmp_path / "rejected.jsonl", "a") as file:
        file.write('{"split": "train", "id": "b", "pa')
    TokenSetWriter(tmp_path, CARD).reject(Rejection("c", "c.wav", "is long"))
    assert [rejection.id for rejection in read_rejected(tmp_path)] == ["a", "c"]


SOFT_CARD = dataclasses.replace(CARD, soft_semantic={"num_tokens": 3, "sharpness": 30.0})


def soft_of(semantic, seed=0):
    probabilities = np.random.default_rng(seed).random((len(semantic), 3)).astype(np.float16)
    return SoftRow(np.stack([semantic, (semantic + 7) % 500, (semantic + 9) % 500], axis=1), probabilities)


def test_soft_tokens_are_read_back_frame_by_frame(tmp_path):
    with TokenSetWriter(tmp_path, SOFT_CARD) as writer:
        for number in range(3):
            semantic, codes = tokens(number, 3 + number)
            writer.write(f"u{number}", semantic, codes, soft=soft_of(semantic, number))
    assert TokenSetCard.load(tmp_path) == SOFT_CARD
    for number, row in enumerate(read_rows(open_token_set(tmp_path), range(3), 3)):
        semantic, _ = tokens(number, 3 + number)
        expected = soft_of(semantic, number)
        np.testing.assert_array_equal(row.semantic, semantic)
        np.testing.assert_array_equal(row.soft.tokens, expected.tokens)
        np.testing.assert_array_equal(row.soft.probabilities, expected.probabilities)
        part = row.cut(1, 3)
        np.testing.assert_array_equal(part.codes, row.codes[:, 1:3])
        np.testing.assert_array_equal(part.semantic, semantic[1:3])
        np.testing.assert_array_equal(part.soft.tokens, expected.tokens[1:3])
        np.testing.assert_array_equal(part.soft.probabilities, expected.probabilities[1:3])


def test_a_set_without_soft_tokens_has_none_and_cuts_all_the_same(tmp_path):
    fill(tmp_path, [2])
    (row,) = read_rows(open_token_set(tmp_path), [0], 3)
    assert row.soft is None
    assert row.cut(1, 3).soft is None


@pytest.mark.parametrize(
    ("card", "soft", "message"),
    [
        (SOFT_CARD, None, r"\[\] are not \[T, K\] twice, with K = 3"),
        (CARD, SoftRow(np.zeros((5, 3), int), np.ones((5, 3))), "with K = 0"),
        (SOFT_CARD, SoftRow(np.zeros((5, 2), int), np.ones((5, 2))), r"\[\[5, 2\], \[5, 2\]\] .* K = 3"),
        (SOFT_CARD, SoftRow(np.zeros((4, 3), int), np.ones((4, 3))), r"\[\[4, 3\], \[4, 3\]\]"),
        (SOFT_CARD, SoftRow(np.full((5, 3), 500), np.ones((5, 3))), "run from 500 to 500, not from 0 to 499"),
        (SOFT_CARD, SoftRow(np.zeros((5, 3), int), np.full((5, 3), np.nan)), "negative, or no numbers"),
        (SOFT_CARD, SoftRow(np.zeros((5, 3), int), np.full((5, 3), np.inf)), "negative, or no numbers"),
        (SOFT_CARD, SoftRow(np.zeros((5, 3), int), np.eye(5, 3)), "of a frame are 0"),
        (SOFT_CARD, SoftRow(np.zeros((5, 3), int), np.full((5, 3), 1e-9)), "of a frame are 0"),
    ],
)
def test_soft_tokens_that_do_not_fit_the_card_are_refused(tmp_path, card, soft, message):
    writer = TokenSetWriter(tmp_path, card)
    with pytest.raises(ValueError, match="u: .*soft semantic tokens.*" + message):
        writer.write("u", np.zeros(5, int), np.zeros((3, 5), int), soft=soft)
    writer.close()
    assert not shard_files(tmp_path, "train")


@pytest.mark.parametrize(
    "kept",
    [
        {"soft_tokens": 10},
        {"soft_tokens": 14, "soft_probabilities": 14},
        {"soft_tokens": 0, "soft_probabilities": 0},
    ],
)
def test_soft_tokens_of_another_number_of_frames_are_named(tmp_path, kept):
    with TokenSetWriter(tmp_path, SOFT_CARD) as writer:
        writer.write("u", np.zeros(5, int), np.zeros((3, 5), int), soft=soft_of(np.zeros(5, int)))
    (file,) = shard_files(tmp_path, "train")
    table = pq.read_table(file)
    for name, count in kept.items():
        index = table.schema.get_field_index(name)
        values = pa.array([table[name][0].as_py()[:count]], table.schema.field(index).type)
        table = table.set_column(index, name, values)
    pq.write_table(table, file)
    numbers = f"{kept['soft_tokens']} soft semantic tokens and {kept.get('soft_probabilities', 15)} probabilities"
    with pytest.raises(ValueError, match=f"u: {numbers} are not those of 5 frames"):
        read_rows(open_token_set(tmp_path), [0], 3)


def test_a_card_of_before_there_were_soft_tokens_is_read(tmp_path):
    values = dataclasses.asdict(CARD)
    del values["soft_semantic"]
    (tmp_path / "card.json").write_text(json.dumps(values))
    assert TokenSetCard.load(tmp_path) == CARD
    CARD.save(tmp_path / "now")
    assert json.loads((tmp_path / "now" / "card.json").read_text()) == values, "what was read before is written now"
