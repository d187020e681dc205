"""Stages through the command line, and the traps of LightningCLI."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from datamodules.synthetic import SyntheticTokenDataModule
from modules.soundstorm import SoundStormNetwork
from modules.soundstorm.pretrained import TrainedNetwork, save_network
from pipeline.cli import COMMANDS, console, main

SIZES = {"num_quantizers": 2, "codebook_size": 16, "semantic_vocab_size": 8}
EMA = {
    "class_path": "lightning.pytorch.callbacks.WeightAveraging",
    "init_args": {
        "use_buffers": False,
        "multi_avg_fn": {
            "class_path": "torch.optim.swa_utils.get_ema_multi_avg_fn",
            "init_args": {"decay": 0.9},
        },
    },
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A tiny run on synthetic tokens, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    logger = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "runs", "name": "tiny", "version": ""},
    }
    checkpoint = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"save_last": True, "every_n_train_steps": 2},
    }
    content = {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 4,
            "max_epochs": -1,
            "limit_val_batches": 1,
            "use_distributed_sampler": False,
            "enable_progress_bar": False,
            "gradient_clip_val": 1.0,
            "default_root_dir": "runs",
            "logger": logger,
            "callbacks": [checkpoint],
        },
        "model": {
            "class_path": "modules.soundstorm.SoundStorm",
            "init_args": {
                "network": {
                    "class_path": "modules.soundstorm.SoundStormNetwork",
                    "init_args": {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "dropout": 0.0, **SIZES},
                },
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
                "lr_scheduler": {"class_path": "modules.warmup.WarmupCosine", "init_args": {"warmup_steps": 2}},
                "schedule": {
                    "class_path": "modules.soundstorm.DecodingSchedule",
                    "init_args": {"iterations": [4, 1]},
                },
            },
        },
        "data": {
            "class_path": "datamodules.synthetic.SyntheticTokenDataModule",
            "init_args": {
                "num_train": 12,
                "num_validation": 4,
                "num_predict": 3,
                "batch_frames": 400,
                "max_seconds": 2.0,
                **SIZES,
            },
        },
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def edit(path: Path, change) -> Path:
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return path


def test_fit_validate_predict_and_the_record_beside_the_checkpoint(config):
    main(["fit", "-c", str(config)])
    last = Path("runs/tiny/checkpoints/last.ckpt")
    assert last.exists()
    record = yaml.safe_load(Path("runs/tiny/config.yaml").read_text())
    assert record["model"]["init_args"]["network"]["init_args"]["dim"] == 16
    main(["validate", "-c", str(config), "--ckpt_path", str(last)])
    main(["predict", "-c", str(config), "--ckpt_path", str(last)])


def test_a_second_fit_into_the_same_folder_is_not_refused(config):
    for _ in range(2):
        main(["fit", "-c", str(config), "--trainer.max_steps", "1"])


def test_a_checkpoint_never_overrides_the_command_line(config, monkeypatch):
    from modules.soundstorm import SoundStorm

    main(["fit", "-c", str(config)])
    used = []
    monkeypatch.setattr(
        SoundStorm,
        "predict_step",
        lambda self, batch, batch_idx, dataloader_idx=0: used.append(self.schedule.iterations),
    )
    more = "--model.init_args.schedule.init_args.iterations=[9, 2]"
    main(["predict", "-c", str(config), "--ckpt_path", "runs/tiny/checkpoints/last.ckpt", more])
    assert {tuple(i) for i in used} == {(9, 2)}


def test_a_checkpoint_holds_plain_values_only(config):
    main(["fit", "-c", str(config)])
    checkpoint = torch.load("runs/tiny/checkpoints/last.ckpt", weights_only=True)
    assert "hyper_parameters" not in checkpoint


def test_every_epoch_has_an_order_of_its_own(config, monkeypatch):
    from modules.soundstorm import SoundStorm

    seen: dict[int, list[str]] = {}
    plain = SoundStorm.training_step

    def step(self, batch, batch_idx):
        seen.setdefault(self.current_epoch, []).extend(zip(batch.ids, batch.seeds.tolist(), strict=True))
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(SoundStorm, "training_step", step)
    main(["fit", "-c", str(config), "--trainer.max_steps=-1", "--trainer.max_epochs=2"])
    first, second = ([id_ for id_, _ in seen[epoch]] for epoch in (0, 1))
    assert sorted(first) == sorted(second)
    assert not {seed for _, seed in seen[0]} & {seed for _, seed in seen[1]}, "windows and masks must be drawn anew"


def test_ema_weights_are_what_the_checkpoint_gives_to_later_stages(config):
    edit(config, lambda c: c["trainer"]["callbacks"].append(EMA))
    main(["fit", "-c", str(config)])
    checkpoint = torch.load("runs/tiny/checkpoints/last.ckpt", weights_only=True)
    average, live = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert any(not torch.equal(average[name], live[name]) for name in average)
    main(["predict", "-c", str(config), "--ckpt_path", "runs/tiny/checkpoints/last.ckpt"])


FSDP2 = {
    "class_path": "lightning.pytorch.strategies.ModelParallelStrategy",
    "init_args": {"data_parallel_size": 2, "tensor_parallel_size": 1, "save_distributed_checkpoint": False},
}


@pytest.mark.parametrize(
    ("strategy", "averaging"),
    [pytest.param("ddp", [EMA], id="ddp with EMA"), pytest.param(FSDP2, [], id="fsdp2", marks=pytest.mark.slow)],
)
def test_two_ranks_train_as_one_rank_with_the_joint_batch(run_script, config, tmp_path, strategy, averaging):
    """The gradients of the first step are those of one process that sees both batches."""
    edit(config, lambda c: c["trainer"].update(strategy=strategy))
    edit(config, lambda c: c["trainer"]["callbacks"].extend([*averaging, {"class_path": "ddp_gradients.Recorder"}]))
    run = run_script(
        Path(__file__).with_name("ddp_gradients.py"), "fit", "-c", config,
        "--trainer.devices=2", "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path}",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "gradients agree" in run.stdout


def test_report_is_a_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    assert stop.value.code == 0
    assert "results" in capsys.readouterr().out


def test_help_names_every_command(capsys):
    main(["--help"])
    help = capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict", *COMMANDS):
        assert f"\n  {command} " in help


def test_an_unknown_command_is_answered_with_all_that_there_are():
    with pytest.raises(ValueError, match=r"no command 'frobnicate': fit, .*generate"):
        main(["frobnicate"])


def test_published_takes_no_unknown_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["published", "--foo"])
    assert stop.value.code not in (0, None)
    assert "--foo" in capsys.readouterr().err


def test_a_misspelt_option_is_named_without_a_screen_of_usage(config, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "-c", str(config), "--trainer.max_stebs", "3"])
    shown = capsys.readouterr().err
    assert "trainer.max_stebs" in shown
    assert len(shown.splitlines()) < 12


@pytest.mark.parametrize("command", ["validate", "predict"])
def test_random_weights_are_not_used(config, command):
    with pytest.raises(ValueError, match=f"SoundStorm has random weights: .*{command} .*--ckpt_path"):
        main([command, "-c", str(config)])


def test_a_published_network_needs_no_checkpoint_but_the_tokens_it_knows(config):
    network = SoundStormNetwork(dim=16, num_layers=1, num_heads=2, ffn_dim=32, **SIZES)
    card = SyntheticTokenDataModule(**SIZES).card
    tokens = {"codec": dict(card.codec), "semantic": dict(card.semantic)}
    folder = {"class_path": "modules.soundstorm.pretrained.pretrained_network", "init_args": {"folder": "network"}}
    edit(config, lambda content: content["model"]["init_args"].update(network=folder))
    save_network(TrainedNetwork(network, tokens), "network")
    main(["predict", "-c", str(config)])
    save_network(TrainedNetwork(network, tokens | {"semantic": {"name": "another"}}), "network")
    for command in ("predict", "validate"):
        with pytest.raises(ValueError, match=r"network was trained on tokens of the semantic .*another"):
            main([command, "-c", str(config)])
    # Training goes on with other tokens, which from then on are the network's own.
    main(["fit", "-c", str(config)])
    main(["predict", "-c", str(config), "--ckpt_path", "runs/tiny/checkpoints/last.ckpt"])


def test_the_remedy_is_said_and_not_only_the_cause(config, monkeypatch):
    def full(*args, **kwargs):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise OSError("the checkpoint cannot be written: make room") from error

    monkeypatch.setattr("callbacks.checkpoint_io.AtomicCheckpointIO.save_checkpoint", full)
    monkeypatch.setattr(sys, "argv", ["soundstorm", "fit", "-c", str(config)])
    monkeypatch.delenv("SOUNDSTORM_DEBUG", raising=False)
    with pytest.raises(SystemExit, match="the checkpoint cannot be written: make room"):
        console()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data=datamodules.tokens.TokenDataModule", "--data.init_args.token_sets=nowhere"], "nowhere"),
        (["--model.init_args.network.init_args.codebook_size=99"], "token set has codebook_size=16, the network"),
        (["--model.init_args.schedule.init_args.temperature=-1"], "temperature=-1.0 must be positive"),
    ],
)
def test_what_is_wrong_with_the_input_is_said_without_a_traceback(config, monkeypatch, capsys, arguments, named):
    monkeypatch.setattr(sys, "argv", ["soundstorm", "fit", "-c", str(config), *arguments])
    monkeypatch.delenv("SOUNDSTORM_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        console()
    assert named in f"{stop.value.code} {capsys.readouterr().err}"
    monkeypatch.setenv("SOUNDSTORM_DEBUG", "1")
    with pytest.raises((ValueError, OSError, SystemExit)):
        console()
