"""What is timed and counted."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer

import callbacks.speed_writer as module
from benchmarks.systems import CARD, systems
from callbacks.speed_writer import SpeedWriter, random_batch
from datamodules.synthetic import SyntheticTokenDataModule
from modules.batches import GeneratedBatch
from pipeline.timings import read_timings, sum_up

ROOT = Path(__file__).parents[2]


class Clock:
    """Time that passes only where somebody works."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Codec(torch.nn.Module):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def decode(self, codes):
        self.clock.now += 0.5
        return torch.zeros(len(codes), codes.shape[2] * 320)


class Network(torch.nn.Module):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def forward(self, codes):
        self.clock.now += 1.0
        return codes


class Generating(LightningModule):
    """Three passes of one second each; the first run ever takes a minute more."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.network = Network(clock)
        self.batches = []

    def coarse(self, codes):
        return self.network(codes)

    def predict_step(self, batch, batch_idx):
        if not self.batches:
            self.clock.now += 60
        self.batches.append(batch)
        codes = self.network(self.network(self.coarse(batch.codes)))
        return GeneratedBatch.of(batch, codes)


def measure(tmp_path, clock, **values):
    model = Generating(clock)
    options = {"system": "audiolm", "durations": [2.0, 4.0], "repeats": 3} | values
    writer = SpeedWriter(Codec(clock), tmp_path, **options)
    trainer = Trainer(accelerator="cpu", logger=False, limit_predict_batches=1, enable_progress_bar=False,
                      enable_model_summary=False, callbacks=[writer], default_root_dir=tmp_path)  # fmt: skip
    trainer.predict(model, SyntheticTokenDataModule(), return_predictions=False)
    return model


def test_stages_passes_and_codec_are_told_apart_and_the_warm_up_does_not_count(tmp_path, clock):
    model = measure(tmp_path, clock, stages={"coarse": "coarse"}, passes=["network.forward"])
    two, four = sum_up(read_timings([tmp_path]))
    assert (two.audio_seconds, two.without_codec, two.with_codec, two.passes, two.repeats) == (2.0, 3.0, 3.5, 3, 3)
    assert (two.generated_seconds, four.generated_seconds) == (1.0, 2.0)  # half of it is a prompt
    assert four.rtf_with_codec == 3.5 / 2
    stages = {t.stage: (t.seconds, t.passes) for t in read_timings([tmp_path]) if t.audio_seconds == 2}
    assert stages == {"audiolm": ([2.0] * 3, 2), "coarse": ([1.0] * 3, 1), "codec": ([0.5] * 3, 0)}
    assert [batch.codes.shape[2] for batch in model.batches[:8]] == [100] * 4 + [200] * 4
    assert "forward" not in vars(model.network)  # everything is as before


def test_a_stage_may_be_a_pass(tmp_path, clock):
    model = measure(tmp_path, clock, stages={"trunk": "network.forward"}, passes=["network.forward"], durations=[2.0])
    # What is left of the fake clock's time is nothing: such a line would be refused.
    lines = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    found = {line["stage"]: (line["seconds"][0], line["passes"]) for line in lines}
    assert found == {"audiolm": (0.0, 0), "trunk": (3.0, 3), "codec": (0.5, 0)}
    assert "forward" not in vars(model.network)


@pytest.mark.parametrize("system", ["soundstorm", "audiolm", "valle"])
def test_the_stages_of_the_files_are_methods_that_a_generation_calls(system, monkeypatch):
    stage = yaml.safe_load((ROOT / f"configs/speed/{system}.yaml").read_text())
    [callback] = stage["trainer"]["callbacks"]
    options = callback["init_args"]
    model = systems("small")[{"soundstorm": "SoundStorm", "audiolm": "AudioLM", "valle": "VALL-E"}[system]]
    spent, calls = dict.fromkeys(options["stages"], 0.0), dict.fromkeys([*options["stages"], system], 0)
    batch = random_batch(CARD, 0.08, 3.0, seed=0)
    with module._watched(model, options["stages"], options["passes"], system, spent, calls):
        generated = model.predict_step(batch, 0)
    assert generated.codes.shape == batch.codes.shape
    assert all(spent.values())
    assert calls[system] == 0  # every pass belongs to a stage
    assert all(calls[name] for name in options["stages"])


def test_other_systems_of_the_folder_are_kept_and_the_own_replaced(tmp_path, clock):
    measure(tmp_path, clock)
    measure(tmp_path, clock, system="soundstorm", durations=[2.0])
    measure(tmp_path, clock, durations=[4.0])
    assert [(speed.system, speed.audio_seconds) for speed in sum_up(read_timings([tmp_path]))] == [
        ("audiolm", 4.0),
        ("soundstorm", 2.0),
    ]
    lines = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert all("CPU" in line["device"] for line in lines)


def test_times_on_another_device_are_kept(tmp_path, clock):
    measure(tmp_path, clock)
    lines = (tmp_path / "speed.jsonl").read_text()
    elsewhere = [json.dumps(json.loads(line) | {"device": "elsewhere"}) for line in lines.splitlines()]
    (tmp_path / "speed.jsonl").write_text("".join(f"{line}\n" for line in elsewhere))
    measure(tmp_path, clock)
    devices = [speed.device for speed in sum_up(read_timings([tmp_path]))]
    assert devices.count("elsewhere") == 2
    assert len(devices) == 4


@pytest.mark.parametrize("damage", ["{", "{}", "[]"])
def test_a_damaged_file_is_named_before_anything_is_timed(tmp_path, clock, damage):
    (tmp_path / "speed.jsonl").write_text(f"{damage}\n")
    with pytest.raises(ValueError, match=r"speed\.jsonl line 1 is no timing: remove it"):
        measure(tmp_path, clock)
    assert clock.now == 0


def test_a_prompt_is_at_most_half_of_the_utterance():
    card = SyntheticTokenDataModule().card
    assert random_batch(card, 2.0, 3.0, 0).prompt_frames.tolist() == [50]
    assert random_batch(card, 30.0, 3.0, 0).prompt_frames.tolist() == [150]


def test_no_repeat_is_refused():
    with pytest.raises(ValueError, match="there have to be a repeat"):
        SpeedWriter(None, "folder", "soundstorm", repeats=0)


def test_what_speaks_from_soft_tokens_is_timed_on_them():
    soft = dataclasses.replace(CARD, soft_semantic={"num_tokens": 3, "sharpness": 1.0})
    plain, batch = random_batch(CARD, 1.0, 0.5, seed=0), random_batch(soft, 1.0, 0.5, seed=0)
    assert plain.soft_semantic is None
    assert batch.soft_semantic.tokens.shape == (*batch.semantic.shape, 3)
    torch.testing.assert_close(batch.soft_semantic.probabilities.sum(-1), torch.ones(batch.semantic.shape))
    assert torch.equal(batch.codes, plain.codes)
