"""Starts the training of an acoustic model from the codebooks of its tokens."""

import json

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.audio_writer import check_codec
from modules.codec.codec import AudioCodec
from modules.semantic.tokenizer import SemanticTokenizer
from modules.token_stage import TokenStage


class CodebookInitialization(Callback):
    """Sets embeddings and heads to what the codes stand for, see ``TokenNetwork.initialize_from_codebooks``.

    Worth most where speech is short: with random embeddings a model hears each of some 12 000 codes anew. List it
    before ``WeightAveraging``, which copies the weights when its turn comes. A run that goes on from a checkpoint is
    left alone.

    Args:
        codec: The codec of the tokens; checked against the card of the token set.
        semantic: The semantic tokenizer of the tokens; its embeddings start at random where None.
    """

    def __init__(self, codec: AudioCodec, semantic: SemanticTokenizer | None = None) -> None:
        super().__init__()
        self.codec = codec
        self.semantic = semantic

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the weights.

        Raises:
            TypeError: The model predicts no tokens.
            ValueError: The codec or the tokenizer is not the token set's.
        """
        if stage != "fit" or trainer.ckpt_path:
            return
        if not isinstance(pl_module, TokenStage):
            raise TypeError(f"CodebookInitialization starts a model of tokens, not a {type(pl_module).__name__}")
        card = getattr(trainer.datamodule, "card", None)  # ty: ignore[missing-attribute]
        if card is not None:
            check_codec(self.codec.identity(), card.codec)
        centroids = None
        if self.semantic is not None:
            self.semantic.require_codebook()
            mine = json.loads(json.dumps(self.semantic.identity()))
            if card is not None and mine != card.semantic:
                raise ValueError(
                    f"the token set was made by the semantic tokenizer {card.semantic}, CodebookInitialization has "
                    f"{mine}: give it that one, or none"
                )
            centroids = self.semantic.centroids
        pl_module.network.initialize_from_codebooks(self.codec.code_vectors(), centroids)
        rank_zero_info("Embeddings and heads start from the codebooks")
