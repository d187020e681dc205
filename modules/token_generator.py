"""What every system that makes acoustic tokens of semantic ones has in common."""

from abc import ABC, abstractmethod
from typing import Any

from lightning import LightningModule

from modules.batches import GeneratedBatch, TokenBatch
from modules.token_stage import TokenStage, load_stage


class TokenGenerator(LightningModule, ABC):
    """Makes acoustic tokens for the semantic tokens of a batch."""

    @property
    @abstractmethod
    def has_weights(self) -> bool:
        """Whether there are trained weights without those of a checkpoint that the trainer loads."""

    @property
    @abstractmethod
    def sampling_settings(self) -> dict[str, Any]:
        """How tokens are chosen, in values that JSON knows: what audio must share to stand in one row of a table."""

    @abstractmethod
    def generate(self, batch: TokenBatch) -> GeneratedBatch:
        """Generate codes for the semantic tokens of a batch, after the prompts it gives.

        Args:
            batch: Tokens; of ``codes`` only the first ``prompt_frames`` frames of each row are read.

        Returns:
            The codes, prompts included.
        """

    def predict_step(self, batch: TokenBatch, batch_idx: int, dataloader_idx: int = 0) -> GeneratedBatch:
        """Generate; a callback writes the result."""
        return self.generate(batch)


class StagedGenerator(TokenGenerator):
    """A generator put together from stages that were trained each on its own.

    Args:
        stages: Each stage with the checkpoint of its training, loaded when prediction begins; None leaves the stage as
            it is.
    """

    def __init__(self, *stages: tuple[TokenStage, str | None]) -> None:
        super().__init__()
        self._stages = stages

    @property
    def has_weights(self) -> bool:
        """Whether every stage has a checkpoint or a network that was loaded with its weights."""
        return all(checkpoint is not None or stage.has_weights for stage, checkpoint in self._stages)

    def setup(self, stage: str) -> None:
        """Load the stages' checkpoints.

        Raises:
            FileNotFoundError: A checkpoint does not exist.
            ValueError: A checkpoint does not fit its stage or the token set.
        """
        for part, checkpoint in self._stages:
            if checkpoint is not None:
                load_stage(part, checkpoint, self.trainer)

    def configure_optimizers(self) -> Any:
        """Refuse to train all stages at once.

        Raises:
            TypeError: Always.
        """
        names = " and ".join(type(stage).__name__ for stage, _ in self._stages)
        raise TypeError(f"{type(self).__name__} puts trained stages together: fit {names} on their own")
