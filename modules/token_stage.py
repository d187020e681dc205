"""What the training of every network on a token set has in common."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from modules.batches import TokenBatch
from modules.optimizers import parameter_groups, with_schedule
from modules.token_network import TokenNetwork
from modules.token_prediction import TokenPrediction


class Predicted(NamedTuple):
    """What a network predicts of a batch, one row per token."""

    logits: Tensor  # [N, C]
    target: Tensor  # [N] int64, true tokens
    level: Tensor  # [N] int64, their RVQ levels


class TokenStage(LightningModule, ABC):
    """Fits a network that predicts tokens: cross-entropy, averaged over the tokens of the global batch.

    Args:
        network: The network.
        optimizer: Makes the optimizer from the groups of :func:`modules.optimizers.parameter_groups`.
        lr_scheduler: Makes the learning-rate schedule, stepped once per optimizer step.
    """

    def __init__(
        self,
        network: TokenNetwork,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.train_prediction = TokenPrediction(network.num_quantizers)
        self.validation_prediction = TokenPrediction(network.num_quantizers)
        self.token_card: dict[str, Any] | None = None

    @property
    def has_weights(self) -> bool:
        """Whether the network came with its weights."""
        return self.network.trained_on is not None

    @abstractmethod
    def predict_tokens(self, batch: TokenBatch) -> Predicted:
        """Predict the tokens that the network is trained on.

        Args:
            batch: Tokens; ``prompt_frames`` is not read.

        Returns:
            Logits, true tokens and their levels.
        """

    def setup(self, stage: str) -> None:
        """Refuse a token set that does not fit the network.

        Raises:
            ValueError: The card of the token set and the network differ.
        """
        self.token_card = read_card(self.trainer, self.network)

    def on_fit_start(self) -> None:
        """From here on the network learns these tokens, whichever it knew before."""
        self.network.trained_on = self.token_card

    def on_validation_start(self) -> None:
        """Refuse tokens of another codec or semantic tokenizer than those the network was trained on.

        Raises:
            ValueError: They differ.
        """
        check_cards(self.network.trained_on, self.token_card)

    on_test_start = on_predict_start = on_validation_start

    def configure_model(self) -> None:
        """Shard parameters, gradients and optimizer states over the ranks under ``ModelParallelStrategy`` (FSDP2).

        Raises:
            ValueError: A callback averages weights, for which it would copy the sharded network; that is impossible.
        """
        if self.device_mesh is None or isinstance(self.network, FSDPModule):
            return
        if any(isinstance(callback, WeightAveraging) for callback in self.trainer.callbacks):  # ty: ignore[missing-attribute]
            raise ValueError(
                "WeightAveraging copies the network, which FSDP2 cannot: take the callback out, or use ddp"
            )
        mesh = self.device_mesh["data_parallel"]
        for block in self.network.trunk.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.network, mesh=mesh)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record which codec and semantic tokenizer the tokens came from."""
        checkpoint["token_card"] = self.token_card

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse tokens of another codec or semantic tokenizer than those the checkpoint was trained on.

        Raises:
            ValueError: They differ.
        """
        check_cards(checkpoint.get("token_card"), self.token_card)
        self.network.trained_on = checkpoint.get("token_card")

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Cross-entropy, averaged over the tokens of the global batch."""
        predicted = self.predict_tokens(batch)
        total = F.cross_entropy(predicted.logits.float(), predicted.target, reduction="sum")
        # DDP averages gradients over ranks; dividing by the mean count per rank makes that the mean over all tokens.
        count = torch.tensor(float(len(predicted.target)), device=total.device)
        loss = total / self.trainer.strategy.reduce(count, reduce_op="mean")
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch.ids))
        self.train_prediction.update(*predicted)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: TokenBatch, batch_idx: int) -> None:
        """Log the levels each on its own, over all tokens since the last time."""
        if (batch_idx + 1) % self.trainer.log_every_n_steps == 0:  # ty: ignore[missing-attribute]
            values = self.train_prediction.compute()
            self.train_prediction.reset()
            self.log_dict({f"train/{name}": value for name, value in values.items() if name != "loss"})

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Predict; what is random follows from the rows' seeds and is the same in every epoch."""
        self.validation_prediction.update(*self.predict_tokens(batch))

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy, over all levels and of each.

        The metrics have added up all ranks already; ``sync_dist`` only tells Lightning so.
        """
        values = self.validation_prediction.compute()
        self.validation_prediction.reset()
        self.log_dict({f"val/{name}": value for name, value in values.items()}, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Make the optimizer, with weight decay for matrices only, and the schedule, stepped per optimizer step."""
        groups = parameter_groups(self.network, hidden=self.network.trunk)
        return with_schedule(self.optimizer(groups), self.lr_scheduler)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients and log it.

        Lightning's own clipping refuses fused optimizers under mixed precision, although bf16 scales no gradient.
        """
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val or torch.inf)
        self.log("train/grad_norm", norm.full_tensor() if isinstance(norm, DTensor) else norm)


def read_card(trainer: Any, network: TokenNetwork) -> dict[str, Any] | None:
    """Say what made the tokens of a trainer's token set.

    Args:
        trainer: The trainer, with or without a datamodule that has a card.
        network: The network that is to work on the tokens.

    Returns:
        Identities of codec and semantic tokenizer; None where there is no card.

    Raises:
        ValueError: The token set does not fit the network.
    """
    card = getattr(getattr(trainer, "datamodule", None), "card", None)
    if card is None:
        return None
    for name in ("num_quantizers", "codebook_size", "semantic_vocab_size"):
        of_set, of_network = getattr(card, name), getattr(network, name)
        if of_set != of_network:
            raise ValueError(
                f"the token set has {name}={of_set}, the network {name}={of_network}: "
                f"set {name}={of_set} in the init_args of the network, or take another token set"
            )
    return {"codec": dict(card.codec), "semantic": dict(card.semantic)}


def check_cards(trained: dict[str, Any] | None, given: dict[str, Any] | None) -> None:
    """Compare what made the tokens of a network's training with what made those at hand, where both are known.

    Raises:
        ValueError: They differ; the part that does is named.
    """
    if trained is None or given is None:
        return
    for part in ("codec", "semantic"):
        if trained[part] != given[part]:
            raise ValueError(
                f"the network was trained on tokens of the {part} {trained[part]}, this token set holds tokens "
                f"of {given[part]}: tokenize the audio with the former, or take another network"
            )


def load_stage(stage: TokenStage, checkpoint: str, trainer: Any) -> None:
    """Give a stage the weights of its training, for a system that is made of several stages.

    Where the training averaged its weights (EMA), the average is what the checkpoint holds as the state of the module.

    Args:
        stage: The stage; changed in place.
        checkpoint: A checkpoint of Lightning.
        trainer: The trainer whose token set the stage is to work on.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Checkpoint, stage and token set do not fit one another.
    """
    name = type(stage).__name__
    stage.token_card = read_card(trainer, stage.network)
    try:
        loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no checkpoint of {name} at {checkpoint}: train that stage first (fit)") from error
    check_cards(loaded.get("token_card"), stage.token_card)
    try:
        stage.load_state_dict(loaded["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{checkpoint} does not hold the weights of {name} with this network: give the network it was trained "
            f"with, or the checkpoint of the other stage ({str(error)[:300]})"
        ) from error
