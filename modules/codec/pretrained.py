"""Finding published weights: by local folder, or by hub id through the hub's cache."""

import hashlib
import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# Weights in a pickle are never fetched, so never read.
_PATTERNS = ["config.json", "model*.safetensors", "model.safetensors.index.json"]


def find_pretrained(model: str | PathLike[str], revision: str | None = None, local_files_only: bool = False) -> Path:
    """Find the folder with a model's ``config.json`` and safetensors weights, downloading it where needed.

    Args:
        model: Local folder in transformers' format, or hub id.
        revision: Commit, branch or tag on the hub; ignored for a folder.
        local_files_only: Look in the hub's cache only.

    Returns:
        The local folder.

    Raises:
        FileNotFoundError: If there is no such model, or no way to it, or no safetensors in it: one line, with the
            remedy.
    """
    name = os.fspath(model)
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(
                snapshot_download(name, revision=revision, local_files_only=local_files_only, allow_patterns=_PATTERNS)
            )
        except RevisionNotFoundError:
            raise FileNotFoundError(f"the hub's model {name!r} has no revision {revision!r}") from None
        except RepositoryNotFoundError:
            raise FileNotFoundError(
                f"{name!r} is neither a local folder nor a model on the hub that you may read"
                " (a private or gated one needs `hf auth login`)"
            ) from None
        except HFValidationError:
            raise FileNotFoundError(f"no folder {name!r}, and that is no hub id: name a folder that exists") from None
        except (LocalEntryNotFoundError, HfHubHTTPError):
            raise FileNotFoundError(
                f"{name!r} is neither a local folder nor in the hub's cache, and the hub is out of reach: name a local"
                f" folder, or run `hf download {name}` where there is a network"
            ) from None
    if not (folder / "config.json").is_file() or not any(weights_files(folder)):
        raise FileNotFoundError(
            f"{name!r} lacks config.json or model.safetensors: name a folder that save_pretrained wrote"
            " (pickled weights are not read)"
        )
    return folder


def weights_files(folder: Path) -> list[Path]:
    """List the safetensors files of a model in transformers' format, sorted by name."""
    return sorted(folder.glob("model*.safetensors"))


def digest_files(paths: Iterable[Path]) -> str:
    """Digest the contents of files in the given order, regardless of their names.

    Args:
        paths: The files.

    Returns:
        ``"sha256:"`` and 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"
