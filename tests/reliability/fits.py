"""Runs `soundstorm fit` in processes that may be killed; imports once and forks, as importing takes most of the time.

``python fits.py FOLDER CASE...`` writes under FOLDER what the tests look at; see CASES.
"""

import json
import os
import random
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch
import yaml
from lightning.pytorch import Callback

# So that the forked processes need not import them.
import callbacks.preemption
import callbacks.step_seed  # noqa: F401
import datamodules.synthetic  # noqa: F401
import modules.soundstorm  # noqa: F401
from pipeline.cli import console

SIZES = {"num_quantizers": 2, "codebook_size": 16, "semantic_vocab_size": 8}
STEPS = 12
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
MUON = {"class_path": "modules.optimizers.MuonWithAdamW"}


class Killer(Callback):
    """Ends the process at a batch, as a power cut would or as a scheduler does, and logs what every step saw."""

    def __init__(self, file: str, step: int = -1, hook: str = "start", number: int = 9, rank: int = 0):
        self.file, self.step, self.hook, self.number, self.rank = file, step, hook, number, rank

    def strike(self, trainer, hook):
        if hook == self.hook and trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.strike(trainer, "start")
        with open(f"{self.file}.{trainer.global_rank}", "a") as log:
            log.write(json.dumps([trainer.global_step, batch.ids, batch.seeds.tolist()]) + "\n")

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.strike(trainer, "step")

    def on_validation_start(self, trainer, pl_module):
        self.strike(trainer, "validation")


def configuration(folder, run, optimizer, workers, killer, accumulate=1):
    init = dict(zip(("step", "hook", "number", "rank"), killer, strict=False))
    return {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_steps": STEPS,
            "max_epochs": -1,
            "accumulate_grad_batches": accumulate,
            "val_check_interval": 5,
            "check_val_every_n_epoch": None,
            "use_distributed_sampler": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "gradient_clip_val": 1.0,
            "log_every_n_steps": 2,
            "default_root_dir": str(folder / run),
            "logger": False,
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {
                        "dirpath": str(folder / run),
                        "filename": "{step}",
                        "every_n_train_steps": 3,
                        "save_last": "link",
                    },
                },
                {"class_path": "callbacks.preemption.Preemption", "init_args": {"every_n_batches": 2}},
                {
                    "class_path": "lightning.pytorch.callbacks.WeightAveraging",
                    "init_args": {
                        "use_buffers": False,
                        "multi_avg_fn": {
                            "class_path": "torch.optim.swa_utils.get_ema_multi_avg_fn",
                            "init_args": {"decay": 0.9},
                        },
                    },
                },
                {"class_path": "callbacks.step_seed.StepSeed"},
                {"class_path": "fits.Killer", "init_args": {"file": str(folder / f"{run}.log"), **init}},
            ],
        },
        "model": {
            "class_path": "modules.soundstorm.SoundStorm",
            "init_args": {
                "network": {
                    "class_path": "modules.soundstorm.SoundStormNetwork",
                    "init_args": {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "dropout": 0.2, **SIZES},
                },
                "optimizer": optimizer,
                "lr_scheduler": {
                    "class_path": "modules.warmup.WarmupCosine",
                    "init_args": {"warmup_steps": 4, "total_steps": STEPS},
                },
            },
        },
        "data": {
            "class_path": "datamodules.synthetic.SyntheticTokenDataModule",
            "init_args": {
                "num_train": 20,  # five batches an epoch on two ranks, so that checkpoints fall inside epochs
                "num_validation": 4,
                "batch_frames": 100,
                "max_seconds": 2.0,
                "num_workers": workers,
                **SIZES,
            },
        },
    }


def fit(folder, run, ranks=1, resume=None, **settings):
    """Run a fit in forked processes; return their exit codes, negative for signals."""
    config = folder / f"{run}.yaml"
    config.write_text(yaml.safe_dump(configuration(folder, run, **settings)))
    arguments = ["soundstorm", "fit", "-c", str(config), *(["--ckpt_path", str(resume)] if resume else [])]
    if ranks > 1:
        arguments += ["--trainer.devices", str(ranks), "--trainer.strategy", "ddp"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(ranks):
        if (child := os.fork()) == 0:
            status = 1
            try:
                os.environ["PL_GLOBAL_SEED"] = "0"
                if ranks > 1:
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank)}
                sys.argv = arguments
                console()
                status = 0
            except SystemExit as stop:
                if isinstance(stop.code, str):
                    print(stop.code, file=sys.stderr)
                status = stop.code if isinstance(stop.code, int) else bool(stop.code)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    codes = []
    for child in children:
        if any(codes):  # as a launcher does: where one rank dies, the others wait for it forever
            done, status = os.waitpid(child, os.WNOHANG)
            if not done and codes[-1] < 0:
                os.kill(child, signal.SIGKILL)
            if not done:
                _, status = os.waitpid(child, 0)
        else:
            _, status = os.waitpid(child, 0)
        codes.append(os.waitstatus_to_exitcode(status))
    return codes


def killed_and_resumed(folder, kills=1, **settings):
    """Run once without interruption, and once killed at random points and started again from the last checkpoint."""
    codes = {"whole": fit(folder, "whole", killer=(), **settings)}
    random_point = random.Random(str(settings))
    resume, done = None, 0
    for kill in range(kills):
        done = random_point.randint(max(done + 1, 4), STEPS - 3 * (kills - kill - 1) - 1)
        killer = (done, random_point.choice(("start", "step")))
        codes[f"kill{kill}"] = fit(folder, "cut", killer=killer, resume=resume, **settings)
        resume = "last"
    codes["resumed"] = fit(folder, "cut", killer=(), resume="last", **settings)
    return codes


def stopped_and_resumed(folder, **settings):
    """The same with SIGTERM, which asks a process to stop."""
    codes = {"whole": fit(folder, "whole", killer=(), **settings)}
    codes["stopped"] = fit(folder, "cut", killer=(4, "start", int(signal.SIGTERM)), **settings)
    codes["saved"] = sorted(file.name for file in (folder / "cut").glob("*preempted*"))
    codes["resumed"] = fit(folder, "cut", killer=(), resume="last", **settings)
    return codes


CASES = {
    "adamw": (killed_and_resumed, {"optimizer": ADAMW, "workers": 0, "kills": 2}),
    "muon": (killed_and_resumed, {"optimizer": MUON, "workers": 0}),
    "workers": (killed_and_resumed, {"optimizer": MUON, "workers": 2}),
    "ranks": (killed_and_resumed, {"optimizer": MUON, "workers": 0, "ranks": 2}),
    "ranks-workers": (killed_and_resumed, {"optimizer": ADAMW, "workers": 2, "ranks": 2}),
    "accumulate": (killed_and_resumed, {"optimizer": ADAMW, "workers": 0, "accumulate": 2, "kills": 2}),
    "term": (stopped_and_resumed, {"optimizer": ADAMW, "workers": 0, "accumulate": 2}),
    "term-ranks": (stopped_and_resumed, {"optimizer": ADAMW, "workers": 0, "ranks": 2}),
}

if __name__ == "__main__":
    sys.modules["fits"] = sys.modules["__main__"]  # the configurations name it
    torch.set_num_threads(1)
    for case in sys.argv[2:]:
        folder = Path(sys.argv[1]) / case
        folder.mkdir()
        run, settings = CASES[case]
        (folder / "codes.json").write_text(json.dumps(run(folder, **settings)))
