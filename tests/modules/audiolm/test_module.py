import json

import pytest
import torch

from datamodules.synthetic import SyntheticTokenDataModule
from modules.audiolm import AudioLM, AudioLMCoarse, AudioLMFine, CoarseNetwork, FineNetwork
from modules.batches import GeneratedBatch
from modules.sampling import CategoricalSampling
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
    "coarse_levels": 2,
}


def make_system(temperatures=(0.8, 0.6), chunk=10, fine_chunk=6, **changes):
    """A system with random weights, sharpened so that what it says depends on what it sees."""
    coarse = AudioLMCoarse(CoarseNetwork(**SIZES), chunk_frames=chunk)
    fine = AudioLMFine(FineNetwork(**SIZES), chunk_frames=fine_chunk)
    for stage in (coarse, fine):
        stage.network.head_weight.data.mul_(5)
    sampling = [CategoricalSampling(t) for t in temperatures]
    return AudioLM(
        coarse, fine, coarse_sampling=sampling[0], fine_sampling=sampling[1], **({"overlap_frames": 3} | changes)
    )


@pytest.mark.parametrize("temperatures", [(0.0, 0.0), (0.8, 0.6)], ids=["greedy", "sampled"])
def test_cached_decoding_is_uncached_decoding_token_for_token(temperatures, make_batch):
    system, batch = make_system(temperatures), make_batch(prompt=(4, 0, 3))
    for cached in (False, "static"):
        assert torch.equal(system.generate(batch).codes, system.generate(batch, cached=cached).codes)


def test_greedy_decoding_takes_what_the_network_predicts_of_its_own_tokens(make_batch):
    system, batch = make_system((0.0, 0.0), chunk=30, fine_chunk=30), make_batch()
    codes = system.generate(batch).codes
    for stage, levels in ((system.coarse, slice(0, 2)), (system.fine, slice(2, 4))):
        predicted = stage.eval().predict_tokens(batch._replace(codes=codes))
        assert set(predicted.level.tolist()) == set(range(4)[levels])
        assert torch.equal(predicted.logits.argmax(-1), predicted.target)


def test_a_row_depends_neither_on_its_batch_nor_on_padding(make_batch):
    system, batch = make_system(), make_batch(lengths=(30, 20, 9, 14), prompt=(0, 7, 0, 14))
    together = system.generate(batch).codes
    for b, n in enumerate(batch.lengths.tolist()):
        one = slice(b, b + 1)
        alone = batch._replace(
            ids=batch.ids[one], semantic=batch.semantic[one, :n], codes=batch.codes[one, :, :n],
            lengths=batch.lengths[one], prompt_frames=batch.prompt_frames[one], seeds=batch.seeds[one],
        )  # fmt: skip
        assert torch.equal(system.generate(alone).codes[0], together[b, :, :n])
        assert not together[b, :, n:].any()


def test_memory_can_be_bounded_without_another_result(make_batch):
    system, batch = make_system(), make_batch()
    expected = system.generate(batch).codes
    system.chunks_at_once = 2
    assert torch.equal(system.generate(batch).codes, expected)


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


def test_each_seed_and_each_prompt_gives_another_reading(make_batch):
    system, batch = make_system(), make_batch()
    base = system.generate(batch).codes
    assert not torch.equal(system.generate(batch._replace(seeds=batch.seeds + 1)).codes, base)
    prompted = system.generate(batch._replace(prompt_frames=torch.tensor([4, 4, 4]))).codes
    assert not torch.equal(prompted[:, :, 4:9], base[:, :, 4:9])


def test_a_later_chunk_sees_its_three_frames_of_prompt_and_nothing_before(make_batch):
    """Greedy: frames 10 to 16 of a row follow from its frames 7 to 9, chunk by chunk of 10."""
    system, batch = make_system((0.0, 0.0)), make_batch(lengths=(17,), prompt=(10,))
    base = system.generate(batch).codes[:, :2, 10:]
    for frame, matters in ((6, False), (7, True)):
        codes = batch.codes.clone()
        codes[0, :2, frame] = (codes[0, :2, frame] + 7) % 64
        assert torch.equal(system.generate(batch._replace(codes=codes)).codes[:, :2, 10:], base) != matters


def test_small_stages_learn_the_synthetic_language(make_trainer):
    tokens, stages = {"codebook_size": 16, "semantic_vocab_size": 8}, []
    data = SyntheticTokenDataModule(**tokens, num_speakers=4, max_seconds=1.5, batch_frames=400, num_predict=6)
    for stage, network, chunk, steps in (
        (AudioLMCoarse, CoarseNetwork, 50, 180),
        (AudioLMFine, FineNetwork, 25, 120),
    ):
        module = stage(
            network(**(SIZES | tokens)),
            lambda groups: torch.optim.AdamW(groups, lr=6e-3, betas=(0.9, 0.98)),
            lambda optimizer, steps=steps: WarmupCosine(optimizer, 20, steps, 0.05),
            chunk_frames=chunk,
        )
        make_trainer(max_steps=steps).fit(module, data)
        stages.append(module)
    system, language, agreements, said = AudioLM(*stages, overlap_frames=15), data.language, [], []
    for b in data.predict_dataloader():
        codes = system.generate(b).codes.numpy()
        for i, n in enumerate(b.lengths.tolist()):
            agreements.append(language.level_agreement(codes[i, :, :n]))
            said.append((language.speakers_heard(codes[i, :, :n], b.semantic[i, :n].numpy()) >= 0).mean())
    assert (sum(agreements) / len(agreements)).min() > 0.8, "chance is 1 in 16"
    assert sum(said) / len(said) > 0.8, "chance is 1 in 4"


def test_two_checkpoints_make_one_system(make_trainer, tmp_path):
    data = SyntheticTokenDataModule(num_predict=2, max_seconds=1.0, prompt_seconds=0.0)
    paths = {}
    for name, stage in (
        ("coarse", AudioLMCoarse(CoarseNetwork(**SIZES))),
        ("fine", AudioLMFine(FineNetwork(**SIZES))),
    ):
        trainer = make_trainer(max_steps=1)
        trainer.fit(stage, data)
        paths[name] = str(tmp_path / f"{name}.ckpt")
        trainer.save_checkpoint(paths[name])

    def system(coarse, fine):
        return make_system(coarse_checkpoint=coarse, fine_checkpoint=fine)

    assert [system(*pair).has_weights for pair in ((None, None), (paths["coarse"], None))] == [False, False]
    loaded = system(paths["coarse"], paths["fine"])
    assert loaded.has_weights
    out = make_trainer().predict(loaded, data)[0]
    assert isinstance(out, GeneratedBatch)
    saved = torch.load(paths["fine"], weights_only=True)["state_dict"]["network.head_bias"]
    assert torch.equal(loaded.fine.network.head_bias, saved)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of AudioLMFine at nowhere\.ckpt: train that stage"):
        make_trainer().predict(system(paths["coarse"], "nowhere.ckpt"), data)
    with pytest.raises(ValueError, match="does not hold the weights of AudioLMFine"):
        make_trainer().predict(system(None, paths["coarse"]), data)
    with pytest.raises(ValueError, match="trained on tokens of the codec"):
        make_trainer().predict(system(paths["coarse"], paths["fine"]), SyntheticTokenDataModule(seed=1))


def test_a_token_set_that_does_not_fit_is_refused_with_both_values(make_trainer):
    stage = AudioLMCoarse(CoarseNetwork(**(SIZES | {"codebook_size": 7})))
    with pytest.raises(ValueError, match="token set has codebook_size=64, the network codebook_size=7"):
        make_trainer(fast_dev_run=True).fit(stage, SyntheticTokenDataModule())


def test_the_system_is_not_trained_as_one(make_trainer):
    with pytest.raises(TypeError, match="fit AudioLMCoarse and AudioLMFine on their own"):
        make_system().configure_optimizers()


def test_stages_must_fit_each_other():
    coarse = AudioLMCoarse(CoarseNetwork(**SIZES))
    with pytest.raises(ValueError, match="makes 2 levels, the fine stage wants 3"):
        AudioLM(coarse, AudioLMFine(FineNetwork(**(SIZES | {"coarse_levels": 3}))))
    with pytest.raises(ValueError, match=r"overlap_frames \(500\)"):
        AudioLM(coarse, AudioLMFine(FineNetwork(**SIZES)), overlap_frames=500)


def test_validation_is_repeatable_and_by_level(make_trainer):
    module = AudioLMFine(FineNetwork(**SIZES))
    found = [
        make_trainer(limit_val_batches=1).validate(module, SyntheticTokenDataModule(), verbose=False)[0]
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert {"val/loss", "val/level_02/accuracy", "val/level_03/accuracy"} <= found[0].keys()
    assert "val/level_00/accuracy" not in found[0]


def test_the_settings_of_sampling_are_told():
    told = json.loads(json.dumps(make_system((0.8, 0.0)).sampling_settings))
    assert told["coarse"] == {"name": "CategoricalSampling", "temperature": 0.8, "top_k": 0, "top_p": 1.0}
    assert told["fine"]["temperature"] == 0.0
    assert told["overlap_frames"] == 3
