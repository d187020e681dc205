"""Publish the trained codec as a folder that anyone can load."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only


@runtime_checkable
class Publishable(Protocol):
    """A model that can be written to a folder."""

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the folder."""
        ...


class CodecExporter(Callback):
    """Writes ``pl_module.codec`` to a folder (``config.yaml``, ``model.safetensors``).

    It writes at the end of ``fit``, and at the end of ``validate``: ``soundstorm validate -c config.yaml --ckpt_path
    run.ckpt`` turns a checkpoint into the folder. With a ``WeightAveraging`` callback the checkpoint holds the averaged
    weights, and so does the folder made from it.

    Args:
        folder: Where to.
        half_precision: Store the weights as float16, at half the size.
    """

    def __init__(self, folder: str, half_precision: bool = True) -> None:
        self.folder = Path(folder)
        self.dtype = torch.float16 if half_precision else torch.float32

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the folder."""
        self._export(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the folder, unless the validation is one of ``fit``."""
        if trainer.state.fn == "validate":
            self._export(pl_module)

    @rank_zero_only
    def _export(self, pl_module: Any) -> None:
        codec = pl_module.codec
        if not isinstance(codec, Publishable):
            raise TypeError(f"{type(codec).__name__} has no save_pretrained")
        codec.save_pretrained(self.folder, self.dtype)
        rank_zero_info(f"Codec written to {self.folder}")
