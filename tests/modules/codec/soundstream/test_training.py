"""Training of the codec through the trainer."""

from functools import partial

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from modules.codec.soundstream import (
    ComplexSpectralLoss,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    DiscriminatorSet,
    MultiScaleMelLoss,
    ResidualVectorQuantizer,
    SoundStream,
    SoundStreamTraining,
    SpectralDecoder,
    SpectralEncoder,
    SpectralPatchDiscriminator,
    STFTDiscriminator,
    WaveformDiscriminator,
)
from modules.warmup import WarmupCosine

HOP = 64
WEIGHTS = {"mel": 1.0, "spectrum": 1.0, "commitment": 0.1, "adversarial": 0.1, "features": 0.1}


def quantizer(dim: int = 8) -> ResidualVectorQuantizer:
    return ResidualVectorQuantizer(dim, 4, 32, init_frames=64, dead_code_threshold=0.01, dropout=0.5)


def light(dim: int = 16) -> SoundStream:
    arguments = {"latent_dim": 8, "dim": dim, "num_blocks": 1, "hop_length": HOP, "n_fft": 128, "stft_hop": 32}
    return SoundStream(SpectralEncoder(**arguments), SpectralDecoder(**arguments), quantizer())


def paper() -> SoundStream:
    return SoundStream(ConvolutionalEncoder(8, 2, (8, 8)), ConvolutionalDecoder(8, 2, (8, 8)), quantizer())


def training(codec: SoundStream, discriminator=None, **changes) -> SoundStreamTraining:
    optimizer = partial(torch.optim.AdamW, lr=2e-3)
    scheduler = partial(WarmupCosine, warmup_steps=5, total_steps=1000)
    arguments = {
        "codec": codec,
        "losses": {
            "mel": MultiScaleMelLoss(windows=[128, 512], num_mels=[16, 32]),
            "spectrum": ComplexSpectralLoss([256]),
        },
        "weights": WEIGHTS,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "discriminator": discriminator,
        "discriminator_optimizer": optimizer if discriminator else None,
        "discriminator_scheduler": scheduler if discriminator else None,
        "validation_levels": (1, 4),
    }
    return SoundStreamTraining(**arguments | changes)


def chirps(rows: int = 4, samples: int = 4096) -> torch.Tensor:
    """Rising tones: a row each."""
    time = torch.arange(samples) / 16000
    pitch = torch.linspace(120, 400, rows)[:, None]
    return 0.3 * torch.sin(2 * torch.pi * (pitch * time + 800 * time.square()))


def trainer(folder, **changes) -> L.Trainer:
    arguments = {
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": folder,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(**arguments | changes)


@pytest.mark.parametrize(
    ("codec", "discriminator"),
    [
        (light, lambda: SpectralPatchDiscriminator((128,), 4)),
        (paper, lambda: DiscriminatorSet([STFTDiscriminator(128, 32, 16), WaveformDiscriminator(2, 4, 16)])),
        (light, lambda: None),
    ],
)
def test_both_presets_train_and_validate(codec, discriminator, tmp_path):
    torch.manual_seed(0)
    model = training(codec(), discriminator())
    before = {name: value.clone() for name, value in model.named_parameters()}
    runner = trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    runner.fit(model, DataLoader(chirps(8), 2), DataLoader(chirps(4), 2))
    logged = runner.callback_metrics
    assert {"train/mel", "train/commitment", "val/mel_distance_1", "val/mel_distance_4", "val/perplexity_3"} <= set(
        logged
    )
    assert all(torch.isfinite(value) for value in logged.values())
    assert ("train/discriminator" in logged) == (model.discriminator is not None)
    unmoved = [name for name, value in model.named_parameters() if torch.equal(before[name], value)]
    assert not unmoved


def test_discriminator_rests_until_the_adversarial_part(tmp_path):
    torch.manual_seed(0)
    model = training(light(), SpectralPatchDiscriminator((128,), 4), adversarial_start=3)
    before = [p.clone() for p in model.discriminator.parameters()]
    runner = trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    runner.fit(model, DataLoader(chirps(6), 2))
    assert all(torch.equal(a, b) for a, b in zip(before, model.discriminator.parameters(), strict=True))
    runner.fit_loop.epoch_progress.reset()
    runner.fit_loop.max_epochs = 2
    runner.fit(model, DataLoader(chirps(6), 2))
    assert not any(torch.equal(a, b) for a, b in zip(before, model.discriminator.parameters(), strict=True))
    assert all(p.requires_grad for p in model.discriminator.parameters())


def test_a_codec_from_a_folder_is_trained_with_levels_dropped(tmp_path, monkeypatch):
    torch.manual_seed(0)
    light().save_pretrained(tmp_path / "codec")
    model = training(SoundStream.from_pretrained(tmp_path / "codec"), freeze_codes_after=0)
    draw, drawn = model.codec.quantizer._draw_levels, []
    monkeypatch.setattr(model.codec.quantizer, "_draw_levels", lambda *a: drawn.append(draw(*a)) or drawn[-1])
    trainer(tmp_path, max_epochs=8, enable_checkpointing=False).fit(model, DataLoader(chirps(6), 6))
    assert torch.cat(drawn).unique().tolist() == [1, 2, 3, 4]


def test_frozen_codes_stay_while_the_decoder_learns(tmp_path):
    torch.manual_seed(0)
    model = training(light(), freeze_codes_after=3)
    runner = trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    runner.fit(model, DataLoader(chirps(6), 2))
    codes, state = model.codec.encode(chirps(6)), {k: v.clone() for k, v in model.codec.state_dict().items()}
    revision = model.codec.identity()["revision"]
    runner.fit_loop.epoch_progress.reset()
    runner.fit_loop.max_epochs = 2
    runner.fit(model, DataLoader(chirps(6), 2))
    moved = {name for name, value in model.codec.state_dict().items() if not torch.equal(state[name], value)}
    assert moved == {name for name in state if name.startswith("decoder.")}
    assert torch.equal(model.codec.encode(chirps(6)), codes)
    assert model.codec.identity()["revision"] == revision


def test_frozen_codes_sound_as_decoded_ones_do():
    torch.manual_seed(0)
    codec = light().eval()
    codec.quantizer.start(codec.encoder(chirps()).detach().flatten(0, 1))
    torch.testing.assert_close(codec(chirps(), frozen_codes=True).audio, codec.decode(codec.encode(chirps())))


def test_a_tiny_codec_learns_one_clip():
    torch.manual_seed(0)
    model, audio = training(light(32)), chirps()
    optimizer = torch.optim.AdamW(model.codec.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        reconstruction, commitment = model.codec(audio)
        loss = sum(loss(reconstruction, audio) for loss in model.losses.values())
        optimizer.zero_grad()
        (loss + 0.1 * commitment).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    def fit(folder, epochs, resume=None):
        torch.manual_seed(0)
        model = training(light(), SpectralPatchDiscriminator((128,), 4))
        # Levels are drawn at random; a resumed process would draw others.
        model.codec.quantizer.dropout = 0.0
        model.codec.quantizer.dead_code_threshold = 0.0
        model.codec.quantizer.start(torch.randn(64, 8))
        runner = trainer(folder, max_epochs=epochs)
        runner.fit(model, DataLoader(chirps(6), 2), ckpt_path=resume, weights_only=True if resume else None)
        return model, runner.checkpoint_callback.best_model_path

    whole, _ = fit(tmp_path / "whole", 2)
    _, checkpoint = fit(tmp_path / "half", 1)
    resumed, _ = fit(tmp_path / "rest", 2, checkpoint)
    assert int(resumed.batches_seen) == 6
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_a_loss_without_weight_is_named():
    with pytest.raises(ValueError, match="weights lacks spectrum"):
        training(light(), weights={"mel": 1.0, "commitment": 1.0})
    with pytest.raises(ValueError, match="needs discriminator_optimizer"):
        training(light(), SpectralPatchDiscriminator((128,), 4), discriminator_optimizer=None)


def test_learning_rate_rises_then_falls_along_a_cosine():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = WarmupCosine(optimizer, warmup_steps=4, total_steps=14, final_share=0.1)
    rates = []
    for _ in range(20):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[9] == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert rates[14:] == pytest.approx([0.2] * 6)
