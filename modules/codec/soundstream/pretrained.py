"""The folder a codec is published in: ``config.yaml`` (class paths and arguments) and ``model.safetensors``.

A folder may come from anywhere, so its configuration is not handed to a general instantiator: only the classes of this
package can be named.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modules.model_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    find_folder,
    missing_files,
    read_config,
    read_weights,
    write_model,
)

PACKAGE = "modules.codec.soundstream"
# What a downloaded config.yaml may name, as `modules.codec.soundstream.<name>`.
CLASSES = frozenset(
    {
        "SoundStream",
        "ConvolutionalEncoder",
        "ConvolutionalDecoder",
        "SpectralEncoder",
        "SpectralDecoder",
        "ResidualVectorQuantizer",
    }
)


def describe(part: nn.Module) -> dict[str, Any]:
    """Write down how to build a part again.

    The classes of this package keep every constructor argument as an attribute of the same name.

    Args:
        part: The codec or a part of it.

    Returns:
        ``class_path`` and ``init_args``, nested.

    Raises:
        ValueError: If the class is none of those a folder may hold.
    """
    name = type(part).__name__
    if name not in CLASSES or type(part) is not getattr(importlib.import_module(PACKAGE), name):
        raise ValueError(f"{type(part).__qualname__} cannot be published; classes: {', '.join(sorted(CLASSES))}")
    arguments = {key: getattr(part, key) for key in inspect.signature(type(part)).parameters}
    return {
        "class_path": f"{PACKAGE}.{name}",
        "init_args": {k: describe(v) if isinstance(v, nn.Module) else v for k, v in arguments.items()},
    }


def build(description: dict[str, Any], overrides: dict[str, Any] | None = None) -> nn.Module:
    """Build what :func:`describe` wrote down.

    Args:
        description: ``class_path`` and ``init_args``.
        overrides: Arguments of the outermost class that replace the written ones.

    Returns:
        The part, with fresh weights.

    Raises:
        ValueError: If a class is named that is no part of a codec, or its arguments do not fit.
    """
    path = str(description.get("class_path"))
    package, _, name = path.rpartition(".")
    if package != PACKAGE or name not in CLASSES:
        raise ValueError(f"class_path {path!r} is not allowed; allowed: {PACKAGE}.{{{', '.join(sorted(CLASSES))}}}")
    arguments = {
        key: build(value) if isinstance(value, dict) else value
        for key, value in (description.get("init_args") or {}).items()
    }
    try:
        return getattr(importlib.import_module(PACKAGE), name)(**arguments | (overrides or {}))
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error


def save_folder(part: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Write a part's configuration and weights, each atomically.

    Args:
        part: What to save.
        folder: Where to; made if missing.
        dtype: Type that floating-point weights are stored in.
    """
    write_model(folder, describe(part), part.state_dict(), dtype)


def load_folder(source: str | Path, overrides: dict[str, Any] | None = None) -> nn.Module:
    """Build a part from a folder or a repository on the hub.

    Args:
        source: Folder or hub id.
        overrides: Arguments of the outermost class that replace the written ones.

    Returns:
        The part with its weights, as float32.

    Raises:
        ValueError: If a file is missing or damaged, or the weights do not fit the configuration.
    """
    try:
        folder = find_folder(source)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    if CONFIG_FILE in missing_files(folder):
        raise ValueError(f"{source} is no codec: no readable {CONFIG_FILE}")
    description = read_config(folder, "codec")
    try:
        part = build(description, overrides)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} does not describe a codec: {error}") from error
    try:
        # Weights stored at half precision are copied into float32 parameters.
        part.load_state_dict(read_weights(folder).tensors)
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        raise ValueError(f"{source}: {WEIGHTS_FILE} is missing, damaged or of another model ({error})") from error
    return part
