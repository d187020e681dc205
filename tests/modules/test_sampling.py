import pytest
import torch

from modules.sampling import CategoricalSampling, filter_logits, row_noise, sample_categorical


def test_a_nucleus_is_the_fewest_tokens_that_hold_the_probability():
    logits = torch.tensor([0.1, 0.5, 0.1, 0.3]).log()
    for top_p, kept in ((0.0, [1]), (0.49, [1]), (0.6, [1, 3]), (0.85, [0, 1, 3]), (1.0, [0, 1, 2, 3])):
        assert filter_logits(logits, top_p=top_p).isfinite().nonzero().flatten().tolist() == kept


def test_samples_follow_the_distribution():
    probabilities = torch.tensor([0.2, 0.0, 0.5, 0.3])
    ids = sample_categorical(probabilities.log().expand(20_000, -1), torch.rand(20_000, dtype=torch.float64))
    torch.testing.assert_close(ids.bincount(minlength=4) / 20_000, probabilities, atol=0.01, rtol=0)


def test_temperature_zero_is_argmax_and_low_temperature_sharpens():
    logits, none = torch.randn(500, 6), torch.empty(500, 0)
    uniform = torch.rand(500, 1, dtype=torch.float64)
    best = logits.argmax(-1)
    assert torch.equal(CategoricalSampling(0.0)(logits, uniform, none), best)
    agreements = [float((CategoricalSampling(t)(logits, uniform, none) == best).float().mean()) for t in (0.3, 1, 3)]
    assert agreements == sorted(agreements, reverse=True)
    assert agreements[0] > agreements[2] + 0.2


@pytest.mark.parametrize("values", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 1.5}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=r"top_p .* from 0 to 1"):
        CategoricalSampling(**values)


def test_noise_of_a_row_depends_on_its_seed_alone():
    seeds, cpu = torch.tensor([3, 9, 3]), torch.device("cpu")
    wide, narrow = row_noise(seeds, 40, 2, cpu), row_noise(seeds[1:2], 25, 2, cpu)
    assert torch.equal(wide[1, :25], narrow[0])
    assert torch.equal(wide[0], wide[2])
    assert not torch.equal(wide[0], wide[1])
