"""One LightningCLI for every stage."""

import logging
import warnings
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_warn

# The parser lists the classes that are loaded, and takes them by their short names: load those that packages put off.
import modules.codec.transformers_codecs
import modules.semantic.transformers_features  # noqa: F401
from modules.arithmetic import multiplies_bfloat16
from pipeline.process import keep_freed_memory


class StageCLI(LightningCLI):
    """A LightningCLI that leaves checkpoints to the trainer and uses no network that nobody trained."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Say how the command is used in a line: all options, which ``--help`` lists, are more than a screen."""
        return super().init_parser(usage="soundstorm <command> [-c CONFIG] [options]", **kwargs)

    def _parse_ckpt_path(self) -> None:
        """Do not read a checkpoint for hyper-parameters: there are none, and reading it twice takes time."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; where bfloat16 is slow, float32 stands in for it in mixed precision, and it is said."""
        asked = (self.config_init[self.subcommand] if self.subcommand else self.config_init)["trainer"]
        on_cpu = asked["accelerator"] == "cpu" or (
            asked["accelerator"] == "auto" and not torch.accelerator.is_available()
        )
        if on_cpu and asked["precision"] in ("bf16-mixed", "bf16") and not multiplies_bfloat16(torch.device("cpu")):
            rank_zero_warn(f"bfloat16 is slow on this CPU: precision 32-true takes the place of {asked['precision']}")
            kwargs["precision"] = "32-true"
        return super().instantiate_trainer(**kwargs)

    def before_validate(self) -> None:
        """Insist on weights."""
        self._insist_on_weights("validate")

    def before_test(self) -> None:
        """Insist on weights."""
        self._insist_on_weights("test")

    def before_predict(self) -> None:
        """Insist on weights."""
        self._insist_on_weights("predict")

    def _insist_on_weights(self, subcommand: str) -> None:
        if self.config[subcommand].ckpt_path is None and not getattr(self.model, "has_weights", True):
            raise ValueError(
                f"{type(self.model).__name__} has random weights: name the checkpoint of its training, as in "
                f"`soundstorm {subcommand} -c <config> --ckpt_path runs/<name>/checkpoints/last.ckpt`"
            )


def make_cli(args: ArgsType = None, run: bool = True) -> LightningCLI:
    """Parse a stage's configuration, build what it names, and run it.

    Each stage is another pair of LightningModule and LightningDataModule, chosen by the ``class_path`` in its YAML.

    Args:
        args: Command-line arguments; those of the process if None.
        run: Whether ``args`` begin with a subcommand, which is run; otherwise everything is built and nothing run.

    Returns:
        The command line with the trainer, model and datamodule it built.

    Raises:
        ValueError: A network is to be used that nobody trained.
    """
    keep_freed_memory()
    _silence_noise()
    return StageCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        # A checkpoint must never override what YAML and command line say.
        load_from_checkpoint_support=False,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"plugins": {"class_path": "callbacks.checkpoint_io.AtomicCheckpointIO"}},
        seed_everything_default=0,
        run=run,
        args=args,
    )


def _silence_noise() -> None:
    """Keep what no user can act on out of sight: Lightning's advertisements and its own use of what torch retires."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # A run that finds everything done already.
    warnings.filterwarnings("ignore", "Total length of .* across ranks is zero")


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "\N{ELECTRIC LIGHT BULB} Tip" not in record.getMessage()
