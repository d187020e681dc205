"""What a trained semantic tokenizer learnt, to train it on."""

from modules.semantic.distilled import DistilledFeatures
from modules.semantic.tokenizer import SemanticTokenizer


def pretrained_features(folder: str) -> DistilledFeatures:
    """Read the features of a trained student, to train them on.

    Args:
        folder: What :meth:`modules.semantic.SemanticTokenizer.save_pretrained` wrote.

    Returns:
        The features.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The folder's tokens are made of other features.
    """
    features = SemanticTokenizer.from_pretrained(folder).features
    if not isinstance(features, DistilledFeatures):
        raise ValueError(f"{folder} quantises {type(features).__name__}; only DistilledFeatures can be trained on")
    return features
