"""Frozen transformers models for scorers, by hub id or local folder."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import nn
from transformers.utils import logging

from modules.evaluation.scorer import ScorerUnavailableError
from modules.model_folder import weights_digest


@contextmanager
def quiet_transformers() -> Generator[None]:
    """Keep transformers' advice and progress bars off the terminal for a while."""
    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


def load_pretrained(auto_class: Any, name: str, revision: str | None, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Load a model for scoring: frozen, in evaluation mode.

    Args:
        auto_class: The class of transformers whose ``from_pretrained`` loads it.
        name: Hub id or local folder.
        revision: Commit, branch or tag on the hub; ignored for a folder.
        dtype: Precision of the weights.

    Returns:
        The model.

    Raises:
        ScorerUnavailableError: If the model is neither a folder nor fetchable, or lacks weights that its class needs.
    """
    remedy = "name a local folder, or connect to the hub once so that it is cached"
    try:
        with quiet_transformers():
            model, info = auto_class.from_pretrained(name, revision=revision, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, ImportError) as error:
        reason = f"{name!r} cannot be loaded ({str(error).strip().splitlines()[0]})"
        raise ScorerUnavailableError(reason, remedy) from error
    if info["missing_keys"]:
        # transformers would fill them at random and score with noise.
        absent = ", ".join(sorted(info["missing_keys"])[:3])
        raise ScorerUnavailableError(
            f"{name!r} lacks weights of {type(model).__name__} ({absent}, ...)", "name a model made for this task"
        )
    return model.eval().requires_grad_(False)


def pretrained_identity(model: nn.Module, name: str) -> dict[str, Any]:
    """Say which model was loaded, without naming this machine's folders.

    Args:
        model: What :func:`load_pretrained` returned.
        name: The name it was loaded by.

    Returns:
        ``name``, ``class`` and ``revision``: the hub's commit, or a digest of the weights of a local folder.
    """
    commit = getattr(getattr(model, "config", None), "_commit_hash", None)
    is_folder = Path(name).is_dir()
    return {
        "name": Path(name).resolve().name if is_folder else name,
        "class": type(model).__name__,
        "revision": weights_digest(model.state_dict()) if is_folder or commit is None else commit,
    }


def file_digest(file: Path) -> str:
    """Digest a file of weights, whatever its name."""
    digest = xxhash.xxh3_64()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return f"xxh3:{digest.hexdigest()}"
