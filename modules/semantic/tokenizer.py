"""Semantic tokens: the nearest of a few cluster centres to each frame of standardised speech features."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional as F

from modules.batches import SoftTokens
from modules.model_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    class_path,
    find_class,
    missing_files,
    read_config,
    read_weights,
    write_model,
)
from modules.semantic.features import SpeechFeatures
from modules.semantic.posterior import Posterior

FEATURES = "features."  # prefix of what the features have learnt, among the tensors
OWN_PACKAGE = "modules.semantic"  # the only classes a configuration file may name


class SemanticTokenizer(nn.Module):
    """Speech features, standardised per dimension, quantised by k-means (AudioLM, section III-B).

    A new tokenizer has no codebook: :class:`modules.semantic.module.SemanticTokenizerTraining` fits one,
    :meth:`from_npz` imports one, :meth:`from_pretrained` reads back what :meth:`save_pretrained` wrote.

    Args:
        features: The speech features that are quantised.
        num_clusters: Size of the vocabulary; 1024 in SoundStorm.
        pool: Frames of features that are averaged into one token: 2 turns the 50 frames per second of most speech
            encoders into the paper's 25 tokens per second. A last token averages what frames are left.

    Attributes:
        sample_rate: Samples per second of the audio that goes in, in Hz.
        hop_length: Samples per token.
        vocab_size: Number of different tokens.
    """

    def __init__(self, features: SpeechFeatures, num_clusters: int = 1024, pool: int = 1) -> None:
        super().__init__()
        if num_clusters < 1 or pool < 1:
            raise ValueError(f"num_clusters and pool are at least 1, got {num_clusters} and {pool}")
        self.features = features
        self.pool = pool
        self.sample_rate = features.sample_rate
        self.hop_length = features.hop_length * pool
        self.vocab_size = num_clusters
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(features.dim))
        self.std: Tensor
        self.register_buffer("std", torch.ones(features.dim))
        # Not a number until a codebook is set, so that a checkpoint tells whether it holds one.
        self.centroids: Tensor
        self.register_buffer("centroids", torch.full((num_clusters, features.dim), torch.nan))

    @property
    def frame_rate(self) -> float:
        """Tokens per second."""
        return self.sample_rate / self.hop_length

    @property
    def exact_frame_rate(self) -> Fraction:
        """Tokens per second, without rounding."""
        return Fraction(self.sample_rate, self.hop_length)

    @property
    def fitted(self) -> bool:
        """Whether there is a codebook."""
        return bool(self.centroids.isfinite().all())

    def require_codebook(self) -> None:
        """Insist on a codebook.

        Raises:
            RuntimeError: There is none yet.
        """
        if not self.fitted:
            raise RuntimeError(
                "this semantic tokenizer has no codebook: fit one with `soundstorm fit -c "
                "configs/semantic/<preset>.yaml` and load its folder with SemanticTokenizer.from_pretrained"
            )

    def num_tokens(self, num_samples: int) -> int:
        """Number of tokens of audio of ``num_samples`` samples."""
        return -(-self.features.num_frames(num_samples) // self.pool)

    def frames(self, audio: Tensor) -> Tensor:
        """Compute what is clustered, before it is standardised.

        Args:
            audio: Mono audio at ``sample_rate``, float32, shape ``[B, N]``; all rows are N samples long.

        Returns:
            Features at the rate of the tokens, float32, shape ``[B, T, dim]``.

        Raises:
            ValueError: The audio is too short or too long for the features.
        """
        return self.pooled(self.features(audio))

    def pooled(self, features: Tensor) -> Tensor:
        """Average ``pool`` frames of features into one: ``[B, T, dim]`` to ``[B, ceil(T / pool), dim]``."""
        if self.pool == 1:
            return features
        return F.avg_pool1d(features.transpose(1, 2), self.pool, ceil_mode=True).transpose(1, 2)

    def standardize(self, frames: Tensor) -> Tensor:
        """Give every dimension the mean 0 and variance 1 it had over the training data; shape ``[..., dim]``."""
        return (frames - self.mean) / self.std

    def nearest(self, standardized: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest centroid.

        Args:
            standardized: Standardised frames, shape ``[..., dim]``.

        Returns:
            Its index, int64, and its squared distance, float32; both of shape ``[...]``.

        Raises:
            RuntimeError: There is no codebook yet.
        """
        smallest, tokens = self._distances(standardized).min(dim=-1)
        return tokens, (smallest + standardized.float().square().sum(dim=-1)).clamp_min(0)

    def posterior(self, standardized: Tensor, settings: Posterior) -> SoftTokens:
        """Say how probable the nearest tokens are: a softmax over squared distances, as if clusters were round.

        Args:
            standardized: Standardised frames, shape ``[..., T, dim]``.
            settings: How many tokens, and how sharply their distances tell them apart.

        Returns:
            The tokens and their probabilities, ``[..., T, K]`` each, the nearest first.

        Raises:
            ValueError: More tokens are asked for than there are.
            RuntimeError: There is no codebook yet.
        """
        settings.check(self.vocab_size)
        distances, tokens = self._distances(standardized).topk(settings.num_tokens, largest=False)
        logits = -settings.sharpness * distances / standardized.shape[-1]
        return SoftTokens(tokens, logits.softmax(dim=-1))

    def _distances(self, standardized: Tensor) -> Tensor:
        """Squared distances to all centroids ``[..., K]``, without |x|^2, which is the same for every centroid."""
        self.require_codebook()
        # In full precision whatever the trainer's: rounding moves frames to other clusters.
        with torch.autocast(standardized.device.type, enabled=False):
            frames, centroids = standardized.float(), self.centroids.float()
            return centroids.square().sum(dim=1) - 2 * frames @ centroids.T

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio into semantic tokens.

        Args:
            audio: Mono audio at ``sample_rate``, float32, shape ``[B, N]``; all rows are N samples long.

        Returns:
            Tokens, int64, shape ``[B, T]`` with ``T = num_tokens(N)``; repeats are kept.

        Raises:
            ValueError: The audio is too short or too long for the features.
            RuntimeError: There is no codebook yet.
        """
        return self.nearest(self.standardize(self.frames(audio)))[0]

    @torch.no_grad()
    def encode_soft(self, audio: Tensor, settings: Posterior) -> SoftTokens:
        """Turn audio into the most probable semantic tokens of each frame, see :meth:`posterior`.

        Args:
            audio: Mono audio at ``sample_rate``, float32, shape ``[B, N]``; all rows are N samples long.
            settings: How many tokens, and how sharply their distances tell them apart.

        Returns:
            The tokens and their probabilities, ``[B, T, K]`` each; the first are those of :meth:`encode`.

        Raises:
            ValueError: The audio is too short or too long for the features, or there are not so many tokens.
            RuntimeError: There is no codebook yet.
        """
        return self.posterior(self.standardize(self.frames(audio)), settings)

    def set_codebook(self, mean: Tensor, std: Tensor, centroids: Tensor) -> None:
        """Put a codebook in place.

        Args:
            mean: Mean of every dimension of the features, shape ``[dim]``.
            std: Standard deviation of every dimension, shape ``[dim]``.
            centroids: Cluster centres of standardised features, shape ``[num_clusters, dim]``.

        Raises:
            ValueError: A shape does not fit, or a value is not finite, or a standard deviation is not positive.
        """
        for name, new in (("mean", mean), ("std", std), ("centroids", centroids)):
            own = getattr(self, name)
            if new.shape != own.shape:
                raise ValueError(f"{name} has shape {list(new.shape)} where the tokenizer needs {list(own.shape)}")
            if not new.isfinite().all():
                raise ValueError(f"{name} holds values that are not finite")
        if not (std > 0).all():
            raise ValueError("std holds values that are not positive")
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.centroids.copy_(centroids)

    def identity(self) -> dict[str, Any]:
        """Say which tokens these are, for the card of a token set.

        Returns:
            Name, a digest of the codebook as ``revision``, the sizes and rates, and the identity of the features.
        """
        digest = xxhash.xxh3_64()
        for tensor in (self.mean, self.std, self.centroids):
            digest.update(tensor.detach().cpu().float().contiguous().numpy())
        return {
            "name": "k-means",
            "revision": f"xxh3:{digest.hexdigest()}",
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "vocab_size": self.vocab_size,
            "features": self.features.identity(),
        }

    @classmethod
    def from_npz(cls, features: SpeechFeatures, path: str, pool: int = 1) -> "SemanticTokenizer":
        """Import a codebook that was made elsewhere.

        Args:
            features: The speech features the codebook was fitted on.
            path: A numpy ``.npz`` with the arrays ``mean [dim]``, ``std [dim]`` and ``centroids [K, dim]``, the
                centroids in standardised coordinates ``(x - mean) / std``.
            pool: Frames of features that were averaged into one.

        Returns:
            The tokenizer.

        Raises:
            ValueError: An array is missing or does not fit the features.
        """
        with np.load(path, allow_pickle=False) as arrays:
            missing = {"mean", "std", "centroids"} - set(arrays.files)
            if missing:
                raise ValueError(f"{path} holds {sorted(arrays.files)}: no {', '.join(sorted(missing))}")
            mean, std, centroids = (torch.from_numpy(arrays[name]).float() for name in ("mean", "std", "centroids"))
        tokenizer = cls(features, num_clusters=len(centroids), pool=pool)
        tokenizer.set_codebook(mean, std, centroids)
        return tokenizer

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer as a folder: ``config.yaml``, ``model.safetensors`` and a card.

        The weights of a speech encoder are not copied: ``config.yaml`` names it as it was named to the features, and
        its digest is kept, so that :meth:`from_pretrained` refuses another one.

        Args:
            folder: Made if it does not exist; files of an earlier tokenizer in it are replaced.

        Raises:
            RuntimeError: There is no codebook yet.
        """
        self.require_codebook()
        tensors = {name: getattr(self, name) for name in ("mean", "std", "centroids")}
        tensors |= {f"{FEATURES}{name}": tensor for name, tensor in self.features.weights().items()}
        metadata = {"features": json.dumps(self.features.identity(), sort_keys=True)}
        write_model(folder, _config(self), tensors, metadata=metadata, card=_card(self))

    @classmethod
    def from_pretrained(cls, folder: str, features: SpeechFeatures | None = None) -> "SemanticTokenizer":
        """Read a tokenizer from the folder that :meth:`save_pretrained` wrote.

        Args:
            folder: The folder.
            features: The speech features, where they are not to be built as ``config.yaml`` says: because the speech
                encoder lies elsewhere on this machine, or they are of a class outside this package.

        Returns:
            The tokenizer.

        Raises:
            FileNotFoundError: The folder holds no tokenizer.
            ValueError: ``config.yaml`` is damaged or names a class that is not ours, or the features are not those
                that the codebook was fitted on.
            OSError: The speech encoder cannot be loaded.
        """
        if missing := missing_files(folder):
            raise FileNotFoundError(
                f"{folder} is no semantic tokenizer (it has no {missing[0]}): make one with "
                "`soundstorm fit -c configs/semantic/<preset>.yaml`"
            )
        file = Path(folder) / CONFIG_FILE
        config = read_config(folder, "semantic tokenizer")
        try:
            args = {name: config["init_args"][name] for name in ("features", "num_clusters", "pool")}
            built = features if features is not None else _build_features(args["features"], file)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{file} does not describe a semantic tokenizer ({error!r})") from None
        tensors, metadata = read_weights(folder)
        try:
            fitted_on = json.loads(metadata.get("features", "null"))
            mean, std, centroids = (tensors[name] for name in ("mean", "std", "centroids"))
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{Path(folder) / WEIGHTS_FILE} holds no codebook ({error!r}); copy or fit the tokenizer again"
            ) from None
        learnt = {name.removeprefix(FEATURES): t for name, t in tensors.items() if name.startswith(FEATURES)}
        if learnt and features is None:
            built.load_state_dict(learnt)
        if fitted_on is not None and fitted_on != built.identity():
            raise ValueError(
                f"the codebook in {folder} was fitted on the features {fitted_on}, not on {built.identity()}"
            )
        try:
            tokenizer = cls(built, num_clusters=args["num_clusters"], pool=args["pool"])
            tokenizer.set_codebook(mean, std, centroids)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder} does not describe a semantic tokenizer: {error}") from None
        return tokenizer


def _config(tokenizer: SemanticTokenizer) -> dict[str, Any]:
    return {
        "class_path": f"{OWN_PACKAGE}.{type(tokenizer).__name__}",
        "init_args": {
            "features": {
                "class_path": class_path(type(tokenizer.features), OWN_PACKAGE),
                "init_args": tokenizer.features.init_args(),
            },
            "num_clusters": tokenizer.vocab_size,
            "pool": tokenizer.pool,
        },
    }


def _build_features(config: dict[str, Any], file: Path) -> SpeechFeatures:
    """Build the features a configuration names, if it names one of the classes of this package and nothing else."""
    cls = find_class(str(config["class_path"]), OWN_PACKAGE)
    if cls is None or not issubclass(cls, SpeechFeatures):
        raise ValueError(
            f"{file} names {config['class_path']!r}, which is no SpeechFeatures of {OWN_PACKAGE}: only those are built "
            "from a file; build others yourself and pass them as `features`"
        )
    return cls(**config["init_args"])


def _card(tokenizer: SemanticTokenizer) -> str:
    return (
        "# Semantic tokenizer\n\n"
        f"{tokenizer.vocab_size} k-means clusters of standardised speech features, "
        f"{tokenizer.frame_rate:g} tokens per second of {tokenizer.sample_rate} Hz mono audio.\n\n"
        "```python\n"
        "from modules.semantic import SemanticTokenizer\n\n"
        'tokens = SemanticTokenizer.from_pretrained("<this folder>").encode(audio)  # [B, N] -> [B, T]\n'
        "```\n\n"
        f"```json\n{json.dumps(tokenizer.identity(), indent=2)}\n```\n"
    )
