"""Write a scorer that was trained here."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from modules.evaluation.pooled_conformer import PooledConformer


class ScorerExporter(Callback):
    """Writes ``pl_module.network`` as a folder (``config.yaml``, ``model.safetensors``, card).

    It writes at the end of ``fit``, of ``validate`` and of ``test``, so that the folder holds the checkpoint that was
    tested last: ``soundstorm validate -c FILE --ckpt_path CKPT`` turns a checkpoint into the folder.

    Args:
        folder: Where to.
        title: Heading of its card.
    """

    def __init__(self, folder: str, title: str = "Scorer") -> None:
        self.folder = folder
        self.title = title

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there will be a scorer to write.

        Raises:
            TypeError: The model trains none.
        """
        if not isinstance(getattr(pl_module, "network", None), PooledConformer):
            raise TypeError(f"ScorerExporter needs a model with a PooledConformer, not {type(pl_module).__name__}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder."""
        self._export(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder, unless the validation is one of ``fit``."""
        if trainer.state.fn == "validate":
            self._export(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder."""
        self._export(pl_module)

    @rank_zero_only
    def _export(self, pl_module: LightningModule) -> None:
        network = pl_module.network
        assert isinstance(network, PooledConformer)
        network.save_pretrained(self.folder, self.title)
        rank_zero_info(f"{self.title} written to {self.folder}")
