"""Publish a trained SoundStorm as a folder that anyone can load."""

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from modules.soundstorm import SoundStorm
from modules.soundstorm.pretrained import TrainedNetwork, save_network


class NetworkExporter(Callback):
    """Writes the network to a folder (``config.yaml``, ``model.safetensors``), with what its tokens mean.

    It writes at the end of ``validate``: ``soundstorm validate -c config.yaml --ckpt_path run.ckpt`` turns a checkpoint
    into the folder. With a ``WeightAveraging`` callback the checkpoint holds the averaged weights, and so does the
    folder. ``pipeline.synthesizer.SpeechSynthesizer`` reads it.

    Args:
        folder: Where to; ``network`` in the trainer's ``default_root_dir`` if None.
        half_precision: Store the weights as float16, at half the size.
    """

    def __init__(self, folder: str | None = None, half_precision: bool = True) -> None:
        self.folder = folder
        self.dtype = torch.float16 if half_precision else torch.float32

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder, unless the validation is one of ``fit``.

        Raises:
            TypeError: The model is no SoundStorm.
            ValueError: The data do not say what the tokens mean.
        """
        if trainer.state.fn != "validate" or not trainer.is_global_zero:
            return
        if not isinstance(pl_module, SoundStorm):
            raise TypeError(f"NetworkExporter writes a SoundStorm, not a {type(pl_module).__name__}")
        if pl_module.token_card is None:
            raise ValueError("the datamodule has no card of its tokens, so nobody could use the weights")
        folder = self.folder or str(Path(trainer.default_root_dir, "network"))
        save_network(TrainedNetwork(pl_module.network, pl_module.token_card), folder, self.dtype)
        rank_zero_info(f"Network written to {folder}")
