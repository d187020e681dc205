"""The folder a model is published in: ``config.yaml``, ``model.safetensors`` and, for some, a card."""

import importlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from modules.atomic import atomic_file, write_atomically

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.yaml", "model.safetensors", "README.md"


class Weights(NamedTuple):
    """What ``model.safetensors`` holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def write_model(
    folder: str | PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
    card: str | None = None,
) -> None:
    """Write a model, each file as a whole or not at all, readable by all who may read the folder.

    Args:
        folder: Where to; made if missing.
        config: What builds the model again: plain values.
        tensors: Weights by name.
        dtype: Type that floating-point weights are stored in; their own if None.
        metadata: Words to store beside the weights; those that mark weights of PyTorch if None.
        card: Text of the card; none is written if None.

    Raises:
        OSError: The disk is full, or the folder cannot be written; the file that was there is untouched.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    stored = {
        name: value.detach().cpu().to(dtype if dtype and value.is_floating_point() else value.dtype).contiguous()
        for name, value in tensors.items()
    }
    # Not `save_file`: it writes files that only their owner can read.
    content = save(stored, dict(metadata or {"format": "pt"}))
    with atomic_file(root / WEIGHTS_FILE) as stream:
        stream.write(content)
    if card is not None:
        write_atomically(root / CARD_FILE, card)
    write_config(root, config)


def write_config(folder: str | PathLike[str], config: Mapping[str, Any]) -> None:
    """Write ``config.yaml``, as a whole or not at all, into a folder that exists.

    Raises:
        OSError: See :func:`write_model`.
    """
    write_atomically(Path(folder) / CONFIG_FILE, yaml.safe_dump(dict(config), sort_keys=False))


def find_folder(source: str | PathLike[str], patterns: Sequence[str] = (CONFIG_FILE, WEIGHTS_FILE)) -> Path:
    """Find the folder of a published model, fetched from the hub where it is not on this machine.

    Args:
        source: Local folder or hub id.
        patterns: Files to fetch, and no others.

    Raises:
        FileNotFoundError: There is no such folder, and no such repository or no way to it.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(str(source), allow_patterns=list(patterns)))
    except HFValidationError:
        raise FileNotFoundError(f"{source}: no such folder, and not the id of a repository on the hub") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{source}: no such folder, and not to be had from the hub ({type(error).__name__}); name a local folder"
        ) from None


def missing_files(folder: str | PathLike[str], names: Sequence[str] = (CONFIG_FILE, WEIGHTS_FILE)) -> list[str]:
    """List what a folder lacks."""
    return [name for name in names if not (Path(folder) / name).exists()]


def read_config(folder: str | PathLike[str], kind: str) -> dict[str, Any]:
    """Read ``config.yaml``.

    Args:
        folder: The folder.
        kind: What it is to describe, for the message of an error.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged, or holds no mapping.
    """
    file = Path(folder) / CONFIG_FILE
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file} does not describe a {kind} ({error!r})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file} does not describe a {kind} (it holds {type(config).__name__}, not a mapping)")
    return config


def read_weights(folder: str | PathLike[str]) -> Weights:
    """Read ``model.safetensors``.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    file = Path(folder) / WEIGHTS_FILE
    try:
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
            return Weights(tensors, content.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); copy the folder or make it again") from None


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Digest weights by name and value: the same weights have the same digest wherever they lie.

    Args:
        state: Tensors by name, as ``state_dict`` gives them.

    Returns:
        ``xxh3:`` and 16 hexadecimal digits.
    """
    digest = xxhash.xxh3_64()
    for name, value in sorted(state.items(), key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return f"xxh3:{digest.hexdigest()}"


def class_path(cls: type, package: str) -> str:
    """Name a class for a configuration: as part of ``package`` where it offers the class, else by where it lies."""
    # The file it is defined in may change, the public name does not.
    public = getattr(importlib.import_module(package), cls.__name__, None) is cls
    return f"{package if public else cls.__module__}.{cls.__qualname__}"


def find_class(path: str, package: str) -> type[nn.Module] | None:
    """Find the class of a module that a configuration names, if it is one of a package's own.

    A folder may come from anywhere: nothing else may be called that it names.

    Args:
        path: Name of the class, with that of its module.
        package: Where it has to be defined.

    Returns:
        The class; None where there is none of that name, or it is of another package or no ``nn.Module``.
    """
    module_name, _, name = path.rpartition(".")
    if not f"{module_name}.".startswith(f"{package}."):
        return None
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except ImportError:
        return None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        return None
    return found if f"{found.__module__}.".startswith(f"{package}.") else None
