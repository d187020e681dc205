import pytest
import torch
from lightning import Trainer

from callbacks.network_exporter import NetworkExporter
from datamodules.synthetic import SyntheticTokenDataModule
from modules.soundstorm import SoundStorm, SoundStormNetwork
from modules.soundstorm.pretrained import load_network

CARD = SyntheticTokenDataModule().card


def make_trainer(folder, out="out"):
    return Trainer(
        accelerator="cpu", devices=1, max_steps=1, logger=False, default_root_dir=folder, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=1, num_sanity_val_steps=0,
        use_distributed_sampler=False, callbacks=[NetworkExporter(out and str(folder / out), half_precision=False)],
    )  # fmt: skip


def make_module():
    shape = CARD.num_quantizers, CARD.codebook_size, CARD.semantic_vocab_size
    return SoundStorm(SoundStormNetwork(16, 1, 2, 32, 5, *shape))


def test_validate_turns_a_checkpoint_into_a_folder_and_fit_does_not(tmp_path):
    module = make_module()
    trainer = make_trainer(tmp_path)
    trainer.fit(module, SyntheticTokenDataModule())
    assert not (tmp_path / "out").exists()
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    make_trainer(tmp_path).validate(make_module(), SyntheticTokenDataModule(), ckpt_path=tmp_path / "one.ckpt")
    loaded = load_network(tmp_path / "out")
    assert loaded.tokens == {"codec": CARD.codec, "semantic": CARD.semantic}
    for name, value in module.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name])


def test_the_folder_lies_with_the_run_where_none_is_given(tmp_path):
    module = make_module()
    make_trainer(tmp_path, None).validate(module, SyntheticTokenDataModule())
    assert torch.equal(load_network(tmp_path / "network").network.head_bias, module.network.head_bias)


def test_tokens_without_a_card_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no card"):
        make_trainer(tmp_path).validate(make_module(), SyntheticTokenDataModule().val_dataloader())
