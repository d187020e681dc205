"""The folder a codec is published in: ``config.yaml`` (class paths and arguments) and ``model.safetensors``.

A folder may come from anywhere, so its configuration is not handed to a general instantiator: only the classes of this
package can be named.
"""

import importlib
import inspect
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

CONFIG_FILE, WEIGHTS_FILE = "config.yaml", "model.safetensors"
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
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for name, value in part.state_dict().items()
    }
    config, tensors = folder / f"{CONFIG_FILE}.tmp", folder / f"{WEIGHTS_FILE}.tmp"
    config.write_text(yaml.safe_dump(describe(part), sort_keys=False), encoding="utf-8")
    save_file(weights, tensors, metadata={"format": "pt"})
    tensors.chmod(config.stat().st_mode)  # safetensors writes files that only their owner can read
    os.replace(tensors, folder / WEIGHTS_FILE)
    os.replace(config, folder / CONFIG_FILE)


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
    folder = _resolve(source)
    try:
        description = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{source}: no readable {CONFIG_FILE} ({error})") from error
    if not isinstance(description, dict):
        raise ValueError(f"{source}: {CONFIG_FILE} holds no class_path")
    try:
        part = build(description, overrides)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} does not describe a codec: {error}") from error
    try:
        weights = load_file(folder / WEIGHTS_FILE)
        # Weights stored at half precision are copied into float32 parameters.
        part.load_state_dict(weights)
    except (FileNotFoundError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{source}: {WEIGHTS_FILE} is missing, damaged or of another model ({error})") from error
    return part


def _resolve(source: str | Path) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(str(source), allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except HFValidationError as error:
        raise ValueError(f"{source}: no such folder, and not the id of a repository on the hub") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{source}: no such folder, and not to be had from the hub ({type(error).__name__}); name a local folder"
        ) from error
