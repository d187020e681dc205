"""Write a fitted semantic tokenizer."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from modules.semantic.distillation import SemanticDistillation
from modules.semantic.module import SemanticTokenizerTraining

FITS = (SemanticTokenizerTraining, SemanticDistillation)


class SemanticExporter(Callback):
    """Write the folder of the tokenizer (``config.yaml``, ``model.safetensors``, card) when its fit is over.

    Args:
        output_dir: The folder; ``modules.semantic.SemanticTokenizer.from_pretrained`` reads it.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there will be a tokenizer to write.

        Raises:
            TypeError: The model is not one that fits a semantic tokenizer.
        """
        if not isinstance(pl_module, FITS):
            raise TypeError(
                "SemanticExporter needs a SemanticTokenizerTraining or a SemanticDistillation, not a "
                f"{type(pl_module).__name__}"
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder, on the first rank."""
        self._export(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder, unless the validation is one of ``fit``: it turns a checkpoint into the folder."""
        if trainer.state.fn == "validate":
            self._export(trainer, pl_module)

    def _export(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FITS)
        if not pl_module.tokenizer.fitted:
            rank_zero_warn("the fit ended before k-means began: no semantic tokenizer was written")
        elif trainer.is_global_zero:
            pl_module.tokenizer.save_pretrained(self.output_dir)
            rank_zero_info(f"semantic tokenizer written to {self.output_dir}")
