import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.codebook_initialization import CodebookInitialization
from datamodules.synthetic import SyntheticTokenDataModule
from modules.codec import AudioCodec
from modules.soundstorm import SoundStorm, SoundStormNetwork


class TableCodec(AudioCodec):
    sample_rate, hop_length = 16000, 320

    def __init__(self, card, **changes):
        super().__init__()
        self.num_quantizers, self.codebook_size = card.num_quantizers, card.codebook_size
        self.name = {**card.codec, **changes}
        generator = torch.Generator().manual_seed(5)
        self.register_buffer("table", torch.randn(card.num_quantizers, card.codebook_size, 6, generator=generator))

    def encode(self, audio: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        raise NotImplementedError

    def latents(self, codes: Tensor) -> Tensor:
        return sum(self.table[level][codes[:, level]] for level in range(codes.shape[1]))

    def identity(self):
        return self.name


CARD = SyntheticTokenDataModule().card


def make_module():
    shape = CARD.num_quantizers, CARD.codebook_size, CARD.semantic_vocab_size
    return SoundStorm(SoundStormNetwork(16, 1, 2, 32, 5, *shape))


def fit(module, callback, folder, ckpt_path=None, max_steps=0):
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=max_steps, logger=False, callbacks=[callback], default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, SyntheticTokenDataModule(), ckpt_path=ckpt_path)
    return trainer


def test_training_starts_from_the_codebooks(tmp_path):
    module, codec = make_module(), TableCodec(CARD)
    fit(module, CodebookInitialization(codec), tmp_path)
    ratio = torch.pdist(module.network.head_weight[1]) / torch.pdist(codec.table[1])
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_a_run_that_goes_on_keeps_what_it_learnt(tmp_path):
    module, callback = make_module(), CodebookInitialization(TableCodec(CARD))
    trainer = fit(module, callback, tmp_path, max_steps=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    learnt = module.network.head_weight.detach().clone()
    with torch.no_grad():
        module.network.head_weight.zero_()
    fit(module, callback, tmp_path, ckpt_path=tmp_path / "one.ckpt", max_steps=1)
    assert torch.equal(module.network.head_weight, learnt)


def test_another_codec_than_that_of_the_tokens_is_refused(tmp_path):
    callback = CodebookInitialization(TableCodec(CARD, name="another"))
    with pytest.raises(ValueError, match="made by a codec with"):
        fit(make_module(), callback, tmp_path)


def test_another_model_is_refused(tmp_path):
    callback = CodebookInitialization(TableCodec(CARD))
    with pytest.raises(TypeError, match="starts a model of tokens"):
        callback.setup(Trainer(logger=False, accelerator="cpu"), LightningModule(), "fit")
