"""What a trained semantic tokenizer learnt, to train it on."""

from modules.semantic.distilled import DistilledFeatures
from modules.semantic.tokenizer import SemanticTokenizer


def pretrained_features(folder: str, dropout: float | None = None, positions: int | None = None) -> DistilledFeatures:
    """Read the features of a trained student, to train them on.

    Args:
        folder: What :meth:`modules.semantic.SemanticTokenizer.save_pretrained` wrote.
        dropout: Dropout from now on; None leaves it as it was.
        positions: Frames that are told their place from now on; None leaves it as it was. A student that knew no
            places computes what it did until it has learnt from them.

    Returns:
        The features.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The folder's tokens are made of other features, or places that it has learnt are taken away.
    """
    features = SemanticTokenizer.from_pretrained(folder).features
    if not isinstance(features, DistilledFeatures):
        raise ValueError(f"{folder} quantises {type(features).__name__}; only DistilledFeatures can be trained on")
    if positions == 0 and features.positions:
        raise ValueError(f"{folder} has learnt {features.positions} places; positions=0 would take them away")
    arguments = features.init_args()
    if dropout is not None:
        arguments["dropout"] = dropout
    if positions is not None:
        arguments["positions"] = positions
    going_on = DistilledFeatures(**arguments)
    # The one matrix that may be missing, that of the places, starts at zero.
    going_on.load_state_dict({**going_on.state_dict(), **features.state_dict()})
    return going_on
