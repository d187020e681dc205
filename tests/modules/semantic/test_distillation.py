import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from callbacks.semantic_exporter import SemanticExporter
from modules.optimizers import MuonWithAdamW
from modules.semantic import DistilledFeatures, LogMelFeatures, SemanticTokenizer
from modules.semantic.distillation import SemanticDistillation, mask_spectra
from modules.semantic.distilled import sinusoids
from modules.semantic.pretrained import pretrained_features


def make_teacher(num_clusters=8):
    tokenizer = SemanticTokenizer(LogMelFeatures(num_mels=6, context=0), num_clusters)
    frames = tokenizer.frames(make_audio()).flatten(0, 1)
    tokenizer.mean.copy_(frames.mean(0))
    tokenizer.std.copy_(frames.std(0))
    tokenizer.centroids.copy_(tokenizer.standardize(frames)[:: len(frames) // num_clusters][:num_clusters])
    return tokenizer


def make_student(dim=6):
    torch.manual_seed(0)
    return DistilledFeatures(dim, model_dim=16, num_layers=1, num_heads=2, ffn_dim=32, conv_kernel_size=3, num_mels=12)


def make_audio(rows=8, seconds=1.0):
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(round(16000 * seconds)) / 16000
    # Tones that change every tenth of a second, so that frames differ.
    pitch = 200 + 3000 * torch.rand(rows, round(10 * seconds) + 1, generator=generator)
    pitch = pitch.repeat_interleave(1600, dim=1)[:, : len(steps)]
    return 0.3 * torch.sin(2 * torch.pi * pitch * steps)


def fit(folder, steps=60, **changes):
    module = SemanticDistillation(
        make_teacher(), make_student(), lambda groups: MuonWithAdamW(groups, lr=0.02, adamw_lr=0.02), **changes
    )
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, logger=False, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[SemanticExporter(str(folder / "student"))],
    )  # fmt: skip
    trainer.fit(module, DataLoader(list(make_audio()), batch_size=8))
    return module, trainer


def agreement(tokenizer, teacher):
    audio = make_audio()
    return (tokenizer.encode(audio) == teacher.encode(audio)).float().mean().item()


def test_the_student_learns_the_teachers_tokens(tmp_path):
    untaught = SemanticTokenizer(make_student(), 8)
    untaught.set_codebook(torch.zeros(6), torch.ones(6), make_teacher().centroids)
    before = agreement(untaught, make_teacher())
    module, _ = fit(tmp_path)
    assert before < 0.4
    assert agreement(module.tokenizer, make_teacher()) > 0.7


def test_the_folder_gives_the_same_tokens_without_the_teacher(tmp_path):
    module, _ = fit(tmp_path)
    loaded = SemanticTokenizer.from_pretrained(str(tmp_path / "student"))
    assert loaded.identity() == module.tokenizer.identity()
    assert agreement(loaded, module.tokenizer) > 0.98  # weights are kept in half precision
    assert torch.equal(loaded.centroids, module.teacher.centroids)


def test_another_student_is_another_tokenizer():
    first, second = make_student(), make_student()
    assert first.identity() == second.identity()
    with torch.no_grad():
        second.head.bias += 0.1
    assert first.identity() != second.identity()


def test_a_checkpoint_holds_the_student_alone(tmp_path):
    module, trainer = fit(tmp_path, steps=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    state = torch.load(tmp_path / "one.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"student", "log_scale"}
    module.load_state_dict(state, strict=module.strict_loading)


def test_the_student_hears_noise_and_the_teacher_does_not(monkeypatch):
    module = SemanticDistillation(make_teacher(), make_student(), noise_db=(-10.0, -10.0))
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    heard = {}
    spectra = module.student.spectra
    monkeypatch.setattr(module.student, "spectra", lambda audio: spectra(heard.setdefault("student", audio)))
    extract = module.teacher.features.extract
    monkeypatch.setattr(module.teacher.features, "extract", lambda audio: extract(heard.setdefault("teacher", audio)))
    audio = make_audio()
    module.training_step(audio, 0)
    assert torch.equal(heard["teacher"], audio)
    noise = heard["student"] - audio
    ratio = 10 * torch.log10(noise.square().mean(1) / audio.square().mean(1))
    torch.testing.assert_close(ratio, torch.full_like(ratio, -10.0), atol=0.3, rtol=0)


def test_the_teacher_works_in_the_trainers_precision_and_is_compared_in_full(monkeypatch):
    module = SemanticDistillation(make_teacher(), make_student())
    extract, standardize = module.teacher.features.extract, module.teacher.standardize
    seen = []

    def watched(audio):
        seen.append(torch.is_autocast_enabled("cpu"))
        return extract(audio).bfloat16()

    def compared(frames):
        seen.append(frames.dtype)
        return standardize(frames)

    monkeypatch.setattr(module.teacher.features, "extract", watched)
    monkeypatch.setattr(module.teacher, "standardize", compared)
    with torch.autocast("cpu", torch.bfloat16):
        module.compare(make_audio(), make_audio())
    assert seen == [True, torch.float32]


def test_crops_longer_than_the_teacher_takes_are_refused():
    module = SemanticDistillation(make_teacher(), make_student())
    module.teacher.features.max_samples = 8000
    with pytest.raises(ValueError, match=r"1\.00 s of audio is more than the 0\.5 s the speech features take"):
        module.compare(make_audio(), make_audio())


def test_a_teacher_that_pools_gives_pooled_targets():
    features = LogMelFeatures(num_mels=6, context=0)
    teacher = SemanticTokenizer(features, 2, pool=2)
    teacher.set_codebook(torch.zeros(6), torch.ones(6), torch.stack([torch.zeros(6), torch.ones(6)]))
    student = DistilledFeatures(6, 16, 1, 2, 32, 3, hop_length=640, num_mels=12)
    audio = make_audio()
    _, logits, tokens, _ = SemanticDistillation(teacher, student).compare(audio, audio)
    assert len(logits) == len(tokens) == audio.shape[0] * audio.shape[1] // 640
    assert torch.equal(tokens, teacher.encode(audio).flatten())


@pytest.mark.parametrize("max_energy", [4.0, None])
def test_frames_of_enormous_norm_teach_nothing_unless_they_are_kept(monkeypatch, max_energy):
    module = SemanticDistillation(make_teacher(), make_student(), noise_db=None, max_energy=max_energy)
    logged = {}
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "log_dict", lambda values, **kwargs: logged.update(values))
    audio = make_audio()
    wanted = module.teacher.frames(audio)
    losses = []
    for size in (50.0, 500.0):
        frames = wanted.clone()
        frames[:, 7] = module.teacher.mean + size * module.teacher.std
        monkeypatch.setattr(module.teacher.features, "extract", lambda audio, frames=frames: frames)
        losses.append(module.training_step(audio, 0).item())
        module.validation_step(audio, 0)
    assert (losses[0] == losses[1]) == (max_energy is not None)
    assert logged["val/outliers"] == (0 if max_energy is None else pytest.approx(1 / wanted.shape[1]))
    assert (logged["val/distance"] < 10) == (max_energy is not None)


def test_a_students_training_goes_on_from_its_folder(tmp_path):
    module, _ = fit(tmp_path, steps=20)
    features = pretrained_features(str(tmp_path / "student"))
    further = SemanticDistillation(make_teacher(), features)
    audio = make_audio()
    torch.testing.assert_close(features.extract(audio), module.student.extract(audio), atol=2e-2, rtol=0)
    assert further.student.training
    assert next(further.student.parameters()).requires_grad
    further.training_step(audio, 0).backward()
    make_teacher().save_pretrained(tmp_path / "teacher")
    with pytest.raises(ValueError, match="LogMelFeatures; only DistilledFeatures can be trained on"):
        pretrained_features(str(tmp_path / "teacher"))


def test_a_student_that_is_told_positions_begins_as_it_was(tmp_path):
    fit(tmp_path, steps=20)
    audio = make_audio()
    told = pretrained_features(str(tmp_path / "student"), positions=30, dropout=0.2)
    torch.testing.assert_close(told.extract(audio), pretrained_features(str(tmp_path / "student")).extract(audio))
    assert told.init_args()["dropout"] == 0.2
    assert not told.training
    assert told.teacher is not None
    with torch.no_grad():
        told.place.weight.normal_()
    tokenizer = SemanticTokenizer(told, 8)
    tokenizer.set_codebook(torch.zeros(6), torch.ones(6), make_teacher().centroids)
    tokenizer.save_pretrained(tmp_path / "told")
    loaded = pretrained_features(str(tmp_path / "told"), dropout=0.0)
    assert loaded.positions == 30
    torch.testing.assert_close(loaded.extract(audio), told.extract(audio), atol=2e-2, rtol=0)
    assert pretrained_features(str(tmp_path / "told"), positions=40).identity() != loaded.identity()
    with pytest.raises(ValueError, match="has learnt 30 places; positions=0"):
        pretrained_features(str(tmp_path / "told"), positions=0)


def test_dropout_never_decides_over_tokens(tmp_path):
    fit(tmp_path, steps=1)
    features = pretrained_features(str(tmp_path / "student"), dropout=0.5)
    audio = make_audio()
    assert torch.equal(features(audio), features(audio))
    tokenizer = SemanticTokenizer(features, 8)
    tokenizer.set_codebook(torch.zeros(6), torch.ones(6), make_teacher().centroids)
    tokenizer.save_pretrained(tmp_path / "dropping")
    loaded = SemanticTokenizer.from_pretrained(str(tmp_path / "dropping"))
    assert torch.equal(loaded.frames(audio), loaded.frames(audio))
    module = SemanticDistillation(make_teacher(), features)
    assert not torch.equal(module.student.extract(audio), module.student.extract(audio))
    assert torch.equal(module.tokenizer.eval().frames(audio), module.tokenizer.eval().frames(audio))


def test_a_frame_is_told_its_place_up_to_the_last():
    student = DistilledFeatures(6, 16, 1, 2, 32, 3, num_mels=12, positions=5)
    student.trunk = torch.nn.Identity()  # no frame sees another
    with torch.no_grad():
        student.place.weight.normal_()
    same = torch.zeros(1, 8, 24)
    features = student.read(same)[0]
    assert len(features[:5].unique(dim=0)) == 5
    torch.testing.assert_close(features[4:], features[4:5].expand(4, -1))
    with pytest.raises(ValueError, match="positions=-1 is negative"):
        DistilledFeatures(6, positions=-1)


def test_sinusoids_are_whispers():
    config = WhisperConfig(
        d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=8, max_source_positions=40
    )
    expected = WhisperEncoder(config).embed_positions.weight
    torch.testing.assert_close(sinusoids(torch.arange(40), 16), expected, atol=1e-5, rtol=0)


def test_masks_hide_bands_in_both_spectra_and_stretches_of_time():
    torch.manual_seed(0)
    kept = mask_spectra(torch.ones(200, 300, 2 * 12), bands=4, frames=9) != 0
    earlier, later = kept.unflatten(2, (2, 12)).unbind(2)
    assert torch.equal(earlier, later)
    hidden_frames, hidden_bands = ~earlier.any(2), ~earlier.any(1)
    assert torch.equal(earlier, ~(hidden_frames[:, :, None] | hidden_bands[:, None]))
    # Two masks of 0 to 4 bands, three of 0 to 9 frames, which may meet.
    assert hidden_bands.sum(1).max() == 8
    assert 18 < hidden_frames.sum(1).max() <= 27
    assert 2.5 < hidden_bands.sum(1).float().mean() < 4
    assert 11 < hidden_frames.sum(1).float().mean() < 13.5
    assert hidden_bands.any(0).all()
    assert hidden_frames.any(0).all()
    assert mask_spectra(torch.ones(2, 300, 24), bands=0, frames=0).all()
    assert mask_spectra(torch.ones(2, 99, 24), bands=99, frames=99).shape == (2, 99, 24)


def test_masks_are_for_training_alone(monkeypatch):
    module = SemanticDistillation(make_teacher(), make_student(), noise_db=None, masked_bands=12)
    read, seen = module.student.read, []
    monkeypatch.setattr(module.student, "read", lambda spectra: read(seen.append(spectra) or spectra))
    audio = make_audio()
    module.train()
    module.compare(audio, audio)
    module.eval()
    module.compare(audio, audio)
    assert (seen[0] != module.student.spectra(audio)).any()
    assert torch.equal(seen[1], module.student.spectra(audio))


def test_frames_are_the_codecs():
    features = make_student()
    for samples in (1, 319, 320, 321, 16000):
        assert features(torch.zeros(1, samples)).shape == (1, -(-samples // 320), 6)


@pytest.mark.parametrize(
    ("student", "message"),
    [(make_student(7), "7 wide"), (DistilledFeatures(6, 16, 1, 2, 32, hop_length=640), "hop_length=640")],
)
def test_a_student_of_another_shape_is_refused(student, message):
    with pytest.raises(ValueError, match=message):
        SemanticDistillation(make_teacher(), student)


def test_a_teacher_without_codebook_is_refused():
    with pytest.raises(RuntimeError, match="no codebook"):
        SemanticDistillation(SemanticTokenizer(LogMelFeatures(num_mels=6, context=0), 8), make_student())
