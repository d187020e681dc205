from types import SimpleNamespace

import pytest
import torch

from modules.batches import TokenBatch
from modules.codec.codec import AudioCodec
from modules.semantic import SemanticTokenizer
from modules.semantic.features import SpeechFeatures
from modules.soundstorm import DecodingSchedule, ReadingChoice, SoundStorm, SoundStormNetwork, decode, decode_best
from modules.soundstorm.readings import reading_seeds

HOP = 10
SCHEDULE = DecodingSchedule(iterations=(6, 1, 1, 1))


class LoudnessCodec(AudioCodec):
    """Each frame is as loud as its first code says."""

    sample_rate, hop_length, num_quantizers, codebook_size = 500, HOP, 4, 32

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(1))

    def encode(self, audio):
        raise NotImplementedError

    def decode(self, codes):
        return (codes[:, 0].float() / self.codebook_size * self.scale).repeat_interleave(HOP, dim=1)

    def identity(self):
        return {"name": "loudness"}


class Loudness(SpeechFeatures):
    """Hears how loud each frame is, and that it is not silent."""

    sample_rate, hop_length, dim = 500, HOP, 2

    def num_frames(self, num_samples):
        return num_samples // HOP if num_samples >= 2 * HOP else 0

    def extract(self, audio):
        loudness = audio.unflatten(1, (-1, HOP)).mean(-1)[:, : self.num_frames(audio.shape[1])]
        return torch.stack([loudness, torch.ones_like(loudness)], dim=-1)

    def init_args(self):
        return {}

    def identity(self):
        return {"name": "loudness"}


def make_choice(readings, pool=1):
    tokenizer = SemanticTokenizer(Loudness(), num_clusters=16, pool=pool)
    centroids = torch.stack([torch.arange(16) / 16, torch.full((16,), 3.0)], dim=1)
    tokenizer.set_codebook(torch.zeros(2), torch.tensor([0.5, 1.0]), centroids)
    return ReadingChoice(LoudnessCodec(), tokenizer, readings)


def batch_of(lengths, prompts, width):
    torch.manual_seed(4)
    semantic = torch.randint(16, (len(lengths), width))
    prompt = torch.randint(32, (len(lengths), 4, max(prompts)))
    return semantic, prompt, torch.tensor(lengths), torch.arange(len(lengths)) * 1000 - 500, torch.tensor(prompts)


def test_what_counts_is_how_much_nearer_another_token_is_than_the_wanted_one_after_the_prompt():
    choice = make_choice(3)
    codes = torch.zeros(3, 4, 3, dtype=torch.long)
    codes[0, 0], codes[1, 0], codes[2, 0] = torch.tensor([31, 8, 16]), torch.tensor([0, 8, 6]), torch.tensor([0, 8, 12])
    # Loudness 8 is heard as 0.5, the centre of token 8: no error. Token 12 is 0.75; 1.0 is nearest to 0.9375, 0.375 is
    # a centre itself, and so is 0.75. All are as far away in the second dimension, and everything is halved over two.
    errors = [(0.25**2 - 0.0625**2) / 2, 0.375**2 / 2, 0.0]
    expected = [error / 2 for error in errors]  # two frames count
    assert choice.misreadings(codes, torch.tensor([3, 8, 12]), start=1).tolist() == pytest.approx(expected, abs=1e-6)


def test_fewer_tokens_than_frames_are_compared_at_the_rate_of_the_frames():
    choice = make_choice(2, pool=2)
    codes = torch.zeros(1, 4, 4, dtype=torch.long)
    codes[0, 0] = torch.tensor([8, 4, 10, 10])  # heard as 0.375, token 6, and as 0.625, token 10
    found = choice.misreadings(codes, torch.tensor([6, 6, 2, 2]), 0).item()
    assert found == pytest.approx(0.5**2 / 2 / 2, abs=1e-6)


def test_the_reading_is_kept_that_is_nearest_to_the_words(network):
    semantic, prompt, lengths, seeds, given = batch_of([40, 23, 31], [5, 0, 8], 40)
    choice = make_choice(4)
    kept, passes = decode_best(network, semantic, prompt, lengths, SCHEDULE, seeds, given, choice, keep_trace=True)
    taken = []
    for b, (length, start, seed) in enumerate(zip(lengths.tolist(), given.tolist(), seeds.tolist(), strict=True)):
        given_to = (network, semantic[b : b + 1, :length], prompt[b : b + 1, :, :start], None, SCHEDULE)
        readings = [decode(*given_to, s, return_trace=True) for s in reading_seeds([seed], 4)]
        heard = torch.cat([codes for codes, _ in readings])[:, 0, start:] / 32 / 0.5
        centres = torch.arange(16) / 16
        errors = (heard - centres[semantic[b, start:length]]).square()
        errors = (errors - (heard[..., None] - centres).square().amin(-1)).mean(1)
        best = int(errors.argmin())
        taken.append(best)
        assert torch.equal(kept[b, :, :length], readings[best][0][0])
        for found, wanted in zip(passes, readings[best][1], strict=True):
            assert torch.equal(found.fixed[b, :length], wanted.fixed[0])
            assert torch.allclose(found.confidence[b, :length], wanted.confidence[0], atol=1e-4, equal_nan=True)
    assert set(taken) - {0}, "the first reading was best everywhere: this shows nothing"
    assert kept.shape == (3, 4, 40)


@pytest.mark.parametrize("choice", [None, make_choice(1)])
def test_without_a_choice_it_is_the_plain_decoding(network, choice):
    semantic, prompt, lengths, seeds, given = batch_of([40, 23], [5, 0], 40)
    codes, passes = decode_best(network, semantic, prompt, lengths, SCHEDULE, seeds, given, choice)
    assert torch.equal(codes, decode(network, semantic, prompt, lengths, SCHEDULE, seeds, prompt_lengths=given))
    assert passes == []


def test_a_schedule_that_draws_nothing_is_decoded_once(network, monkeypatch):
    semantic, prompt, lengths, seeds, given = batch_of([40, 23], [5, 0], 40)
    rows = []
    contextualize = network.contextualize
    monkeypatch.setattr(network, "contextualize", lambda x, valid: rows.append(len(x)) or contextualize(x, valid))
    greedy = DecodingSchedule(iterations=(1, 1, 1, 1))
    decode_best(network, semantic, prompt, lengths, greedy, seeds, given, make_choice(4))
    assert set(rows) == {2}


@pytest.mark.parametrize("length", [1, 3])
def test_what_is_too_short_to_listen_to_or_all_prompt_keeps_its_first_reading(network, length):
    semantic, prompt, lengths, seeds, given = batch_of([length], [0 if length == 1 else length], length)
    codes, _ = decode_best(network, semantic, prompt, lengths, SCHEDULE, seeds, given, make_choice(3))
    assert torch.equal(codes, decode(network, semantic, prompt, lengths, SCHEDULE, seeds, prompt_lengths=given))


def test_seeds_are_those_of_a_generator_that_draws_differently_with_each_and_in_later_chunks():
    rows = [0, 1, 2, 3, -(2**63) + 100, 2**63 - 1]  # the first four as of four chunks of one utterance
    seeds = reading_seeds(rows, 5)
    assert seeds[::5] == rows
    drawn = {float(torch.rand(1, generator=torch.Generator().manual_seed(seed), dtype=torch.double)) for seed in seeds}
    assert len(drawn) == 30
    assert all(-(2**63) <= seed < 2**64 for seed in seeds)


def test_the_module_chooses_says_so_and_keeps_the_ear_out_of_its_checkpoint(network):
    semantic, prompt, lengths, seeds, given = batch_of([40, 23], [5, 0], 40)
    batch = TokenBatch(["a", "b"], semantic, torch.randint(32, (2, 4, 40)), lengths, given, seeds, ["", ""], ["", ""])
    batch.codes[:, :, :5] = prompt
    module = SoundStorm(network, schedule=SCHEDULE, choice=make_choice(4))
    expected, _ = decode_best(network, semantic, prompt, lengths, SCHEDULE, seeds, given, make_choice(4))
    assert torch.equal(module.generate(batch).codes, expected)
    assert module.sampling_settings["readings"] == 4
    assert "readings" not in SoundStorm(network).sampling_settings
    assert set(module.state_dict()) == set(SoundStorm(network).state_dict())


def test_tokens_that_the_ear_does_not_know_are_refused_and_those_of_its_teacher_are_not():
    choice = make_choice(2)
    tokens = {"codec": choice.codec.identity(), "semantic": choice.semantic.identity()}
    choice.check(tokens)
    for part in tokens:
        with pytest.raises(ValueError, match=f"tokens of the {part} {{'name': 'another'}}"):
            choice.check(tokens | {part: {"name": "another"}})
    choice.semantic.features.teacher = {"name": "another"}
    choice.check(tokens | {"semantic": {"name": "another"}})
    module = SoundStorm(SoundStormNetwork(16, 1, 2, 32, 5, 4, 32, 16), choice=choice)
    card = SimpleNamespace(num_quantizers=4, codebook_size=32, semantic_vocab_size=16, **tokens)
    module.trainer = SimpleNamespace(datamodule=SimpleNamespace(card=card))
    module.setup("predict")
    card.codec = {"name": "another"}
    with pytest.raises(ValueError, match="tokens of the codec"):
        module.setup("predict")


def test_no_reading_and_an_ear_of_another_rate_are_refused():
    with pytest.raises(ValueError, match="readings=0"):
        make_choice(0)
    choice = make_choice(2)
    choice.semantic.sample_rate = 400
    with pytest.raises(ValueError, match=r"500 Hz .* 400 Hz"):
        ReadingChoice(choice.codec, choice.semantic)


def test_where_the_words_are_doubtful_the_distance_is_the_mean_over_what_they_may_be():
    choice = make_choice(2)
    codes = torch.randint(32, (2, 4, 6))
    first, second = torch.randint(16, (6,)), torch.randint(16, (6,))
    one_hot = torch.nn.functional.one_hot
    sure = choice.misreadings(codes, one_hot(first, 16).float(), 1)
    torch.testing.assert_close(sure, choice.misreadings(codes, first, 1))
    doubtful = choice.misreadings(codes, 0.25 * one_hot(first, 16) + 0.75 * one_hot(second, 16), 1)
    expected = 0.25 * choice.misreadings(codes, first, 1) + 0.75 * choice.misreadings(codes, second, 1)
    torch.testing.assert_close(doubtful, expected)
    unknown = choice.misreadings(codes, 0.25 * one_hot(first, 16).half(), 1)
    torch.testing.assert_close(
        unknown, 0.25 * choice.misreadings(codes, first, 1), msg="what is unknown is not misread"
    )


def test_the_best_of_doubtful_words_is_that_of_the_words_where_they_are_sure(network):
    semantic, prompt, lengths, seeds, given = batch_of([40, 23, 31], [5, 0, 8], 40)
    sure = torch.nn.functional.one_hot(semantic, 16).float()
    kept = [
        decode_best(network, x, prompt, lengths, SCHEDULE, seeds, given, make_choice(4))[0] for x in (semantic, sure)
    ]
    assert torch.equal(*kept)
