import pytest
import torch

from modules.sampling import filter_logits, sample_categorical
from modules.soundstorm.sampling import guide, gumbel, low_discrepancy_scores


def test_samples_follow_the_distribution():
    logits = torch.tensor([0.5, -1.0, 2.0, -30.0])
    uniform = torch.rand(40_000, dtype=torch.float64)
    ids = sample_categorical(logits.expand(40_000, 4), uniform)
    frequency = ids.bincount(minlength=4) / 40_000
    assert (frequency - logits.softmax(0)).abs().max() < 0.01


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_what_is_ruled_out_is_never_sampled(uniform):
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]])
    assert int(sample_categorical(logits, torch.tensor([uniform], dtype=torch.float64))) in (1, 2)


def test_top_k_keeps_the_k_best():
    kept = filter_logits(torch.tensor([0.1, 3.0, 2.0, -1.0]), top_k=2)
    assert kept.isfinite().tolist() == [False, True, True, False]


def test_top_p_keeps_the_fewest_that_hold_the_probability():
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    assert filter_logits(logits, top_p=0.5).isfinite().tolist() == [False, True, False]
    assert filter_logits(logits, top_p=0.51).isfinite().tolist() == [False, True, True]
    assert filter_logits(logits, top_p=1e-9).isfinite().tolist() == [False, True, False]


def test_gumbel_noise_has_its_mean_and_variance():
    noise = gumbel(torch.rand(200_000, dtype=torch.float64))
    assert noise.mean() == pytest.approx(0.5772, abs=0.01)
    assert noise.var() == pytest.approx(torch.pi**2 / 6, abs=0.03)
    assert gumbel(torch.tensor([0.0], dtype=torch.float64)).isfinite().all()


def test_guidance_moves_away_from_the_unconditional_logits():
    conditional, unconditional = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    assert guide(conditional, unconditional, 2.0, 0.0).tolist() == [[2.0, -1.0]]
    assert torch.equal(guide(conditional, unconditional, 0.0, 0.0), conditional)


def test_guidance_rescale_restores_each_positions_deviation():
    conditional, unconditional = torch.randn(5, 8), torch.randn(5, 8)
    guided = guide(conditional, unconditional, 3.0, 1.0)
    torch.testing.assert_close(guided.std(-1), conditional.std(-1))


@pytest.mark.parametrize("n", [1, 2, 7, 64, 100])
def test_low_discrepancy_order_is_an_order_that_spreads(n):
    scores = low_discrepancy_scores(n)
    assert sorted((-scores).tolist()) == list(range(n))
    for k in (2, 4, 8):
        if n >= 4 * k:
            first = scores.topk(k).indices.sort().values
            assert first.diff().max() <= 2 * n / k
