import pytest
import torch

from datamodules.synthetic import SyntheticTokenDataModule
from modules.batches import GeneratedBatch
from modules.sampling import CategoricalSampling
from modules.valle import (
    AutoregressiveNetwork,
    NonAutoregressiveNetwork,
    RepetitionAwareSampling,
    VallE,
    VallEAutoregressive,
    VallENonAutoregressive,
)
from modules.warmup import WarmupCosine

SIZES = {
    "dim": 48,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_dim": 96,
    "dropout": 0.0,
    "num_quantizers": 4,
    "codebook_size": 64,
    "semantic_vocab_size": 32,
}
GREEDY, NUCLEUS, REPETITION = CategoricalSampling(0.0), CategoricalSampling(top_p=0.9), RepetitionAwareSampling()


def make_system(sampling=NUCLEUS, group_size=1, **changes):
    """A system with random weights, sharpened so that what it says depends on what it sees."""
    system = VallE(
        VallEAutoregressive(AutoregressiveNetwork(**SIZES, group_size=group_size)),
        VallENonAutoregressive(NonAutoregressiveNetwork(**SIZES)),
        sampling=sampling,
        **changes,
    )
    system.autoregressive.network.head.weight.data.mul_(3)
    return system


@pytest.mark.parametrize("group_size", [1, 2, 4])
@pytest.mark.parametrize("sampling", [GREEDY, NUCLEUS, REPETITION], ids=["greedy", "nucleus", "repetition-aware"])
def test_cached_decoding_is_uncached_decoding_token_for_token(sampling, group_size, make_batch):
    system, batch = make_system(sampling, group_size), make_batch(prompt=(7, 0, 3))
    for cached in (False, "static"):
        assert torch.equal(system.generate(batch).codes, system.generate(batch, cached=cached).codes)


@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_greedy_decoding_takes_what_the_network_predicts_of_its_own_codes(group_size, make_batch):
    system, batch = make_system(GREEDY, group_size), make_batch(prompt=(7, 2, 0))
    codes = system.generate(batch).codes
    network = system.autoregressive.network.eval()
    logits = network(batch.semantic, codes[:, 0], batch.lengths, -batch.prompt_frames % group_size)
    for b, predicted in enumerate(logits.argmax(-1).split(batch.lengths.tolist())):
        target = slice(int(batch.prompt_frames[b]), int(batch.lengths[b]))
        assert torch.equal(predicted[target], codes[b, 0, target])
    for q in (1, 2, 3):
        predicted, true, _ = system.nonautoregressive.network.eval()(
            batch.semantic, codes, batch.lengths, batch.prompt_frames, torch.full((3,), q)
        )
        assert torch.equal(predicted.argmax(-1), true)


@pytest.mark.parametrize("group_size", [1, 4])
def test_a_row_depends_neither_on_its_batch_nor_on_padding(group_size, make_batch):
    system = make_system(REPETITION, group_size)
    batch = make_batch(lengths=(30, 20, 9, 14), prompt=(0, 7, 2, 14))
    together = system.generate(batch).codes
    for b, n in enumerate(batch.lengths.tolist()):
        one = slice(b, b + 1)
        alone = batch._replace(
            ids=batch.ids[one], semantic=batch.semantic[one, :n], codes=batch.codes[one, :, :n],
            lengths=batch.lengths[one], prompt_frames=batch.prompt_frames[one], seeds=batch.seeds[one],
        )  # fmt: skip
        assert torch.equal(system.generate(alone).codes[0], together[b, :, :n])
        assert not together[b, :, n:].any()


def test_prompts_are_kept_and_what_comes_after_is_not_read(make_batch):
    system, batch = make_system(), make_batch(prompt=(5, 0, 3))
    out = system.generate(batch)
    assert isinstance(out, GeneratedBatch)
    assert torch.equal(out.codes[0, :, :5], batch.codes[0, :, :5])
    assert torch.equal(out.codes[2, :, :3], batch.codes[2, :, :3])
    assert (out.ids, out.seeds.tolist()) == (batch.ids, batch.seeds.tolist())
    hidden = torch.arange(30) >= batch.prompt_frames[:, None, None]
    other = batch._replace(codes=torch.where(hidden, torch.randint(64, batch.codes.shape), batch.codes))
    assert torch.equal(system.generate(other).codes, out.codes)


def test_each_seed_gives_another_reading(make_batch):
    system, batch = make_system(), make_batch()
    assert not torch.equal(
        system.generate(batch._replace(seeds=batch.seeds + 1)).codes[:, 0], system.generate(batch).codes[:, 0]
    )


def test_the_history_of_repetitions_begins_in_the_prompt_and_goes_through_groups(make_batch):
    """A sampling that repeats what stands four back writes the prompt's last four codes again and again."""

    class FourBack(CategoricalSampling):
        window = 4

        def __call__(self, logits, uniform, history):
            return history[:, 0]

    batch = make_batch(lengths=(15,), prompt=(6,))
    codes = make_system(FourBack(), group_size=2).generate(batch).codes[0, 0]
    assert torch.equal(codes[6:], batch.codes[0, 0, 2:6].repeat(3)[:9])


def test_small_stages_learn_the_synthetic_language(make_trainer):
    tokens = {"codebook_size": 16, "semantic_vocab_size": 8}
    data = SyntheticTokenDataModule(**tokens, num_speakers=4, max_seconds=1.5, batch_frames=400, num_predict=6)

    def fitted(stage, network, steps):
        module = stage(
            network,
            lambda groups: torch.optim.AdamW(groups, lr=6e-3, betas=(0.9, 0.98)),
            lambda optimizer: WarmupCosine(optimizer, 20, steps, 0.05),
        )
        make_trainer(max_steps=steps).fit(module, data)
        return module

    rest = fitted(VallENonAutoregressive, NonAutoregressiveNetwork(**(SIZES | tokens)), 120)
    for group_size in (1, 2):
        network = AutoregressiveNetwork(**(SIZES | tokens), group_size=group_size)
        system = VallE(fitted(VallEAutoregressive, network, 160), rest, sampling=REPETITION)
        language, agreements, said = data.language, [], []
        for b in data.predict_dataloader():
            codes = system.generate(b).codes.numpy()
            for i, n in enumerate(b.lengths.tolist()):
                agreements.append(language.level_agreement(codes[i, :, :n]))
                said.append((language.speakers_heard(codes[i, :, :n], b.semantic[i, :n].numpy()) >= 0).mean())
        assert (sum(agreements) / len(agreements)).min() > 0.8, "chance is 1 in 16"
        assert sum(said) / len(said) > 0.7, "chance is 1 in 4"


def test_two_checkpoints_make_one_system(make_trainer, tmp_path):
    data = SyntheticTokenDataModule(num_predict=2, max_seconds=1.0)
    paths = []
    for stage in (
        VallEAutoregressive(AutoregressiveNetwork(**SIZES)),
        VallENonAutoregressive(NonAutoregressiveNetwork(**SIZES)),
    ):
        trainer = make_trainer(max_steps=1)
        trainer.fit(stage, data)
        paths.append(str(tmp_path / f"{type(stage).__name__}.ckpt"))
        trainer.save_checkpoint(paths[-1])
    system = make_system(autoregressive_checkpoint=paths[0], nonautoregressive_checkpoint=paths[1])
    assert isinstance(make_trainer().predict(system, data)[0], GeneratedBatch)
    for stage, path in zip((system.autoregressive, system.nonautoregressive), paths, strict=True):
        saved = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.equal(saved[name], value) for name, value in stage.state_dict().items())


def test_levels_and_prompts_are_drawn_per_example():
    stage = VallENonAutoregressive(NonAutoregressiveNetwork(**SIZES), prompt_frames=6, prompt_dropout=0.25)
    seen = []
    stage.network.forward = lambda semantic, codes, lengths, prompt, level: seen.extend((prompt, level)) or (0, 0, 0)
    batch = SyntheticTokenDataModule(num_train=3000, max_seconds=1.0, batch_frames=150_000).train_dataloader()
    stage.predict_tokens(next(iter(batch)))
    prompt, level = seen
    assert set(prompt.tolist()) == {0, 6}
    assert float((prompt == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(level.bincount() / len(level), torch.tensor([0, 1, 1, 1]) / 3, atol=0.03, rtol=0)


def test_prompts_of_short_examples_leave_half_to_predict(make_batch):
    stage = VallENonAutoregressive(NonAutoregressiveNetwork(**SIZES), prompt_dropout=0.0)
    batch = make_batch()
    assert len(stage.predict_tokens(batch).target) == sum(n - n // 2 for n in (30, 20, 9))


def test_networks_must_have_the_same_codes():
    with pytest.raises(ValueError, match="codebook_size=64 and 32"):
        VallE(
            VallEAutoregressive(AutoregressiveNetwork(**SIZES)),
            VallENonAutoregressive(NonAutoregressiveNetwork(**(SIZES | {"codebook_size": 32}))),
        )


def test_the_system_is_not_trained_as_one():
    with pytest.raises(TypeError, match="fit VallEAutoregressive and VallENonAutoregressive"):
        make_system().configure_optimizers()


def test_the_settings_of_sampling_are_told():
    told = make_system(REPETITION).sampling_settings
    assert told == {
        "name": "RepetitionAwareSampling", "top_p": 0.8, "window": 10, "threshold": 0.1, "temperature": 1.0,
    }  # fmt: skip
