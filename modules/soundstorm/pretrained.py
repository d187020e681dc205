"""The folder of a trained network: ``config.yaml``, with the tokens it speaks, and ``model.safetensors``."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from modules.model_folder import CONFIG_FILE, WEIGHTS_FILE, missing_files, read_config, read_weights, write_model
from modules.soundstorm.network import SoundStormNetwork

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
    arguments = {name: getattr(trained.network, name) for name in ARGUMENTS}
    config = {"class_path": CLASS_PATH, "init_args": arguments, "tokens": trained.tokens}
    write_model(folder, config, trained.network.state_dict(), dtype)


def load_network(folder: str | Path, dropout: float | None = None) -> TrainedNetwork:
    """Read what :func:`save_network` wrote.

    Args:
        folder: The folder.
        dropout: Dropout for training on, in place of the stated one.

    Returns:
        The network in evaluation mode, float32, and its tokens.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or describes something else.
    """
    if missing := missing_files(folder):
        raise FileNotFoundError(f"{folder} is no trained SoundStorm: it has no {missing[0]}")
    config = read_config(folder, CLASS_PATH)
    try:
        if config["class_path"] != CLASS_PATH:
            raise ValueError(f"class_path is {config['class_path']!r}")
        arguments = {name: config["init_args"][name] for name in ARGUMENTS}
        if dropout is not None:
            arguments["dropout"] = dropout
        network = SoundStormNetwork(**arguments)
        tokens = {part: dict(config["tokens"][part]) for part in ("codec", "semantic")}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{Path(folder) / CONFIG_FILE} does not describe a {CLASS_PATH} ({error!r})") from None
    weights = read_weights(folder).tensors
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{Path(folder) / WEIGHTS_FILE} is of another network ({error})") from None
    network.trained_on = tokens
    return TrainedNetwork(network.eval(), tokens)


def pretrained_network(folder: str, dropout: float | None = None) -> SoundStormNetwork:
    """Read the network alone, as a ``class_path`` of a configuration may name it.

    Args:
        folder: What :func:`save_network` wrote.
        dropout: Dropout for training on, in place of the stated one.
    """
    return load_network(folder, dropout).network.train()  # a stage switches to evaluation by itself


def averaged_network(folder: str, other: str, share: float = 0.5, dropout: float | None = None) -> SoundStormNetwork:
    """Average the weights of a network and of what became of it in further training.

    On speech that neither has heard, the average can be better than both: it keeps of the first what the second has
    unlearnt (Wortsman et al. 2022, robust fine-tuning).

    Args:
        folder: A trained network; what its tokens mean is what those of the average mean.
        other: The same network trained further.
        share: How much of ``other``: 0 is the first network, 1 the second.
        dropout: Dropout for training on, in place of the stated one.

    Raises:
        FileNotFoundError: A file of either is missing.
        ValueError: ``share`` lies outside of [0, 1], or the two are not of one kind; the difference is named.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} of the second network must lie in [0, 1]")
    (network, tokens), (further, other_tokens) = load_network(folder, dropout), load_network(other)
    differing = [name for name in ARGUMENTS if name != "dropout" and getattr(network, name) != getattr(further, name)]
    if differing or tokens["codec"] != other_tokens["codec"]:
        raise ValueError(f"{folder} and {other} differ in {', '.join(differing) or 'the codec'}: no average is of use")
    weights = further.state_dict()
    network.load_state_dict(
        {name: torch.lerp(value, weights[name], share) for name, value in network.state_dict().items()}
    )
    return network.train()  # a stage switches to evaluation by itself
