"""The command line: one LightningCLI for every stage, and the report."""

import sys

from jsonargparse import auto_cli
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningCLI


def main(args: ArgsType = None) -> None:
    """Run ``fit``, ``validate``, ``test``, ``predict`` or ``report``.

    Each stage is another pair of LightningModule and LightningDataModule, chosen by the ``class_path`` in its YAML.

    Args:
        args: Command-line arguments; those of the process if None.
    """
    arguments = sys.argv[1:] if args is None else args
    if isinstance(arguments, list) and arguments[:1] == ["report"]:
        from pipeline.report import report  # plotting takes long to import, and no other command plots

        auto_cli(report, args=arguments[1:])
        return
    LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        # A checkpoint must never override what YAML and command line say.
        load_from_checkpoint_support=False,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        args=args,
    )
