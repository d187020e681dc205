"""The decoder is the paper's: read from its trace, and replayed against the plain network."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.soundstorm import DecodingSchedule, SoundStormNetwork, decode

PAPER = DecodingSchedule(iterations=(16, 1, 1, 1))
OPTIONS = [
    {},
    {"temperature": 0.7, "choice_temperature": 4.5},
    {"top_k": 4, "top_p": 0.9},
    {"order": "random"},
    {"order": "low_discrepancy"},
    {"span_length": 3},
    {"guidance_scale": 2.0, "guidance_rescale": 0.7},
    {"guidance_scale": 2.0, "guidance_on": "semantic"},
    {"guidance_scale": 2.0, "guidance_on": "both"},
    {"remask_passes": 2, "remask_fraction": 0.2},
    {"span_length": 3, "remask_passes": 2, "choice_temperature": 1.0},
]
ids = lambda options: "-".join(options) or "paper"  # noqa: E731


def tokens(batch, width, prompt=0):
    return torch.randint(16, (batch, width)), torch.randint(32, (batch, 4, prompt)) if prompt else None


@pytest.fixture(scope="module")
def decoded(network):
    """A batch of three rows of different lengths and prompts, decoded as in the paper."""
    torch.manual_seed(0)
    semantic, prompt = tokens(3, 60, prompt=12)
    lengths, prompts = torch.tensor([60, 41, 30]), torch.tensor([12, 0, 7])
    codes, trace = decode(network, semantic, prompt, lengths, PAPER, 3, return_trace=True, prompt_lengths=prompts)
    return semantic, prompt, lengths, prompts, codes, trace


def test_the_16_numbers_of_1500_frames(network):
    semantic, _ = tokens(1, 1500)
    _, trace = decode(network, semantic, schedule=PAPER, return_trace=True)
    first = [int(p.num_fixed) for p in trace if p.level == 0]
    assert first == [8, 21, 36, 50, 63, 75, 88, 99, 109, 118, 126, 133, 139, 143, 145, 147]
    assert [int(p.fixed.sum()) for p in trace if p.level == 0] == first
    assert len(trace) == 19, "16 passes for level 0, one for each of the three others"


def test_levels_come_coarse_to_fine_and_finer_ones_enter_all_masked(decoded):
    _, _, lengths, prompts, _, trace = decoded
    assert [p.level for p in trace] == [0] * 16 + [1, 2, 3]
    target = (torch.arange(60) >= prompts[:, None]) & (torch.arange(60) < lengths[:, None])
    for p in trace[16:]:
        assert torch.equal(p.masked, target)
        assert torch.equal(p.fixed, target)
        assert p.greedy.all()


def test_each_target_token_is_fixed_exactly_once(decoded):
    _, _, lengths, prompts, _, trace = decoded
    target = (torch.arange(60) >= prompts[:, None]) & (torch.arange(60) < lengths[:, None])
    for level in range(4):
        times = sum(p.fixed.int() for p in trace if p.level == level)
        assert torch.equal(times, target.int())
    for before, after in itertools.pairwise(trace[:16]):
        assert torch.equal(after.masked, before.masked & ~before.fixed), "what is fixed stays fixed"


def replay(network, semantic, prompt, lengths, prompts, codes, trace):
    """Yield each pass with the tokens that the network must see in it."""
    frame = torch.arange(semantic.shape[1])
    given_ = frame < prompts[:, None]
    seen = torch.full_like(codes, network.mask_id)
    seen[:, :, : prompt.shape[2]] = torch.where(given_[:, None, : prompt.shape[2]], prompt, network.mask_id)
    for p in trace:
        yield p, seen.clone()
        seen[:, p.level] = torch.where(p.fixed, codes[:, p.level], seen[:, p.level])


def test_the_network_sees_what_was_fixed_before_and_masks_elsewhere(network, decoded, monkeypatch):
    semantic, prompt, lengths, prompts, codes, trace = decoded
    frames = []
    plain = SoundStormNetwork.contextualize
    monkeypatch.setattr(
        SoundStormNetwork, "contextualize", lambda self, x, valid=None: frames.append(x) or plain(self, x, valid)
    )
    again = decode(network, semantic, prompt, lengths, PAPER, 3, prompt_lengths=prompts)
    assert torch.equal(again, codes)
    assert len(frames) == len(trace)
    for (_, seen), x in zip(replay(network, *decoded), frames, strict=True):
        torch.testing.assert_close(x, network.embed(semantic, seen), atol=1e-5, rtol=1e-5)


def test_tokens_are_argmax_where_greedy_and_the_surest_samples_are_kept_elsewhere(network, decoded):
    semantic, _, lengths, _, codes, _ = decoded
    valid = torch.arange(60) < lengths[:, None]
    sampled_otherwise = 0
    for p, seen in replay(network, *decoded):
        hidden = network.contextualize(network.embed(semantic, seen), valid)
        log_probs = network.head(hidden, p.level).log_softmax(-1)
        for b in range(3):
            best = log_probs[b].argmax(-1)
            if p.greedy[b]:
                assert torch.equal(codes[b, p.level][p.fixed[b]], best[p.fixed[b]])
                continue
            if not p.fixed[b].any():
                continue
            sampled_otherwise += int((codes[b, p.level] != best)[p.fixed[b]].sum())
            of_fixed = log_probs[b].gather(-1, codes[b, p.level][:, None]).squeeze(-1)[p.fixed[b]]
            torch.testing.assert_close(of_fixed, p.confidence[b][p.fixed[b]], atol=1e-4, rtol=1e-4)
            left = p.confidence[b][p.masked[b] & ~p.fixed[b]]
            assert of_fixed.min() >= left.max() - 1e-4
    assert sampled_otherwise > 0, "tokens must be sampled before the last pass of level 0"


def test_the_prompt_comes_back_bit_identical_at_every_level(decoded):
    _, prompt, _, prompts, codes, _ = decoded
    for b, p in enumerate(prompts.tolist()):
        assert torch.equal(codes[b, :, :p], prompt[b, :, :p])


def test_codes_are_codes_and_padding_is_zero(decoded):
    _, _, lengths, _, codes, _ = decoded
    assert codes.min() >= 0
    assert codes.max() < 32
    for b, n in enumerate(lengths.tolist()):
        assert (codes[b, :, n:] == 0).all()


@pytest.mark.parametrize("options", OPTIONS, ids=ids)
def test_a_row_does_not_depend_on_batch_neighbours_or_padding(network, options):
    schedule = DecodingSchedule(iterations=(8, 3, 1, 1), **options)
    semantic, prompt = tokens(3, 40, prompt=10)
    lengths, prompts, seeds = torch.tensor([22, 40, 31]), torch.tensor([10, 4, 0]), [5, 6, 7]
    together = decode(network, semantic, prompt, lengths, schedule, seeds, prompt_lengths=prompts)
    for b, (n, p) in enumerate(zip(lengths.tolist(), prompts.tolist(), strict=True)):
        given_ = prompt[b : b + 1, :, :p] if p else None
        alone = decode(network, semantic[b : b + 1, :n], given_, schedule=schedule, seed=seeds[b])
        assert torch.equal(alone[0], together[b, :, :n])


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    prompt=st.integers(0, 10),
    iterations=st.integers(1, 10),
    options=st.sampled_from(OPTIONS),
)
def test_any_shape_is_filled_completely(network, lengths, prompt, iterations, options):
    schedule = DecodingSchedule(iterations=(iterations, 1, 2, 1), **options)
    semantic, codes = tokens(len(lengths), max(lengths), min(prompt, max(lengths)))
    out, trace = decode(network, semantic, codes, torch.tensor(lengths), schedule, return_trace=True)
    assert out.min() >= 0
    assert out.max() < 32, "no mask is left"
    for p in trace:
        assert torch.equal(p.num_fixed, p.fixed.sum(1))
        assert torch.equal(p.num_masked, p.masked.sum(1))
    for b, n in enumerate(lengths):
        kept = min(n, prompt)
        if kept:
            assert torch.equal(out[b, :, :kept], codes[b, :, :kept])


def test_same_seed_same_codes_other_seed_other_codes(network):
    semantic, _ = tokens(1, 50)
    first = decode(network, semantic, schedule=PAPER, seed=1)
    torch.rand(3)  # the global stream must play no part
    assert torch.equal(decode(network, semantic, schedule=PAPER, seed=1), first)
    assert not torch.equal(decode(network, semantic, schedule=PAPER, seed=2), first)


def test_the_global_random_stream_is_left_alone(network):
    state = torch.get_rng_state()
    decode(network, tokens(1, 9)[0], schedule=PAPER)
    # tokens() draws once from the global stream; decoding must draw nothing more
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    tokens(1, 9)
    assert torch.equal(torch.get_rng_state(), after)


def test_level_wise_greedy_does_not_depend_on_the_seed(network):
    semantic, _ = tokens(1, 30)
    greedy = DecodingSchedule(iterations=(1, 1, 1, 1))
    assert torch.equal(decode(network, semantic, schedule=greedy, seed=1), decode(network, semantic, schedule=greedy))


@pytest.mark.parametrize("options", OPTIONS, ids=ids)
def test_levels_left_out_change_nothing_in_the_others(network, options):
    semantic, prompt = tokens(2, 40, prompt=9)
    lengths = torch.tensor([40, 23])
    whole = decode(network, semantic, prompt, lengths, DecodingSchedule(iterations=(8, 3, 1, 1), **options))
    schedule = DecodingSchedule(iterations=(8, 3, 0, 0), **options)
    codes, trace = decode(network, semantic, prompt, lengths, schedule, return_trace=True)
    assert torch.equal(codes, whole[:, :2])
    assert {p.level for p in trace} == {0, 1}


def test_a_prompt_may_lack_what_is_left_out_and_nothing_else(network):
    semantic, prompt = tokens(1, 30, prompt=9)
    schedule = DecodingSchedule(iterations=(8, 1, 0, 0))
    without = prompt.clone()
    without[:, 2:] = network.mask_id
    codes = decode(network, semantic, without, schedule=schedule)
    assert torch.equal(codes[:, :, :9], prompt[:, :2])
    assert not torch.equal(codes, decode(network, semantic, prompt, schedule=schedule)), "what is given is read"
    for level, known in ((1, 31), (3, 32)):
        wrong = without.clone()
        wrong[:, level] = known + 1
        with pytest.raises(ValueError, match=rf"prompt holds token ids .*{known + 1}, the network knows 0\.\.{known}"):
            decode(network, semantic, wrong, schedule=schedule)


def test_choice_noise_changes_the_order(network):
    semantic, _ = tokens(1, 50)
    noisy = DecodingSchedule(iterations=(16, 1, 1, 1), choice_temperature=4.5)
    _, plain = decode(network, semantic, schedule=PAPER, return_trace=True)
    _, trace = decode(network, semantic, schedule=noisy, return_trace=True)
    assert not torch.equal(plain[0].fixed, trace[0].fixed) or not torch.equal(plain[3].fixed, trace[3].fixed)


def test_low_discrepancy_order_never_fixes_neighbours_early(network):
    schedule = DecodingSchedule(iterations=(16, 1, 1, 1), order="low_discrepancy")
    _, trace = decode(network, tokens(1, 64)[0], schedule=schedule, return_trace=True)
    early = sum(p.fixed.int() for p in trace[:6])[0].nonzero().flatten()
    assert early.diff().min() > 1


def test_spans_are_fixed_whole(network):
    schedule = DecodingSchedule(iterations=(8, 1, 1, 1), span_length=3)
    _, trace = decode(network, tokens(1, 30)[0], schedule=schedule, return_trace=True)
    for p in trace[:8]:
        spans = p.fixed.view(10, 3)
        assert (spans.all(-1) | ~spans.any(-1)).all()


def test_remasking_revises_the_least_sure_tokens(network):
    schedule = DecodingSchedule(iterations=(8, 1, 1, 1), remask_passes=1, remask_fraction=0.25)
    _, trace = decode(network, tokens(1, 40)[0], schedule=schedule, return_trace=True)
    again = trace[8]
    assert (again.level, int(again.num_masked)) == (0, 10)
    sure = torch.full((40,), torch.nan)
    for p in trace[:8]:
        sure = torch.where(p.fixed[0], p.confidence[0], sure)
    assert sure[again.masked[0]].max() <= sure[~again.masked[0]].min()


def test_guidance_on_the_prompt_leaves_unprompted_rows_as_they_are(network):
    semantic, _ = tokens(1, 30)
    guided = DecodingSchedule(iterations=(8, 1, 1, 1), guidance_scale=3.0)
    plain = DecodingSchedule(iterations=(8, 1, 1, 1))
    assert torch.equal(decode(network, semantic, schedule=guided), decode(network, semantic, schedule=plain))


def test_guidance_on_the_prompt_changes_prompted_rows(network):
    semantic, prompt = tokens(1, 30, prompt=10)
    guided = DecodingSchedule(iterations=(8, 1, 1, 1), guidance_scale=3.0)
    plain = DecodingSchedule(iterations=(8, 1, 1, 1))
    a, b = (decode(network, semantic, prompt, schedule=schedule) for schedule in (guided, plain))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("on", ["prompt", "semantic", "both"])
def test_guidance_leads_away_from_what_the_network_says_without_the_condition(network, on):
    semantic, prompt = tokens(1, 30, prompt=10)
    codes = torch.full((1, 4, 30), network.mask_id)
    codes[:, :, :10] = prompt
    null = torch.full_like(semantic, network.null_semantic_id)

    def logits(words, start):
        frames = network.embed(words, codes)[:, start:]
        return network.head(network.contextualize(frames), 0)[:, 10 - start :]

    with torch.no_grad():
        conditional = logits(semantic, 0)
        without = logits(semantic if on == "prompt" else null, 0 if on == "semantic" else 10)
    schedule = DecodingSchedule(iterations=(1, 1, 1, 1), guidance_scale=2.0, guidance_on=on)
    made = decode(network, semantic, prompt, schedule=schedule)[:, 0, 10:]
    assert torch.equal(made, (conditional + 2 * (conditional - without)).argmax(-1))
    assert not torch.equal(made, conditional.argmax(-1))


def test_a_prompt_may_fill_the_whole_row(network):
    semantic, prompt = tokens(2, 10, prompt=10)
    out = decode(network, semantic, prompt, schedule=PAPER, prompt_lengths=torch.tensor([10, 4]))
    assert torch.equal(out[0], prompt[0])


def test_the_network_is_left_in_its_mode(network):
    network.train()
    decode(network, tokens(1, 5)[0], schedule=PAPER)
    assert network.training
    network.eval()


def test_dropout_plays_no_part():
    network = SoundStormNetwork(16, 1, 2, 32, num_quantizers=4, codebook_size=32, semantic_vocab_size=16, dropout=0.5)
    semantic, _ = tokens(1, 20)
    assert torch.equal(
        decode(network.train(), semantic, schedule=PAPER), decode(network.eval(), semantic, schedule=PAPER)
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"semantic": torch.full((1, 8), 16)}, r"semantic holds token ids 16\.\.16, the network knows 0\.\.15"),
        ({"semantic": torch.zeros(8, dtype=torch.int64)}, r"semantic must be integers of shape \[B, T\]"),
        ({"semantic": torch.zeros(1, 8)}, "semantic must be integers"),
        ({"prompt": torch.full((1, 4, 2), 32)}, "prompt holds token ids 32"),
        ({"prompt": torch.zeros(1, 3, 2, dtype=torch.int64)}, r"prompt must have shape"),
        ({"prompt": torch.zeros(1, 4, 9, dtype=torch.int64)}, "prompt must have shape"),
        ({"lengths": torch.tensor([9])}, "row 0: length 9 does not lie in 1..8"),
        ({"lengths": torch.tensor([8, 8])}, "lengths has 2 entries for a batch of 1"),
        ({"prompt_lengths": torch.tensor([3])}, "row 0: a prompt of 3 frames does not fit"),
        ({"schedule": DecodingSchedule()}, "iterations for 12 levels, the network has 4"),
        ({"semantic": torch.zeros(0, 8, dtype=torch.int64)}, "at least one row and one frame, got 0 x 8"),
        ({"lengths": torch.tensor([7.5])}, "lengths must be whole numbers"),
        ({"seed": [1, 2]}, "seed has 2 entries"),
        ({"seed": "one"}, "seed must be whole numbers"),
        ({"seed": 2**70}, "does not fit into 64 bits"),
    ],
)
def test_impossible_input_is_named(network, change, named):
    with pytest.raises(ValueError, match=named):
        decode(network, **({"semantic": torch.zeros(1, 8, dtype=torch.int64), "schedule": PAPER} | change))


@pytest.mark.parametrize("options", OPTIONS, ids=ids)
def test_sure_probabilities_are_decoded_as_their_tokens(network, options):
    torch.manual_seed(3)
    semantic, prompt = tokens(2, 40, prompt=9)
    sure = torch.nn.functional.one_hot(semantic, 16).float()
    settings = (prompt, torch.tensor([40, 31]), DecodingSchedule(iterations=(6, 1, 1, 1), **options), 5)
    assert torch.equal(decode(network, sure, *settings), decode(network, semantic, *settings))


def test_what_is_doubtful_is_read_with_its_doubts(network):
    """Of two tokens, each half probable, the network sees the mean; guided away from no words at all, too."""
    torch.manual_seed(4)
    first, second = tokens(1, 40)[0], tokens(1, 40)[0]
    one_hot = torch.nn.functional.one_hot
    doubtful = (one_hot(first, 16) + one_hot(second, 16)).float() / 2
    seen = []
    network_contextualize = network.contextualize
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "contextualize", lambda x, valid: seen.append(x) or network_contextualize(x, valid))
        decode(network, doubtful, schedule=DecodingSchedule((2, 1, 1, 1), guidance_scale=1.0, guidance_on="semantic"))
    table, masks = network.semantic_embedding.weight, torch.full((1, 4, 40), network.mask_id)
    acoustic = network.embed(first, masks) - table[first]
    torch.testing.assert_close(seen[0][0], (acoustic + (table[first] + table[second]) / 2)[0])
    torch.testing.assert_close(seen[0][1], (acoustic + table[16])[0])


@pytest.mark.parametrize(
    ("semantic", "message"),
    [
        (torch.full((1, 5, 16), 0.1), "must hold probabilities"),
        (torch.tensor([0.5, -0.1] + [0.0] * 14).expand(1, 5, 16), "must hold probabilities"),
        (torch.full((1, 5, 16), torch.nan), "must hold probabilities"),
        (torch.zeros(1, 5, 15), r"floats of shape \[B, T, 16\], got torch\.float32 \(1, 5, 15\)"),
        (torch.zeros(1, 5), "floats of shape"),
        (torch.zeros(1, 5, 16, dtype=torch.long), "must be integers of shape"),
    ],
)
def test_what_are_no_probabilities_is_refused(network, semantic, message):
    with pytest.raises(ValueError, match=message):
        decode(network, semantic, schedule=PAPER)


def test_probabilities_of_few_digits_are_probabilities(network):
    doubtful = torch.rand(2, 30, 16).mul(3).softmax(-1)
    assert (doubtful.bfloat16().float().sum(-1) > 1).any(), "rounding makes some sums larger than 1"
    decode(network, doubtful.bfloat16(), schedule=PAPER)
    assert torch.equal(decode(network, doubtful.double(), schedule=PAPER), decode(network, doubtful, schedule=PAPER))
