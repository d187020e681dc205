"""The classifier of real, reconstructed and generated speech."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from callbacks.scorer_exporter import ScorerExporter
from modules.evaluation import Detection, DetectionTraining, EvaluationBatch, PooledConformer, ScorerUnavailableError
from modules.evaluation.detection import balanced_loss, class_of, crops_of
from modules.semantic import LogMelFeatures

RATE = 16_000


def network(output_dim=3):
    return PooledConformer(
        LogMelFeatures(num_mels=16, context=0, normalize=False), output_dim, dim=16, num_heads=2, dropout=0.0
    )


def sound(system, seed, seconds=5.0):
    """Noise; reconstructions are dull, and systems hum."""
    noise = torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    if system != "original":
        noise = torch.nn.functional.avg_pool1d(noise[None], 5, 1, 2)[0]
    if system == "soundstorm":
        # On and off, as speech is.
        time = torch.arange(len(noise)) / RATE
        noise = noise + 2 * torch.sin(2 * math.pi * 440 * time) * (torch.sin(2 * math.pi * 4 * time) > 0)
    return 0.1 * noise


def batch_of(make_item, seeds, seconds=5.0):
    systems = ("original", "reconstruction", "soundstorm")
    conditions = ("reference", "reference", "prompted")
    return EvaluationBatch(
        [
            make_item(sound(system, seed, seconds), id=str(seed), system=system, condition=condition)
            for seed in seeds
            for system, condition in zip(systems, conditions, strict=True)
        ],
        [],
    )


def trainer(**values):
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **values,
    )  # fmt: skip


def test_learns_to_tell_the_classes_apart_and_says_how_well(tmp_path, make_item):
    model = DetectionTraining(network(), lambda p: torch.optim.Adam(p, lr=5e-3), crop_seconds=1.0)
    batches = [batch_of(make_item, range(first, first + 4)) for first in (0, 4)]
    trainer(max_epochs=15).fit(model, DataLoader(batches, batch_size=None))
    loader = DataLoader([batch_of(make_item, range(50, 56))], batch_size=None)
    [found] = trainer(callbacks=[ScorerExporter(str(tmp_path))]).test(model, loader, verbose=False)
    assert found["test/accuracy"] == 100
    assert found["test/accuracy_generated"] == 100
    assert found["test/eer"] == found["test/eer_generated"] == 0
    assert found["test/unjudged"] == 0
    scorer = Detection(str(tmp_path), crop_seconds=1.0)  # what was tested
    scorer.load()
    taken = [scorer.score(item).values for item in batch_of(make_item, [99]).items]
    assert [values["taken_for"] for values in taken] == ["real", "reconstructed", "generated"]
    assert [values["taken_for_generated"] for values in taken] == [0, 0, 1]


def test_a_guess_errs_as_often_as_it_is_right(make_item):
    model = DetectionTraining(network(), crop_seconds=1.0)
    torch.nn.init.zeros_(model.network.head.weight)
    torch.nn.init.zeros_(model.network.head.bias)
    loader = DataLoader([batch_of(make_item, range(4))], batch_size=None)
    [found] = trainer().test(model, loader, verbose=False)
    assert found["test/eer"] == pytest.approx(50)
    assert found["test/accuracy"] == pytest.approx(100 / 3)


def test_rates_of_a_class_without_clips_are_left_out(make_item):
    batch = batch_of(make_item, range(4))
    generated = [item for item in batch.items if item.condition == "prompted"]
    without = [item for item in batch.items if item.condition != "prompted"]
    model = DetectionTraining(network(), crop_seconds=1.0)
    for items in (generated, without):
        loader = DataLoader([EvaluationBatch(items, [])], batch_size=None)
        [found] = trainer().test(model, loader, verbose=False)
        assert set(found) == {"test/accuracy", "test/unjudged"}


def test_only_what_follows_the_prompt_is_judged_at_one_level(make_item):
    audio = torch.cat([torch.full((3 * RATE,), 0.9), 0.3 * torch.ones(2 * RATE + 5)])
    crops = crops_of(make_item(audio), RATE)
    assert [len(crop) for crop in crops] == [RATE, RATE]
    for crop in crops:
        torch.testing.assert_close(crop, torch.full((RATE,), 0.05))


def test_clips_that_end_with_the_prompt_are_counted_not_judged(tmp_path, make_item):
    batch = batch_of(make_item, [1], seconds=3.4)
    model = DetectionTraining(network(), crop_seconds=1.0)
    [found] = trainer().test(model, DataLoader([batch], batch_size=None), verbose=False)
    assert found == {"test/unjudged": 3}
    model.network.save_pretrained(tmp_path)
    scorer = Detection(str(tmp_path))
    scorer.load()
    scores = scorer.score(batch.items[0])
    assert math.isnan(scores.values["taken_for_generated"])
    assert scores.problems == {"detected": "less than 0.5 s after the prompt"}


def test_classes_weigh_the_same_however_many_clips_they_have():
    logits = torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [2.0, 0, 0], [2.0, 0, 0]])
    few = balanced_loss(logits[:2], torch.tensor([0, 2]))
    many = balanced_loss(logits, torch.tensor([0, 2, 2, 2]))
    torch.testing.assert_close(many, few)


def test_every_codec_reconstructs_and_every_other_system_generates(make_item):
    systems = {"original": "reference", "reconstruction": "reference", "lyra": "reference", "valle": "unprompted"}
    found = [class_of(make_item(system=system, condition=condition)) for system, condition in systems.items()]
    assert found == [0, 1, 1, 2]


def test_a_network_with_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="output_dim=4, 3 classes need 3"):
        DetectionTraining(network(4))


def test_without_a_folder_it_is_unavailable_and_says_how_to_make_one(tmp_path):
    with pytest.raises(ScorerUnavailableError, match="train one with"):
        Detection(str(tmp_path / "nowhere")).load()
