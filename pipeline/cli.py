"""The command line: one LightningCLI for every stage, and the report."""

import os
import sys
from pathlib import Path

from jsonargparse import ArgumentParser
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningCLI


def make_cli(args: ArgsType = None, run: bool = True) -> LightningCLI:
    """Parse a stage's configuration, build what it names, and run it.

    Each stage is another pair of LightningModule and LightningDataModule, chosen by the ``class_path`` in its YAML.

    Args:
        args: Command-line arguments; those of the process if None.
        run: Whether ``args`` begin with a subcommand, which is run; otherwise everything is built and nothing run.

    Returns:
        The command line with the trainer, model and datamodule it built.
    """
    return LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        # A checkpoint must never override what YAML and command line say.
        load_from_checkpoint_support=False,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        run=run,
        args=args,
    )


def main(args: list[str] | None = None) -> None:
    """Run ``fit``, ``validate``, ``test``, ``predict``, ``report`` or ``generate``.

    Args:
        args: Command-line arguments; those of the process if None.
    """
    arguments = sys.argv[1:] if args is None else args
    if arguments[:1] == ["report"]:
        from pipeline.report import report  # plotting takes long to import, and no other command plots

        parser = ArgumentParser(prog="soundstorm report", description="Turn results into a table, figures and a page.")
        parser.add_argument("results", nargs="+", type=Path, help="Folders that `soundstorm test` wrote.")
        parser.add_function_arguments(report, skip={"results"})
        report(**vars(parser.parse_args(arguments[1:])))
    elif arguments[:1] == ["generate"]:
        from pipeline.generate import generate

        parser = ArgumentParser(prog="soundstorm generate", description="Say what a recording says in another voice.")
        parser.add_function_arguments(generate)
        generate(**vars(parser.parse_args(arguments[1:])))
    else:
        make_cli(args)


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
