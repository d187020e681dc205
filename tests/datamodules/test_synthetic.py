"""The artificial language: its structure, and the instruments that read it."""

import numpy as np
import pytest
import torch

from datamodules.synthetic import SyntheticTokenDataModule
from datamodules.synthetic_speech import SyntheticSpeech


@pytest.fixture(scope="module")
def language():
    return SyntheticSpeech()


@pytest.fixture(scope="module")
def utterances(language):
    return [language.utterance(number, 200) for number in range(40)]


def test_true_codes_are_consistent_in_speaker_and_levels(language, utterances):
    for row in utterances:
        assert language.speaker_consistency(row.codes, row.semantic) == 1
        assert (language.level_agreement(row.codes) == 1).all()
        assert set(language.speakers_heard(row.codes, row.semantic)) == {int(row.speaker.removeprefix("speaker-"))}


def test_a_speaker_per_frame_is_heard_as_inconsistent(language, utterances):
    speakers = np.random.default_rng(0).integers(language.num_speakers, size=200)
    shuffled = [language.speak(row.semantic, speakers) for row in utterances]
    consistency = [
        language.speaker_consistency(codes, row.semantic) for codes, row in zip(shuffled, utterances, strict=True)
    ]
    assert 1 / 8 < np.mean(consistency) < 0.3
    assert all((language.level_agreement(codes) == 1).all() for codes in shuffled)


def test_a_change_of_speaker_halfway_costs_half(language, utterances):
    row = utterances[0]
    codes = language.speak(row.semantic, np.repeat([2, 5], 100))
    assert language.speaker_consistency(codes, row.semantic) == 0.5


def test_codes_that_say_something_else_are_not_heard_as_consistent(language, utterances):
    first, second = utterances[:2]
    assert language.speaker_consistency(first.codes, second.semantic) < 0.4
    random = np.random.default_rng(0).integers(language.codebook_size, size=(4, 200))
    assert language.speaker_consistency(random, first.semantic) < 0.1


def test_a_level_that_does_not_follow_is_named(language, utterances):
    codes = utterances[0].codes.copy()
    codes[2] = (codes[2] + language.num_speakers) % language.codebook_size  # the next class, by the same speaker
    assert language.level_agreement(codes).tolist() == [1, 0, 0]


def test_finer_levels_of_another_speaker_do_not_agree(language, utterances):
    row = utterances[0]
    other = language.speak(row.semantic, (int(row.speaker[-1]) + 1) % 8)
    mixed = np.concatenate([row.codes[:1], other[1:]])
    assert language.speaker_consistency(mixed, row.semantic) == 1
    assert (language.level_agreement(mixed) == 0).all()


def test_noise_replaces_codes_at_every_level_but_not_the_speaker():
    language = SyntheticSpeech(noise=0.2)
    row = language.utterance(0, 2000)
    clean = language.speak(row.semantic, language.speaker_of(0))
    assert (row.codes[0] != clean[0]).mean() == pytest.approx(0.2 * 63 / 64, abs=0.03)
    # A finer level repeats the errors above it and adds its own.
    wrong = [(row.codes[level] != clean[level]).mean() for level in range(4)]
    assert wrong == sorted(wrong)
    assert 0.6 < language.speaker_consistency(row.codes, row.semantic) < 0.95


def test_semantic_tokens_come_in_segments_along_a_chain(language):
    tokens = language.utterance(3, 20_000).semantic
    changes = np.flatnonzero(np.diff(tokens)) + 1
    lengths = np.diff(changes)
    assert (lengths % 2 == 0).all()  # two frames per semantic token
    assert 6 < lengths.mean() < 12
    pairs = {(tokens[at - 1], tokens[at]) for at in changes}
    followers = [sum(1 for before, _ in pairs if before == token) for token in range(32)]
    assert max(followers) <= 4
    assert len(set(tokens.tolist())) > 16


def test_utterances_follow_from_their_number_alone(language):
    again = SyntheticSpeech().utterance(7, 120)
    assert np.array_equal(again.codes, language.utterance(7, 120).codes)
    assert not np.array_equal(again.codes, language.utterance(8, 120).codes)
    assert not np.array_equal(again.codes, SyntheticSpeech(seed=1).utterance(7, 120).codes)


def test_every_speaker_has_a_turn(language):
    counts = np.bincount([language.speaker_of(number) for number in range(800)], minlength=8)
    assert counts.min() > 50


def batches_of(loader):
    return [(batch.ids, batch.codes, batch.semantic, batch.lengths) for batch in loader]


def test_batches_are_pieces_of_the_language():
    module = SyntheticTokenDataModule(num_quantizers=3, codebook_size=40, num_speakers=5, num_train=40)
    assert module.card.num_quantizers == 3
    for batch in module.train_dataloader():
        assert batch.codes.shape == (len(batch.ids), 3, batch.semantic.shape[1])
        assert batch.codes.max() < 40
        assert batch.semantic.max() < 32
        for row, length in enumerate(batch.lengths.tolist()):
            assert 50 <= length <= 200
            codes, semantic = batch.codes[row, :, :length], batch.semantic[row, :length]
            assert module.language.speaker_consistency(codes, semantic) == 1


def test_stages_have_utterances_of_their_own():
    module = SyntheticTokenDataModule(num_train=20, num_validation=6, num_predict=5)
    loaders = (module.train_dataloader(), module.val_dataloader(), module.predict_dataloader())
    ids = [sorted(name for batch in loader for name in batch.ids) for loader in loaders]
    assert [len(names) for names in ids] == [20, 6, 5]
    assert len(set(sum(ids, []))) == 31  # noqa: RUF017
    assert sorted(name for batch in module.test_dataloader() for name in batch.ids) == ids[2]


def test_prompts_leave_a_second_to_generate():
    module = SyntheticTokenDataModule(prompt_seconds=2.5, max_seconds=4)
    for batch in module.predict_dataloader():
        assert (batch.prompt_frames == 125).all()
        assert (batch.lengths >= 175).all()


def test_evaluation_is_the_same_every_time():
    first, second = (SyntheticTokenDataModule().predict_dataloader() for _ in range(2))
    second.batch_sampler.sampler.set_epoch(4)
    for one, other in zip(first, second, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.codes, other.codes)
        assert torch.equal(one.seeds, other.seeds)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"num_speakers": 40}, r"codebook_size \(64\) must be at least twice num_speakers \(40\)"),
        ({"noise": 2.0}, r"noise \(2.0\) a probability"),
        ({"semantic_vocab_size": 4}, r"semantic_vocab_size \(4\) at least 8"),
        ({"min_seconds": 5.0}, r"min_seconds \(5.0\) must be positive and at most max_seconds \(4.0\)"),
        ({"prompt_seconds": 3.5}, "prompt_seconds is 3.5; it must lie between 0 and 3"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        SyntheticTokenDataModule(**wrong)
