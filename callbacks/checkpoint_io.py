"""Checkpoint files that appear whole or not at all, and are never unpickled."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final place, flushes it to the disk, and renames it: ``trainer.plugins`` takes it.

    Lightning's own writer makes the file in the system's temporary folder and moves it. Where that is another disk,
    moving means copying over the previous checkpoint, and a crash or a full disk meanwhile leaves half a file; it also
    holds a second copy of the checkpoint in memory, and never waits for the disk.

    Where ``last.ckpt`` is a link (``save_last: link``), it is moved on before the file it names is removed, so that
    ``--ckpt_path last`` finds a checkpoint at any moment.
    """

    def __init__(self) -> None:
        self._newest: dict[Path, Path] = {}  # per folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: The values.
            path: The file.
            storage_options: Not used.

        Raises:
            OSError: The disk is full, or the folder cannot be written; what was there before is untouched.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        # One name per file, not per process: what a killed process left is overwritten by the next.
        temporary = file.with_name(f".{file.name}.tmp")
        try:
            with open(temporary, "wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        except (OSError, RuntimeError) as error:  # torch.save turns what goes wrong with the file into RuntimeError
            temporary.unlink(missing_ok=True)
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else error
            raise OSError(
                f"the checkpoint {file} cannot be written ({reason}); earlier checkpoints are untouched: make room and "
                "continue with --ckpt_path last"
            ) from error
        self._newest[file.parent.resolve()] = file

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint: tensors and plain values, never objects that could run code.

        Args:
            path: The file.
            map_location: Where tensors go; the CPU where None.
            weights_only: Not used: it is always so.

        Returns:
            The values.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged, or holds objects.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"there is no checkpoint {file}; name one with --ckpt_path")
        try:
            if zipfile.is_zipfile(file):  # torch does not look at the checksums that it writes
                with zipfile.ZipFile(file) as archive:
                    if wrong := archive.testzip():
                        raise ValueError(f"the checksum of {wrong} does not match")
            values = torch.load(file, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:  # of half a dozen types, as the damage falls
            reason = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
            raise ValueError(
                f"{file} is damaged or no checkpoint of plain values ({reason}); take an earlier checkpoint"
            ) from error
        if not isinstance(values, Mapping):
            raise ValueError(f"{file} is no checkpoint: it holds a {type(values).__name__}; take another one")
        return dict(values)

    def remove_checkpoint(self, path: str | os.PathLike) -> None:
        """Remove a checkpoint, after pointing a ``last.ckpt`` that names it to the newest one."""
        file = Path(path)
        link, newest = file.parent / "last.ckpt", self._newest.get(file.parent.resolve())
        if link.is_symlink() and newest is not None and newest != file and link.resolve() == file.resolve():
            temporary = link.with_name(".last.ckpt.tmp")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(newest.name)
            os.replace(temporary, link)
        super().remove_checkpoint(file)
