"""One vector per clip: frozen speech features, a Conformer layer, the mean over time, a linear map."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from modules.evaluation.scorer import ScorerUnavailableError
from modules.layers.conformer import Conformer
from modules.model_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    class_path,
    find_class,
    missing_files,
    read_config,
    read_weights,
    weights_digest,
    write_model,
)

FEATURES_PACKAGE = "modules.semantic"  # the only classes a folder's configuration may name


class PooledConformer(nn.Module):
    """The architecture of the paper's consistency scorer (section 4.2), for any small model that judges whole clips.

    The paper takes layer 4 of a BEST-RQ model of its own; any speech features do. A clip's vector does not depend on
    the clips beside it. The features stay frozen.

    Args:
        features: Speech features with the contract of ``modules.semantic.SpeechFeatures``: ``[B, N]`` audio to
            ``[B, T, features.dim]``.
        output_dim: Width of the vector; 1024 in the paper.
        dim: Width of the Conformer; the features' own where not given.
        num_layers: Conformer blocks; 1 in the paper.
        num_heads: Attention heads.
        ffn_dim: Hidden width of the feed-forward layers; ``4 * dim`` where not given.
        conv_kernel_size: Odd kernel of the depthwise convolution, in frames.
        dropout: Dropout everywhere.

    Attributes:
        sample_rate: Samples per second of the audio that goes in, in Hz.
    """

    def __init__(
        self,
        features: nn.Module,
        output_dim: int = 1024,
        dim: int | None = None,
        num_layers: int = 1,
        num_heads: int = 8,
        ffn_dim: int | None = None,
        conv_kernel_size: int = 5,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.features: Any = features.requires_grad_(False)
        self.sample_rate = int(self.features.sample_rate)
        width = dim or int(self.features.dim)
        self.norm = nn.LayerNorm(int(self.features.dim))
        self.project = nn.Linear(int(self.features.dim), dim) if dim else nn.Identity()
        self.conformer = Conformer(
            width, num_layers, num_heads, ffn_dim or 4 * width, conv_kernel_size=conv_kernel_size, dropout=dropout
        )
        self.head = nn.Linear(width, output_dim)
        self._init_args = {
            "output_dim": output_dim,
            "dim": dim,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "ffn_dim": ffn_dim,
            "conv_kernel_size": conv_kernel_size,
            "dropout": dropout,
        }

    def forward(self, clips: Sequence[Tensor]) -> Tensor:
        """Map clips, each float32 mono ``[N_i]``, to vectors ``[B, output_dim]``.

        Raises:
            ValueError: A clip is too short for one frame, or longer than the features take.
        """
        frames = self._frames(clips)
        lengths = torch.tensor([len(rows) for rows in frames], device=frames[0].device)
        x = pad_sequence(frames, batch_first=True)  # [B, T, features.dim]
        valid = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        x = self.conformer(self.project(self.norm(x)), valid)
        pooled = (x * valid[..., None]).sum(dim=1) / lengths[:, None]
        return self.head(pooled)

    def _frames(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Features of every clip, ``[T_i, features.dim]``; clips of one length go through the features together."""
        groups: dict[int, list[int]] = {}
        for index, clip in enumerate(clips):
            groups.setdefault(clip.shape[-1], []).append(index)
        frames: dict[int, Tensor] = {}
        for rows in groups.values():
            frames |= zip(rows, self.features(torch.stack([clips[row] for row in rows])), strict=True)
        return [frames[index] for index in range(len(clips))]

    def trained_state(self) -> dict[str, Tensor]:
        """The weights without those of the features."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("features.")}

    def identity(self) -> dict[str, Any]:
        """Digest of the trained weights, and the identity of the features."""
        digest = weights_digest({name: value.float() for name, value in self.trained_state().items()})
        return {"revision": digest, "features": self.features.identity()}

    def save_pretrained(self, folder: str | Path, title: str = "Pooled Conformer") -> None:
        """Write ``config.yaml``, ``model.safetensors`` and a card.

        The weights of a speech encoder are not copied: ``config.yaml`` names it, and its identity is kept, so that
        :meth:`from_pretrained` refuses another one.

        Args:
            folder: Made if it does not exist.
            title: Heading of the card.
        """
        # Features that were trained here, too, have weights that are nowhere else.
        own: Callable[[], dict[str, Tensor]] | None = getattr(self.features, "weights", None)
        tensors = self.trained_state() | {f"features.{name}": value for name, value in (own or dict)().items()}
        metadata = {"features": json.dumps(self.features.identity(), sort_keys=True)}
        features = {
            "class_path": class_path(type(self.features), FEATURES_PACKAGE),
            "init_args": self.features.init_args(),
        }
        config = {
            "class_path": f"modules.evaluation.{type(self).__name__}",
            "init_args": {"features": features, **self._init_args},
        }
        card = f"# {title}\n\n`modules.evaluation.PooledConformer`, {self.sample_rate} Hz mono audio.\n\n"
        card += f"```json\n{json.dumps(self.identity(), indent=2)}\n```\n"
        write_model(folder, config, tensors, metadata=metadata, card=card)

    @classmethod
    def from_pretrained(cls, folder: str | Path, features: nn.Module | None = None) -> "PooledConformer":
        """Read what :meth:`save_pretrained` wrote.

        Args:
            folder: The folder.
            features: The speech features, where they are not to be built as ``config.yaml`` says, because the speech
                encoder lies elsewhere on this machine.

        Raises:
            FileNotFoundError: The folder holds no such model.
            ValueError: ``config.yaml`` is damaged or names a class that is not ours, or the features are others than
                the model was trained on.
            OSError: The speech encoder cannot be loaded.
        """
        if missing := missing_files(folder):
            raise FileNotFoundError(f"{folder} has no {missing[0]}")
        file = Path(folder) / CONFIG_FILE
        config = read_config(folder, "PooledConformer")
        try:
            init_args = dict(config["init_args"])
            named = init_args.pop("features")
            features_path, features_args = str(named["class_path"]), dict(named["init_args"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} does not describe a PooledConformer ({error!r})") from None
        tensors, metadata = read_weights(folder)
        trained_on = json.loads(metadata.get("features", "null"))
        if features is None:
            features_class = find_class(features_path, FEATURES_PACKAGE)
            if features_class is None:
                raise ValueError(f"{file} names {features_path!r}, which is not of this package")
            features = features_class(**features_args)
        learnt = {name.removeprefix("features."): t for name, t in tensors.items() if name.startswith("features.")}
        if learnt:
            features.load_state_dict(learnt)
        network = cls(features, **init_args)
        if trained_on != network.features.identity():
            raise ValueError(f"{folder} was trained on the features {trained_on}, not {network.features.identity()}")
        missing, unexpected = network.load_state_dict(tensors, strict=False)
        lacking = [name for name in missing if not name.startswith("features.")]
        if lacking or unexpected:
            raise ValueError(f"{Path(folder) / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {[*lacking, *unexpected][:3]}")
        return network


def load_network(folder: str, features: nn.Module | None, sample_rate: int, remedy: str) -> PooledConformer:
    """Read a trained network for scoring: frozen, in evaluation mode.

    Args:
        folder: What ``PooledConformer.save_pretrained`` wrote.
        features: Speech features to use in place of those the folder names.
        sample_rate: Samples per second of the audio it will be given, in Hz.
        remedy: What to do where there is none.

    Raises:
        ScorerUnavailableError: It cannot be loaded, or listens at another sample rate.
    """
    try:
        network = PooledConformer.from_pretrained(folder, features)
    except (OSError, ValueError) as error:
        raise ScorerUnavailableError(f"{folder!r} cannot be loaded ({str(error).splitlines()[0]})", remedy) from error
    if network.sample_rate != sample_rate:
        reason = f"{folder!r} listens at {network.sample_rate} Hz"
        raise ScorerUnavailableError(reason, f"set its sample_rate to {network.sample_rate}")
    return network.eval().requires_grad_(False)
