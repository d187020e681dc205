"""The command line: a LightningCLI for the stages, and commands of our own around them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from pipeline.process import wait_politely

STAGES = ("fit", "validate", "test", "predict")
HELP = """usage: soundstorm <command> [options]      soundstorm <command> --help says more

stages, each described by a YAML file (soundstorm fit -c configs/soundstorm/base.yaml):
  fit        train: a codec, a semantic tokenizer, SoundStorm, a comparison system, a scorer
  validate   measure on held-out data
  test       evaluate audio, or measure on test data
  predict    tokenize a corpus, or generate audio for a token set

and
  generate   say what a recording says in another voice
  report     turn results of test into tables, figures and a page to listen to
  published  print the paper's own numbers
  curves     draw what training runs logged
"""


def main(args: list[str] | None = None) -> None:
    """Run one of the commands that :data:`HELP` lists.

    Args:
        args: Command-line arguments; those of the process if None.

    Raises:
        ValueError: There is no such command.
    """
    wait_politely()
    arguments = sys.argv[1:] if args is None else args
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
    elif arguments[0] in COMMANDS:
        COMMANDS[arguments[0]](arguments[1:])
    elif not arguments[0].startswith("-") and arguments[0] not in STAGES:
        raise ValueError(f"there is no command {arguments[0]!r}: {', '.join([*STAGES, *COMMANDS])}")
    else:
        _check_files(arguments)
        from pipeline.stages import make_cli  # Lightning takes seconds to import

        make_cli(args)


def _report(arguments: list[str]) -> None:
    from pipeline.report import report  # plotting takes long to import, and no other command plots

    parser = ArgumentParser(prog="soundstorm report", description="Turn results into tables, figures and a page.")
    parser.add_argument("results", nargs="+", type=Path, help="Folders that `soundstorm test` wrote.")
    parser.add_function_arguments(report, skip={"results"})
    report(**vars(parser.parse_args(arguments)))


def _generate(arguments: list[str]) -> None:
    from pipeline.generate import generate

    parser = ArgumentParser(prog="soundstorm generate", description="Say what a recording says in another voice.")
    parser.add_function_arguments(generate)
    generate(**vars(parser.parse_args(arguments)))


def _published(arguments: list[str]) -> None:
    from pipeline.paper import published

    parser = ArgumentParser(prog="soundstorm published", description="Print the paper's own numbers.")
    parser.add_function_arguments(published)
    published(**vars(parser.parse_args(arguments)))


def _curves(arguments: list[str]) -> None:
    from pipeline.curves import curves

    parser = ArgumentParser(prog="soundstorm curves", description="Draw what training runs logged.")
    parser.add_argument("runs", nargs="+", type=Path, help="Folders with event files of TensorBoard.")
    parser.add_function_arguments(curves, skip={"runs"})
    curves(**vars(parser.parse_args(arguments)))


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "generate": _generate,
    "report": _report,
    "published": _published,
    "curves": _curves,
}


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


def console(command: Callable[[], None] = main) -> None:
    """Run a command for the console: what is wrong with the input is said in a line, not in a traceback."""
    try:
        command()
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("SOUNDSTORM_DEBUG"):
            raise
        # What a constructor found wrong comes wrapped in the parser's list of all types that it tried.
        while isinstance(error.__cause__, Exception) and _raised_by(error).partition(".")[0] == "jsonargparse":
            error = error.__cause__
        sys.exit(f"soundstorm: {error}\n(SOUNDSTORM_DEBUG=1 shows where)")


def _raised_by(error: BaseException) -> str:
    """Name the module that raised an error; "" for one that was never raised."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return "" if place is None else place.tb_frame.f_globals.get("__name__", "")
