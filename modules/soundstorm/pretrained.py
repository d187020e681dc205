"""The folder of a trained network: ``config.yaml``, with the tokens it speaks, and ``model.safetensors``."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from modules.soundstorm.network import SoundStormNetwork

CONFIG_FILE, WEIGHTS_FILE = "config.yaml", "model.safetensors"
CLASS_PATH = "modules.soundstorm.SoundStormNetwork"
ARGUMENTS = (
    "dim", "num_layers", "num_heads", "ffn_dim", "conv_kernel_size", "num_quantizers", "codebook_size",
    "semantic_vocab_size", "conv_expansion", "dropout",
)  # fmt: skip


class TrainedNetwork(NamedTuple):
    """A network and what its tokens mean."""

    network: SoundStormNetwork
    tokens: dict[str, Any]  # "codec" and "semantic": the identities of what made the tokens it was trained on


def save_network(trained: TrainedNetwork, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a network, each file atomically.

    Args:
        trained: The network and its tokens.
        folder: Where to; made if missing.
        dtype: Type the weights are stored in; they are read back as float32.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {name: getattr(trained.network, name) for name in ARGUMENTS}
    config = {"class_path": CLASS_PATH, "init_args": arguments, "tokens": trained.tokens}
    weights = {
        name: value.detach().cpu().to(dtype).contiguous() for name, value in trained.network.state_dict().items()
    }
    text, tensors = folder / f"{CONFIG_FILE}.tmp", folder / f"{WEIGHTS_FILE}.tmp"
    text.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    save_file(weights, tensors, metadata={"format": "pt"})
    tensors.chmod(text.stat().st_mode)  # safetensors writes files that only their owner can read
    os.replace(tensors, folder / WEIGHTS_FILE)
    os.replace(text, folder / CONFIG_FILE)


def load_network(folder: str | Path) -> TrainedNetwork:
    """Read what :func:`save_network` wrote.

    Args:
        folder: The folder.

    Returns:
        The network in evaluation mode, float32, and its tokens.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or describes something else.
    """
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is no trained SoundStorm: it has no {name}")
    try:
        config = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if config["class_path"] != CLASS_PATH:
            raise ValueError(f"class_path is {config['class_path']!r}")
        network = SoundStormNetwork(**{name: config["init_args"][name] for name in ARGUMENTS})
        tokens = {part: dict(config["tokens"][part]) for part in ("codec", "semantic")}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} does not describe a {CLASS_PATH} ({error!r})") from None
    try:
        network.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder / WEIGHTS_FILE} is damaged or of another network ({error})") from None
    network.trained = True
    return TrainedNetwork(network.eval(), tokens)


def pretrained_network(folder: str) -> SoundStormNetwork:
    """Read the network alone, as a ``class_path`` of a configuration may name it.

    Args:
        folder: What :func:`save_network` wrote.
    """
    return load_network(folder).network
