import lightning as L
import pytest
import torch

from callbacks.train_only import TrainOnly
from datamodules.synthetic import SyntheticTokenDataModule
from modules.soundstorm import MaskingOptions, SoundStorm, SoundStormNetwork


def fit(folder, parameters, **masking):
    torch.manual_seed(0)
    network = SoundStormNetwork(16, 1, 2, 32, num_quantizers=2, codebook_size=16, semantic_vocab_size=16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    data = SyntheticTokenDataModule(
        num_train=8, num_predict=1, max_seconds=2.0, semantic_vocab_size=16, codebook_size=16, num_quantizers=2
    )
    module = SoundStorm(network, torch.optim.Adam, masking=MaskingOptions(**masking))
    L.Trainer(
        accelerator="cpu", devices=1, max_steps=2, default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False,
        callbacks=[TrainOnly(parameters)],
    ).fit(module, datamodule=data)  # fmt: skip
    return (
        network,
        {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])},
        before,
    )


def test_nothing_but_what_is_named_changes(tmp_path):
    _, changed, _ = fit(tmp_path, ["network.head_bias", "network.semantic_embedding.weight"])
    assert changed == {"head_bias", "semantic_embedding.weight"}


def test_without_words_only_the_vector_for_unknown_words_learns(tmp_path):
    """What a stage for guidance relies on: speech made without guidance stays what it was."""
    network, changed, before = fit(tmp_path, ["network.semantic_embedding.weight"], semantic_dropout=1.0)
    assert changed == {"semantic_embedding.weight"}
    moved = (network.semantic_embedding.weight != before["semantic_embedding.weight"]).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [network.null_semantic_id]


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"named network\.head; there are, for example, network\.head_bias"):
        fit(tmp_path, ["network.head"])
