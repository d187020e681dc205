"""Training of a few parameters, with all others as they are."""

from difflib import get_close_matches

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class TrainOnly(Callback):
    """Lets nothing but the named parameters get gradients.

    Of an embedding, rows that no example uses stay as they are too, unless the optimizer has weight decay.

    Args:
        parameters: Names, as in the state of the LightningModule: ``network.semantic_embedding.weight``.
    """

    def __init__(self, parameters: list[str]) -> None:
        super().__init__()
        self.parameters = tuple(parameters)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze the others.

        Raises:
            ValueError: There is no parameter of a name.
        """
        if stage != "fit":
            return
        found = dict(pl_module.named_parameters())
        for name in self.parameters:
            if name not in found:
                near = get_close_matches(name, found, n=3, cutoff=0)
                raise ValueError(f"TrainOnly: no parameter is named {name}; there are, for example, {', '.join(near)}")
        for name, parameter in found.items():
            parameter.requires_grad_(name in self.parameters)
        trained = sum(found[name].numel() for name in self.parameters)
        rank_zero_info(f"Only {', '.join(self.parameters)} are trained: {trained} numbers")
