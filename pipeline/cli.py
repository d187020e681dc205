"""The command line: one LightningCLI for every stage, and the report."""

import logging
import os
import sys
import warnings
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningCLI


class StageCLI(LightningCLI):
    """A LightningCLI that leaves checkpoints to the trainer."""

    def _parse_ckpt_path(self) -> None:
        """Do not read a checkpoint for hyper-parameters: there are none, and reading it twice takes time."""


def make_cli(args: ArgsType = None, run: bool = True) -> LightningCLI:
    """Parse a stage's configuration, build what it names, and run it.

    Each stage is another pair of LightningModule and LightningDataModule, chosen by the ``class_path`` in its YAML.

    Args:
        args: Command-line arguments; those of the process if None.
        run: Whether ``args`` begin with a subcommand, which is run; otherwise everything is built and nothing run.

    Returns:
        The command line with the trainer, model and datamodule it built.
    """
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


def main(args: list[str] | None = None) -> None:
    """Run ``fit``, ``validate``, ``test``, ``predict``, ``report``, ``published`` or ``generate``.

    Args:
        args: Command-line arguments; those of the process if None.
    """
    arguments = sys.argv[1:] if args is None else args
    _check_files(arguments)
    _silence_noise()
    if arguments[:1] == ["report"]:
        from pipeline.report import report  # plotting takes long to import, and no other command plots

        parser = ArgumentParser(prog="soundstorm report", description="Turn results into a table, figures and a page.")
        parser.add_argument("results", nargs="+", type=Path, help="Folders that `soundstorm test` wrote.")
        parser.add_function_arguments(report, skip={"results"})
        report(**vars(parser.parse_args(arguments[1:])))
    elif arguments[:1] == ["published"]:
        from pipeline.paper import main as published

        published()
    elif arguments[:1] == ["generate"]:
        from pipeline.generate import generate

        parser = ArgumentParser(prog="soundstorm generate", description="Say what a recording says in another voice.")
        parser.add_function_arguments(generate)
        generate(**vars(parser.parse_args(arguments[1:])))
    else:
        make_cli(args)


def _silence_noise() -> None:
    """Keep what no user can act on out of sight: Lightning's advertisements and its own use of what torch retires."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "\N{ELECTRIC LIGHT BULB} Tip" not in record.getMessage()


def _check_files(arguments: list[str]) -> None:
    """Name the configuration file that is no YAML; the parser would not say which.

    Raises:
        ValueError: A file is none.
    """
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, attached = option.partition("=")
        file = Path(attached or value)
        if name in ("-c", "--config") and file.is_file():
            try:
                yaml.safe_load(file.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ValueError(f"{file} is no YAML ({' '.join(str(error).split())})") from None


def console() -> None:
    """Run :func:`main` for the console script: what is wrong with the input is said in a line, not in a traceback."""
    try:
        main()
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("SOUNDSTORM_DEBUG"):
            raise
        # What a constructor found wrong comes wrapped in the parser's list of all types that it tried.
        while isinstance(error.__cause__, (ValueError, TypeError, OSError)):
            error = error.__cause__
        sys.exit(f"soundstorm: {error}\n(SOUNDSTORM_DEBUG=1 shows where)")
