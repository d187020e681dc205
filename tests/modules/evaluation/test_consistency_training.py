"""The scorer of acoustic consistency, and its training."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from callbacks.scorer_exporter import ScorerExporter
from modules.batches import AudioBatch
from modules.evaluation import (
    AcousticConsistency,
    ConsistencyEmbedding,
    ConsistencyTraining,
    PooledConformer,
    ScorerUnavailableError,
)
from modules.evaluation.consistency_training import contrastive_loss, draw_crops
from modules.semantic import LogMelFeatures

RATE = 16_000


def network(**values):
    features = LogMelFeatures(num_mels=16, context=0, normalize=False)
    return PooledConformer(features, **({"output_dim": 16, "dim": 16, "num_heads": 2} | values))


def recordings(count, seconds, seed=0):
    """Noises, each with another pair of tones throughout: what is before and after a cut sounds alike."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * RATE)) / RATE
    audio = []
    for hertz in torch.linspace(200, 6000, count).tolist():
        noise = 0.01 * torch.randn(len(time), generator=generator)
        audio.append(noise + 0.2 * torch.sin(2 * math.pi * hertz * time))
    return audio


def batch_of(audio):
    names = [str(index) for index in range(len(audio))]
    return AudioBatch(names, list(audio), RATE, names, [""] * len(audio), [])


def training(net=None, **values):
    return ConsistencyTraining(net or network(), lambda p: torch.optim.Adam(p, lr=3e-3), **values)


def fit(model, batches, epochs=1, **values):
    loader = DataLoader(batches, batch_size=None)
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **values,
    )  # fmt: skip
    trainer.fit(model, loader)
    return trainer


def test_crops_lie_inside_the_recording_and_apart():
    generator = torch.Generator().manual_seed(0)
    seen = []
    for num_samples in (64_000, 64_001, 90_000, 400_000):
        for _ in range(200):
            first, second = draw_crops(num_samples, 32_000, 80_000, 8000, generator)
            assert first.start >= 0
            assert first.start + first.length <= second.start
            assert second.start + second.length <= num_samples
            assert {first.length, second.length} <= set(range(32_000, 80_001, 8000))
            seen.append((num_samples, first.length, second.length))
    of_long = [lengths for num_samples, *lengths in seen if num_samples == 400_000]
    assert {a for a, _ in of_long} == {b for _, b in of_long} == set(range(32_000, 80_001, 8000))
    of_short = [lengths for num_samples, *lengths in seen if num_samples == 90_000]
    assert any(a > b for a, b in of_short)
    assert any(a < b for a, b in of_short)


def test_a_recording_too_short_for_two_crops_gives_none():
    assert draw_crops(63_999, 32_000, 80_000, 8000, torch.Generator()) is None


def test_the_loss_is_that_of_clip():
    first, second = torch.eye(3), torch.eye(3)[[0, 2, 1]]
    loss, accuracy = contrastive_loss(first, second, torch.tensor(2.0))
    right, wrong = -math.log(math.exp(2) / (math.exp(2) + 2)), -math.log(1 / (math.exp(2) + 2))
    assert loss.item() == pytest.approx((right + 2 * wrong) / 3)
    assert accuracy.item() == pytest.approx(1 / 3)


def test_other_recordings_of_a_speaker_are_not_told_apart():
    first, second = torch.eye(3), torch.eye(3)[[0, 2, 1]]
    loss, _ = contrastive_loss(first, second, torch.tensor(2.0), torch.tensor([5, 7, 7]))
    right, wrong = -math.log(math.exp(2) / (math.exp(2) + 2)), math.log(2)
    assert loss.item() == pytest.approx((right + 2 * wrong) / 3)


def test_a_clips_vector_does_not_depend_on_the_clips_beside_it():
    net = network().eval()
    clips = [torch.randn(seconds * RATE) for seconds in (2, 3, 2)]
    with torch.no_grad():
        together = net(clips)
        for row, clip in zip(together, clips, strict=True):
            torch.testing.assert_close(net([clip])[0], row, atol=1e-5, rtol=1e-4)


def test_training_learns_to_tell_recordings_apart_and_exports_the_scorer(tmp_path, make_item):
    model = training()
    fit(model, [batch_of(recordings(8, 8.0))] * 15, callbacks=[ScorerExporter(str(tmp_path / "scorer"))])
    embedding = ConsistencyEmbedding(str(tmp_path / "scorer"))
    embedding.load()
    same = recordings(8, 9.0, seed=1)
    changing = torch.cat([same[0][: 6 * RATE], same[5][: 3 * RATE]])
    scorer = AcousticConsistency(embedding)
    steady = scorer.score(make_item(same[0])).values
    moved = scorer.score(make_item(changing)).values
    assert steady["mean"] > 0.9
    assert moved["curve"][0] > moved["curve"][1] + 0.2
    assert moved["drift"] > steady["drift"] + 0.2
    assert embedding.identity()["revision"].startswith("xxh3:")


def test_speech_features_are_neither_trained_nor_in_checkpoints():
    model = training()
    assert not [name for name in model.state_dict() if "features" in name]
    assert "network.head.weight" in model.state_dict()


def test_recordings_too_short_are_left_out_of_the_pairs():
    model = training()
    model.trainer = Trainer(accelerator="cpu", logger=False)
    short = torch.randn(3 * RATE)
    _, _, pairs = model._compare(batch_of([*recordings(3, 5.0), short]), seed=0)
    assert pairs == 3
    loss, _, pairs = model._compare(batch_of([short]), seed=0)
    assert pairs == 0
    loss.backward()  # zeros, for ranks that have pairs


def test_a_batch_at_another_rate_is_refused():
    batch = batch_of(recordings(2, 5.0))._replace(sample_rate=24_000)
    with pytest.raises(ValueError, match=r"comes at 24000 Hz.*set data\.init_args\.sample_rate=16000"):
        training()._compare(batch, seed=0)


def test_saved_and_read_back_it_embeds_the_same(tmp_path):
    net = network().eval()
    net.save_pretrained(tmp_path)
    again = PooledConformer.from_pretrained(tmp_path).eval()
    clip = torch.randn(2 * RATE)
    torch.testing.assert_close(again([clip]), net([clip]), atol=0, rtol=0)
    assert again.identity() == net.identity()


def test_other_features_than_it_was_trained_on_are_refused(tmp_path):
    network().save_pretrained(tmp_path)
    other = LogMelFeatures(num_mels=16, context=0, normalize=True)
    with pytest.raises(ValueError, match="was trained on the features"):
        PooledConformer.from_pretrained(tmp_path, other)


def test_a_folder_cannot_name_any_class(tmp_path):
    network().save_pretrained(tmp_path)
    config = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("modules.semantic.LogMelFeatures", "subprocess.Popen"))
    with pytest.raises(ValueError, match=r"names 'subprocess\.Popen', which is not of this package"):
        PooledConformer.from_pretrained(tmp_path)


def test_without_a_folder_it_is_unavailable_and_says_how_to_make_one(tmp_path):
    with pytest.raises(ScorerUnavailableError, match=r"config\.yaml\); train one with `soundstorm fit -c"):
        ConsistencyEmbedding(str(tmp_path / "nowhere")).load()


def test_an_exporter_needs_something_to_export():
    with pytest.raises(TypeError, match="ScorerExporter needs a model with a PooledConformer"):
        ScorerExporter("folder").setup(None, torch.nn.Linear(1, 1), "fit")
