"""Token sets on disk as batches: windows, validation, prompts, selections, and what is refused."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.selection import Selection
from datamodules.token_set import SoftRow, TokenSetCard, TokenSetWriter
from datamodules.token_windows import TrainingWindows
from datamodules.tokens import TokenDataModule

RATE, Q = 50, 3


def card(**changes):
    values: dict[str, Any] = {
        "codec": {"name": "codec-a"},
        "semantic": {"name": "semantic-a"},
        "sample_rate": 16_000,
        "frame_rate": 50.0,
        "num_quantizers": Q,
        "codebook_size": 1024,
        "semantic_vocab_size": 4096,
    }
    return TokenSetCard(**values | changes)


def tokens(number, frames):
    """Tokens that say where they come from: frame t of any row has semantic token t, and codes of number and level."""
    return np.arange(frames) % 4096, np.tile(np.arange(Q)[:, None] + Q * number, (1, frames))


def write(folder, split, utterances, **changes):
    """Write (id, speaker, frames) as a split of a token set."""
    with TokenSetWriter(folder, card(**changes), split=split) as writer:
        for number, (name, speaker, frames) in enumerate(utterances):
            semantic, codes = tokens(number, frames)
            writer.write(name, semantic, codes, speaker=speaker, text=f"text of {name}")
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A token set: 30 utterances of 6 speakers to train on, of 0.5 to 15 s, and a test split with odd cases."""
    folder = tmp_path_factory.mktemp("tokens")
    rng = np.random.default_rng(0)
    lengths = rng.integers(25, 750, 30)
    write(folder, "train", [(f"train-{n}", f"speaker-{n % 6}", int(frames)) for n, frames in enumerate(lengths)])
    test = [
        ("a-short", "ann", 190),  # 3.8 s
        ("a-long", "ann", 400),
        ("a-other", "ann", 260),
        ("b-only", "bob", 300),
        ("c-one", "", 300),
        ("c-two", "", 310),
        ("d-one", "dot", 500),
        ("d-tiny", "dot", 100),  # 2 s: too short to give a prompt
    ]
    return write(folder, "test", test)


def data(folder, stage, **options):
    arguments: dict[str, Any] = {"batch_frames": 2000} | options
    module = TokenDataModule(folder, **arguments)
    module.prepare_data()
    module.setup(stage)
    return module


def rows(loader):
    """Flatten batches into one dictionary per id."""
    return {
        name: {
            "semantic": batch.semantic[row, : batch.lengths[row]],
            "codes": batch.codes[row, :, : batch.lengths[row]],
            "length": int(batch.lengths[row]),
            "prompt": int(batch.prompt_frames[row]),
            "seed": int(batch.seeds[row]),
            "speaker": batch.speakers[row],
            "text": batch.texts[row],
            "prompt_id": batch.prompt_ids[row],
        }
        for batch in loader
        for row, name in enumerate(batch.ids)
    }


def epoch(loader, number):
    loader.batch_sampler.sampler.set_epoch(number)
    return rows(loader)


def test_batches_have_the_shapes_and_types_that_models_expect(folder):
    module = data(folder, "fit", validation_speakers=0.2)
    for batch in module.train_dataloader():
        size, width = batch.semantic.shape
        assert batch.codes.shape == (size, Q, width)
        assert size * width <= 2000
        for tensor in (batch.semantic, batch.codes, batch.lengths, batch.prompt_frames, batch.seeds):
            assert tensor.dtype == torch.int64
        assert len(batch.ids) == len(batch.speakers) == len(batch.texts) == size
        padding = torch.arange(width) >= batch.lengths[:, None]
        assert not batch.semantic[padding].any()
        assert not batch.codes.transpose(1, 2)[padding].any()
        assert (batch.prompt_frames == 0).all()


@pytest.mark.parametrize(
    ("stage", "options", "opened"),
    [
        ("fit", {"validation_split": "test"}, {"train", "test"}),
        ("validate", {"validation_split": "test"}, {"test"}),
        ("validate", {"validation_speakers": 0.2}, {"train"}),
        ("predict", {}, {"test"}),
    ],
)
def test_only_the_splits_in_use_are_copied(folder, monkeypatch, stage, options, opened):
    seen = set()
    monkeypatch.setattr("datamodules.tokens.open_token_set", lambda folder, split, **_: seen.add(split))
    module = TokenDataModule(folder, **options)
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.trainer.state.fn = TrainerFn(stage)
    module.prepare_data()
    assert seen == opened


def test_the_card_is_there_before_anything_is_opened(folder):
    assert TokenDataModule(folder).card == card()


def test_windows_are_pieces_of_their_utterances_within_bounds(folder):
    train = data(folder, "fit", validation_split=None, max_seconds=4).train_dataloader()
    starts = set()
    for number in range(5):
        for name, row in epoch(train, number).items():
            assert 50 <= row["length"] <= 200
            start = int(row["semantic"][0])
            starts.add(start)
            assert row["semantic"].tolist() == list(range(start, start + row["length"]))
            assert (row["codes"] == torch.arange(Q)[:, None] + Q * int(name.removeprefix("train-"))).all()
            assert row["text"] == f"text of {name}"
    assert len(starts) > 50


def test_window_lengths_follow_the_uniform_law_with_its_floor(folder):
    train = data(folder, "fit", validation_split=None, max_seconds=30)._train
    train.source = type("Long", (), {"frames": np.full(20_000, 9000, dtype=np.int32)})()
    train.rows = np.arange(20_000)
    lengths = train.frames(0)
    assert lengths.min() == 50
    assert lengths.max() == 1500
    assert (lengths == 50).mean() == pytest.approx(51 / 1501, abs=0.005)
    assert np.quantile(lengths, [0.25, 0.5, 0.75]) == pytest.approx([375, 750, 1125], abs=25)
    starts, lengths, _ = train.windows(0, np.arange(20_000))
    assert (starts >= 0).all()
    assert (starts + lengths <= 9000).all()
    assert (starts / (9000 - lengths)).mean() == pytest.approx(0.5, abs=0.01)


def test_windows_of_a_large_set_are_padded_by_less_than_five_percent():
    lengths = np.random.default_rng(0).integers(50, 1500, 30_000).astype(np.int32)
    source: Any = SimpleNamespace(frames=lengths)
    windows = TrainingWindows(source, np.arange(30_000), min_frames=50, max_frames=1500, seed=0)
    sampler = TokenDataModule("anywhere")._loader(windows, shuffle=True).batch_sampler
    padded = sum(len(request.rows) * request.width for request in sampler)
    assert 0 < 1 - windows.frames(0).sum() / padded <= 0.05


def test_windows_and_seeds_follow_from_seed_and_epoch_alone(folder):
    def draw(number=1, **options):
        return str(
            sorted(epoch(data(folder, "fit", validation_split=None, **options).train_dataloader(), number).items())
        )

    assert draw() == draw(batch_frames=5000) == draw(bucket_frames=16)
    assert draw() != draw(number=2)
    assert draw() != draw(seed=1)


def test_no_two_rows_share_a_seed(folder):
    train = data(folder, "fit", validation_split=None).train_dataloader()
    seeds = [row["seed"] for number in range(20) for row in epoch(train, number).values()]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0


def test_utterances_too_short_are_left_out_and_counted(folder, caplog):
    with caplog.at_level("INFO"):
        train = data(folder, "fit", validation_split=None, min_seconds=2).train_dataloader()
    short = {
        name
        for name, row in epoch(data(folder, "fit", validation_split=None, min_seconds=0).train_dataloader(), 0).items()
    }
    left = epoch(train, 0)
    assert 0 < len(left) < len(short) == 30
    assert f"training: {len(left)} utterances" in caplog.text
    assert f"left out: {30 - len(left)} shorter than 2 s" in caplog.text


def test_held_out_speakers_are_not_trained_on(folder):
    module = data(folder, "fit", validation_speakers=0.3)
    trained = {row["speaker"] for row in epoch(module.train_dataloader(), 0).values()}
    validated = {row["speaker"] for row in rows(module.val_dataloader()).values()}
    assert (len(trained), len(validated)) == (4, 2)
    assert not trained & validated
    again = data(folder, "validate", validation_speakers=0.3, seed=5)
    assert validated == {row["speaker"] for row in rows(again.val_dataloader()).values()}


@pytest.mark.parametrize("speaker", ["", "the only one"])
def test_utterances_are_held_out_where_there_are_no_two_speakers(tmp_path, speaker):
    folder = write(tmp_path, "train", [(f"u{n}", speaker, 100) for n in range(10)])
    module = data(folder, "fit", validation_speakers=0.2)
    trained, validated = epoch(module.train_dataloader(), 0), rows(module.val_dataloader())
    assert (len(trained), len(validated)) == (8, 2)
    assert not set(trained) & set(validated)


def test_a_validation_split_goes_before_held_out_speakers(folder):
    module = data(folder, "fit", validation_split="test", validation_speakers=0.3)
    assert "a-long" in rows(module.val_dataloader())
    assert len({row["speaker"] for row in epoch(module.train_dataloader(), 0).values()}) == 6


def test_validation_is_the_same_every_time_and_begins_at_the_beginning(folder):
    val = data(folder, "validate", validation_split="test", max_seconds=7, prompt_seconds=3).val_dataloader()
    first = rows(val)
    assert str(first) == str(epoch(val, 3))
    assert first["a-long"]["semantic"].tolist() == list(range(350))
    assert first["a-long"]["prompt"] == 150
    assert first["a-short"]["prompt"] == 0  # 3.8 s leave less than a second after the prompt


def test_overfitting_keeps_to_the_same_batches(folder):
    module = data(folder, "fit", validation_split=None)
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, overfit_batches=2)
    module.trainer = trainer
    loader = module.train_dataloader()
    assert str(epoch(loader, 0)) == str(epoch(loader, 1))


def test_without_validation_there_are_no_batches_and_fit_runs(folder):
    module = data(folder, "fit", validation_split=None)
    assert module.val_dataloader() == []


def test_prompts_of_the_same_utterance_are_its_beginning(folder, caplog):
    with caplog.at_level("INFO"):
        predicted = rows(data(folder, "predict", prompt_seconds=3).predict_dataloader())
    assert set(predicted) == {"a-long", "a-other", "b-only", "c-one", "c-two", "d-one"}
    assert predicted["d-one"]["prompt"] == 150
    assert {row["prompt_id"] for row in predicted.values()} == {""}
    assert predicted["d-one"]["semantic"].tolist() == list(range(500))
    assert "2 shorter than the prompt of 3 s + 1 s: a-short, d-tiny" in caplog.text


def test_prompts_of_another_utterance_come_before_it_on_one_time_axis(folder, caplog):
    with caplog.at_level("INFO"):
        predicted = rows(data(folder, "predict", prompt_seconds=3, prompt_source="other").predict_dataloader())
    # b has no other utterance, c is no known speaker, d-tiny is too short to prompt d-one.
    assert set(predicted) == {"a-short", "a-long", "a-other", "d-tiny"}
    assert "4 without another utterance of the speaker" in caplog.text
    numbers = {"a-short": 0, "a-long": 1, "a-other": 2, "d-one": 6, "d-tiny": 7}
    for name, row in predicted.items():
        own = numbers[name]
        assert row["prompt"] == 150
        assert row["semantic"][:150].tolist() == list(range(150))
        assert row["semantic"][150:].tolist() == list(range(row["length"] - 150))
        giver = int(row["codes"][0, 0]) // Q
        assert giver != own
        assert row["prompt_id"] == {number: name for name, number in numbers.items()}[giver]
        assert giver in ([0, 1, 2] if name.startswith("a") else [6])
        assert (row["codes"][0, :150] == Q * giver).all()
        assert (row["codes"][0, 150:] == Q * own).all()
        assert row["text"] == f"text of {name}"


def test_prompts_of_a_list_are_those_it_names(folder, tmp_path, caplog):
    list_file = tmp_path / "meta.lst"
    list_file.write_text(
        "x|p|d-one.wav|text|a-long.wav\nx|p|a-long.wav|text|b-only.wav\nx|p|d-tiny.wav|text|c-one.wav\n"
    )
    options = {"prompt_seconds": 3, "prompt_source": "list", "prompt_list": str(list_file)}
    with caplog.at_level("INFO"):
        predicted = rows(data(folder, "predict", **options).predict_dataloader())
    assert "1 whose prompt in" in caplog.text
    assert "c-one" in caplog.text
    assert {name: int(row["codes"][0, 0]) // Q for name, row in predicted.items()} == {"a-long": 6, "b-only": 1}
    assert {name: row["prompt_id"] for name, row in predicted.items()} == {"a-long": "d-one", "b-only": "a-long"}
    assert (predicted["b-only"]["codes"][0, 150:] == Q * 3).all()
    with pytest.raises(ValueError, match="prompt_list go together"):
        data(folder, "predict", prompt_source="list")
    whole = rows(data(folder, "predict", **options | {"prompt_seconds": None}).predict_dataloader())
    lengths = {name: row["length"] for name, row in rows(data(folder, "predict").predict_dataloader()).items()}
    assert {name: row["prompt"] for name, row in whole.items()} == {
        "a-long": lengths["d-one"], "b-only": lengths["a-long"], "c-one": lengths["d-tiny"],
    }  # fmt: skip
    assert whole["b-only"]["length"] == lengths["a-long"] + lengths["b-only"]
    with pytest.raises(ValueError, match="set prompt_source: list, or seconds"):
        data(folder, "predict", prompt_seconds=None)


def test_no_prompt_leaves_nothing_out(folder):
    predicted = rows(data(folder, "predict").predict_dataloader())
    assert len(predicted) == 8
    assert {row["prompt"] for row in predicted.values()} == {0}


def test_seeds_and_prompts_do_not_depend_on_what_else_is_generated(folder):
    options = {"prompt_seconds": 3, "prompt_source": "other"}
    everything = rows(data(folder, "predict", **options).predict_dataloader())
    alone = rows(
        data(folder, "predict", batch_frames=1, predict=Selection(ids=["a-long"]), **options).predict_dataloader()
    )
    assert str(alone["a-long"]) == str(everything["a-long"])
    assert len({row["seed"] for row in everything.values()}) == len(everything)
    other_seed = rows(data(folder, "predict", seed=1, **options).predict_dataloader())
    assert other_seed["a-long"]["seed"] != everything["a-long"]["seed"]


def test_selections_are_half_open_in_time(folder):
    def chosen(**options):
        return set(rows(data(folder, "predict", predict=Selection(**options)).predict_dataloader()))

    assert chosen(min_seconds=5.2, max_seconds=8) == {"a-other", "b-only", "c-one", "c-two"}
    assert chosen(min_seconds=8, max_seconds=10.01) == {"a-long", "d-one"}
    assert chosen(ids=["b-only", "a-long"]) == {"a-long", "b-only"}


def test_a_smaller_limit_chooses_among_those_of_a_larger_one(folder):
    def chosen(limit):
        return set(rows(data(folder, "test", predict=Selection(limit=limit)).test_dataloader()))

    assert chosen(2) < chosen(4) < chosen(100)
    assert [len(chosen(limit)) for limit in (2, 4, 100)] == [2, 4, 8]


def test_several_sets_and_splits_are_one(folder, tmp_path):
    other = write(tmp_path, "more", [("x-1", "xi", 90), ("x-2", "xi", 95)])
    module = data([folder, other], "fit", train_split=["train", "test", "more"], validation_split=None)
    found = epoch(module.train_dataloader(), 0)
    assert {"x-1", "x-2", "a-long", "train-3"} <= set(found)
    assert (found["x-2"]["codes"][0] == Q).all()
    assert found["x-1"]["speaker"] == "xi"


@pytest.mark.parametrize("source", ["same", "other"])
def test_what_is_generated_already_can_be_excluded(folder, source):
    options = {"prompt_seconds": 3, "prompt_source": source, "predict": Selection(limit=3)}
    module = data(folder, "predict", **options)
    everything = rows(module.predict_dataloader())
    done = sorted(everything)[:2]
    module.exclude(done)
    assert str(rows(module.predict_dataloader())) == str(
        {name: row for name, row in everything.items() if name not in done}
    )
    module.exclude(everything)
    assert module.predict_dataloader() == []


def refused(error, match, stage, folder, **options):
    with pytest.raises(error, match=match):
        data(folder, stage, **options)


def test_missing_folders_are_named(tmp_path):
    refused(FileNotFoundError, "nowhere is no token set", "fit", str(tmp_path / "nowhere"))


def test_a_folder_that_is_something_else_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(FileNotFoundError, "is no token set", "predict", str(tmp_path))


def test_sets_with_different_cards_are_refused_naming_both_values(folder, tmp_path):
    other = write(tmp_path, "train", [("x", "xi", 90)], codec={"name": "codec-b"})
    refused(ValueError, r"cannot be mixed.*codec\.name: 'codec-a' and 'codec-b'", "fit", [folder, other])


def test_sets_of_several_semantic_tokenizers_are_mixed_only_where_asked(folder, tmp_path):
    student = write(tmp_path / "student", "train", [("x", "xi", 90)], semantic={"name": "semantic-b"})
    options = {"validation_split": None, "min_seconds": 0.5}
    refused(ValueError, r"cannot be mixed.*semantic\.name: 'semantic-b' and 'semantic-a'", "fit", [student, folder])
    mixed = data([student, folder], "fit", mixed_semantics=True, **options)
    assert mixed.card.semantic == {"name": "semantic-b"}
    assert {"x", "train-0"} <= set(rows(mixed.train_dataloader()))


@pytest.mark.parametrize("change", [{"codec": {"name": "codec-b"}}, {"semantic_vocab_size": 100}])
def test_mixed_semantics_excuse_no_other_difference(folder, tmp_path, change):
    other = write(tmp_path, "train", [("x", "xi", 90)], **change)
    refused(ValueError, f"cannot be mixed.*{next(iter(change))}", "fit", [folder, other], mixed_semantics=True)


def test_no_sets_at_all_are_refused():
    refused(ValueError, "give token_sets at least one folder", "fit", [])


def test_missing_splits_are_refused_naming_those_that_exist(folder, tmp_path):
    refused(FileNotFoundError, r"no split 'dev' in .*it has test, train", "fit", folder, train_split="dev")
    refused(FileNotFoundError, r"no split 'dev' in .*it has test, train", "predict", folder, predict=Selection("dev"))
    refused(FileNotFoundError, r"no split 'validation' in .*only test, train: name another", "fit", folder)
    other = write(tmp_path, "more", [("x", "xi", 90)])
    match = rf"no split 'train' in {other} \(it has more\)"
    refused(FileNotFoundError, match, "fit", [folder, other], validation_split=None)


def test_a_set_without_utterances_is_refused(tmp_path):
    card().save(tmp_path)
    refused(FileNotFoundError, r"no split 'train' in .*it has none", "fit", str(tmp_path), validation_split=None)


def test_an_empty_result_says_which_filter_took_what(folder):
    match = "training: no utterance is left of the 30 in 'train' of .*: 30 shorter than 20 s"
    refused(ValueError, match, "fit", folder, min_seconds=20, validation_split=None)
    match = "predict: no utterance is left of the 8 .*: 7 shorter than 9 s, 1 not shorter than 9.5 s"
    refused(ValueError, match, "predict", folder, predict=Selection(min_seconds=9, max_seconds=9.5))
    match = r"1 shorter than the prompt of 3 s \+ 1 s: a-short"
    refused(ValueError, match, "predict", folder, prompt_seconds=3, predict=Selection(ids=["a-short"]))


def test_unknown_ids_are_named(folder):
    refused(
        ValueError, "1 of the ids are not in 'test' of .*: nobody", "predict", folder, predict=Selection(ids=["nobody"])
    )


def test_ids_that_come_twice_are_refused(folder, tmp_path):
    other = write(tmp_path, "test", [("a-long", "ann", 90)])
    refused(ValueError, "id 'a-long' comes twice", "predict", [folder, other])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"min_seconds": 5, "max_seconds": 3}, "min_seconds"),
        ({"validation_speakers": 1.5}, "validation_speakers is 1.5"),
        ({"prompt_seconds": -1}, "prompt_seconds is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        TokenDataModule("anywhere", **options)


def test_tokens_outside_the_card_are_named_when_read(tmp_path):
    folder = write(tmp_path, "test", [("good", "ann", 90), ("bad", "ann", 95)])
    file = tmp_path / "card.json"
    file.write_text(file.read_text().replace('"semantic_vocab_size": 4096', '"semantic_vocab_size": 92'))
    with pytest.raises(ValueError, match="bad: its semantic tokens are not all from 0 to 91"):
        rows(data(folder, "predict").predict_dataloader())


def test_worker_processes_read_the_same(folder):
    alone = rows(data(folder, "predict", prompt_seconds=3).predict_dataloader())
    assert str(rows(data(folder, "predict", prompt_seconds=3, num_workers=2).predict_dataloader())) == str(alone)


def test_worker_processes_read_the_same_soft_tokens(tmp_path):
    folder = write_soft(tmp_path, "test", [("x", "xi", 90), ("y", "xi", 120)])
    alone, apart = (list(data(folder, "predict", num_workers=n).predict_dataloader()) for n in (0, 2))
    assert len(alone) == len(apart) > 0
    for one, other in zip(alone, apart, strict=True):
        assert torch.equal(one.soft_semantic.tokens, other.soft_semantic.tokens)
        assert torch.equal(one.soft_semantic.probabilities, other.soft_semantic.probabilities)


@pytest.mark.parametrize("stage", ["validate", "predict"])
def test_ranks_share_the_utterances_without_loss_or_repetition(folder, stage):
    module = data(folder, stage, validation_split="test", batch_frames=1024)
    found = []
    for rank in range(3):
        module.trainer = SimpleNamespace(global_rank=rank, world_size=3)
        loader = module.val_dataloader() if stage == "validate" else module.predict_dataloader()
        found.append([name for batch in loader for name in batch.ids])
        assert len(loader) == 2
    assert sorted(sum(found, [])) == sorted(rows(data(folder, "predict").predict_dataloader()))  # noqa: RUF017


SOFT = {"num_tokens": 2, "sharpness": 30.0}


def write_soft(folder, split, utterances):
    """As :func:`write`, where the token of frame t is token t with probability 3/4, and token t + 1000 with 1/4."""
    with TokenSetWriter(folder, card(soft_semantic=SOFT), split=split) as writer:
        for number, (name, speaker, frames) in enumerate(utterances):
            semantic, codes = tokens(number, frames)
            soft = SoftRow(np.stack([semantic, semantic + 1000], 1), np.tile([0.75, 0.25], (frames, 1)))
            writer.write(name, semantic, codes, speaker=speaker, soft=soft)
    return str(folder)


def check_soft(batch, row, frames, hard=False):
    """Frames of a row say what token t and t + 1000 have in common: t."""
    soft = batch.soft_semantic
    assert soft.tokens.shape == soft.probabilities.shape == (*batch.semantic.shape, 2)
    assert torch.equal(soft.tokens[row, frames, 0], batch.semantic[row, frames])
    assert soft.probabilities[row, frames].tolist() == [[1.0, 0.0] if hard else [0.75, 0.25]] * len(frames)
    if not hard:
        assert torch.equal(soft.tokens[row, frames, 1], batch.semantic[row, frames] + 1000)


def test_a_window_of_soft_tokens_is_of_the_frames_of_its_tokens(tmp_path):
    names = [(f"x{n}", "xi", 60 + 40 * n) for n in range(6)]
    module = data(write_soft(tmp_path, "train", names), "fit", validation_split=None, max_seconds=2.0, min_seconds=0.5)
    starts = set()
    for batch in module.train_dataloader():
        for row, length in enumerate(batch.lengths.tolist()):
            check_soft(batch, row, torch.arange(length))
            assert not batch.soft_semantic.probabilities[row, length:].any(), "padding says nothing"
            starts.add(int(batch.semantic[row, 0]))
    assert len(starts) > 2


def test_a_set_without_soft_tokens_speaks_with_probability_1_beside_one_that_has_them(folder, tmp_path):
    soft = write_soft(tmp_path / "soft", "train", [("x", "xi", 90)])
    for folders in ([soft, folder], [folder, soft]):
        mixed = data(folders, "fit", validation_split=None, min_seconds=0.5)
        assert mixed.card.soft_semantic == SOFT
        seen = set()
        for batch in mixed.train_dataloader():
            for row, name in enumerate(batch.ids):
                if batch.soft_semantic.tokens.shape[-1] == 2:
                    check_soft(batch, row, torch.arange(batch.lengths[row]), hard=name != "x")
                    seen.add(name == "x")
        assert seen == {False, True}
    assert next(iter(data(folder, "fit", validation_split=None).train_dataloader())).soft_semantic is None


def test_soft_tokens_of_other_probabilities_are_not_mixed(tmp_path):
    first = write_soft(tmp_path / "a", "train", [("x", "xi", 90)])
    with TokenSetWriter(tmp_path / "b", card(soft_semantic=SOFT | {"sharpness": 9.0})):
        pass
    hard = write(tmp_path / "hard", "train", [("y", "xi", 90)])
    message = rf"{tmp_path}/a and {tmp_path}/b \(they cannot be mixed\).*sharpness: 30\.0 and 9\.0"
    refused(ValueError, message, "fit", [hard, first, str(tmp_path / "b")])
    refused(
        ValueError, r"cannot be mixed.*soft_semantic\.sharpness: 30\.0 and 9\.0", "fit", [first, str(tmp_path / "b")]
    )


def test_the_soft_tokens_of_a_prompt_of_another_set_come_before_those_of_the_utterance(tmp_path):
    soft = write_soft(tmp_path / "soft", "test", [("said", "ann", 120)])
    hard = write(tmp_path / "hard", "test", [("given", "ann", 200)])
    module = data([soft, hard], "predict", predict=Selection("test"), prompt_seconds=1.0, prompt_source="other")
    batches = list(module.predict_dataloader())
    places = {name: (batch, row) for batch in batches for row, name in enumerate(batch.ids)}
    for name, hard_frames in (("said", range(50)), ("given", range(50, 250))):
        batch, row = places[name]
        assert int(batch.prompt_frames[row]) == 50
        frames = torch.arange(int(batch.lengths[row]))
        is_hard = torch.tensor([int(t) in hard_frames for t in frames])
        check_soft(batch, row, frames[is_hard], hard=True)
        check_soft(batch, row, frames[~is_hard])


def test_probabilities_are_brought_back_to_a_sum_of_1(tmp_path):
    with TokenSetWriter(tmp_path, card(soft_semantic={"num_tokens": 3, "sharpness": 1.0})) as writer:
        thirds = SoftRow(np.tile([0, 1, 2], (60, 1)), np.full((60, 3), 1 / 3))
        writer.write("x", *tokens(0, 60), soft=thirds)
    batch = next(iter(data(str(tmp_path), "fit", validation_split=None).train_dataloader()))
    sums = batch.soft_semantic.probabilities.sum(-1)[0, : int(batch.lengths[0])]
    torch.testing.assert_close(sums, torch.ones(len(sums)), atol=1e-6, rtol=0)
