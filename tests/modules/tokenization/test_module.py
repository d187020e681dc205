"""Batches of audio to batches of tokens."""

import math

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from modules.batches import AudioBatch, Rejection
from modules.codec.codec import AudioCodec
from modules.semantic import LogMelFeatures, Posterior, SemanticTokenizer
from modules.tokenization import Tokenization


class LoudnessCodec(AudioCodec):
    """Two levels of 16: the loudness of each frame, coarse and fine."""

    num_quantizers, codebook_size = 2, 16

    def __init__(self, sample_rate=16_000, hop_length=320):
        super().__init__()
        self.sample_rate, self.hop_length = sample_rate, hop_length

    def encode(self, audio):
        num_frames = math.ceil(audio.shape[1] / self.hop_length)
        padded = torch.nn.functional.pad(audio, (0, num_frames * self.hop_length - audio.shape[1]))
        loudness = padded.unflatten(1, (num_frames, -1)).abs().amax(dim=2).clamp(0, 0.999)
        return torch.stack([(loudness * 16).long(), (loudness * 256).long() % 16], dim=1)

    def decode(self, codes):
        raise NotImplementedError

    def identity(self):
        return {"name": "loudness", "revision": "1"}


class LateFeatures(LogMelFeatures):
    """Log-mel features without the last three frames."""

    def num_frames(self, num_samples):
        return super().num_frames(num_samples) - 3

    def extract(self, audio):
        return super().extract(torch.nn.functional.pad(audio, (0, 3 * self.hop_length)))[
            :, : self.num_frames(audio.shape[1])
        ]


def tokenizer_of(features, pool=1):
    tokenizer = SemanticTokenizer(features, num_clusters=32, pool=pool)
    tokenizer.set_codebook(torch.zeros(features.dim), torch.ones(features.dim), torch.randn(32, features.dim))
    return tokenizer


@pytest.fixture
def semantic():
    return tokenizer_of(LogMelFeatures())


def batch_of(lengths, sample_rate=16_000, rejected=(), paths=()):
    generator = torch.Generator().manual_seed(0)
    ids = [f"clip-{index}" for index in range(len(lengths))]
    audio = [0.5 * torch.randn(length, generator=generator).clamp(-1.9, 1.9) for length in lengths]
    return AudioBatch(ids, audio, sample_rate, [f"s{i}" for i in ids], [f"t{i}" for i in ids], list(rejected), paths)


def row(batch, index):
    return AudioBatch(
        batch.ids[index : index + 1],
        batch.audio[index : index + 1],
        batch.sample_rate,
        batch.speakers[index : index + 1],
        batch.texts[index : index + 1],
        [],
    )


def test_tokens_of_a_batch_are_those_of_each_utterance_alone(semantic):
    module = Tokenization(LoudnessCodec(), semantic)
    batch = batch_of([16_000, 8_001, 16_000, 321, 8_001, 40_000])
    together = module.predict_step(batch, 0)
    assert together.ids == batch.ids
    assert (together.speakers, together.texts) == (batch.speakers, batch.texts)
    for index in range(len(batch.ids)):
        alone = module.predict_step(row(batch, index), 0)
        assert torch.equal(together.codes[index], alone.codes[0])
        assert torch.equal(together.semantic[index], alone.semantic[0])
        num_frames = math.ceil(len(batch.audio[index]) / 320)
        assert together.codes[index].shape == (2, num_frames)
        assert together.semantic[index].shape == (num_frames,)


def test_semantic_tokens_are_brought_to_the_codecs_rate():
    semantic = tokenizer_of(LogMelFeatures(), pool=2)
    batch = batch_of([16_000])
    tokens = semantic.encode(batch.audio[0][None])[0]
    tokenized = Tokenization(LoudnessCodec(), semantic).predict_step(batch, 0)
    assert torch.equal(tokenized.semantic[0], tokens.repeat_interleave(2))


def test_audio_is_resampled_for_the_semantic_tokenizer(semantic):
    time = torch.arange(24_000) / 24_000
    tones = 0.3 * torch.sin(2 * math.pi * (300 + 2000 * time) * time)
    low = 0.3 * torch.sin(2 * math.pi * (300 + 2000 * time[:16_000] * 1.5) * time[:16_000] * 1.5)
    codec = LoudnessCodec(sample_rate=24_000, hop_length=480)
    batch = AudioBatch(["tones"], [tones], 24_000, [""], [""], [])
    tokenized = Tokenization(codec, semantic).predict_step(batch, 0)
    same = tokenized.semantic[0] == semantic.encode(low[None])[0]
    assert same.float().mean() > 0.9
    assert (tokenized.semantic[0] == semantic.encode(tones[None])[0, :50]).float().mean() < 0.5


def test_an_utterance_that_drifts_is_rejected_and_the_others_go_on():
    earlier = Rejection("broken", "broken.wav", "cannot be read")
    batch = batch_of([16_000, 640, 16_000], rejected=[earlier])  # 640 samples leave no frame of features at all
    module = Tokenization(LoudnessCodec(), tokenizer_of(LateFeatures()))
    module.max_drift = 3
    tokenized = module.predict_step(batch, 0)
    assert tokenized.ids == ["clip-0", "clip-2"]
    assert tokenized.speakers == ["sclip-0", "sclip-2"]
    assert tokenized.rejected[0] == earlier
    assert tokenized.rejected[1].id == "clip-1"
    assert "too short" in tokenized.rejected[1].reason

    tokenized = Tokenization(LoudnessCodec(), tokenizer_of(LateFeatures())).predict_step(batch, 0)
    assert tokenized.ids == []
    assert [rejection.id for rejection in tokenized.rejected] == ["broken", "clip-0", "clip-2", "clip-1"]
    assert tokenized.rejected[1].reason.startswith("47 semantic tokens at 50/s and 50 codec frames at 50/s")


def test_a_rejection_names_the_file():
    paths = [f"speech/{number}.flac" for number in range(3)]
    batch = batch_of([16_000, 640, 16_000], paths=paths)
    tokenized = Tokenization(LoudnessCodec(), tokenizer_of(LateFeatures())).predict_step(batch, 0)
    assert {rejection.id: rejection.path for rejection in tokenized.rejected} == dict(
        zip(batch.ids, paths, strict=True)
    )
    without = Tokenization(LoudnessCodec(), tokenizer_of(LateFeatures())).predict_step(batch._replace(paths=()), 0)
    assert {rejection.path for rejection in without.rejected} == {""}


@pytest.mark.parametrize(("hop_length", "max_drift"), [(320, 2), (213, 640 / 213), (640, 2)])
def test_drift_may_be_two_frames_of_codec_or_features(semantic, hop_length, max_drift):
    assert float(Tokenization(LoudnessCodec(hop_length=hop_length), semantic).max_drift) == pytest.approx(max_drift)


def test_other_sample_rates_stop_the_run(semantic):
    with pytest.raises(
        ValueError, match=r"comes at 8000 Hz, the codec needs 16000 Hz: set data.init_args.sample_rate=16000"
    ):
        Tokenization(LoudnessCodec(), semantic).predict_step(batch_of([16_000], sample_rate=8000), 0)


def test_a_batch_without_audio_passes(semantic):
    rejected = [Rejection("a", "a.wav", "is silent")]
    tokenized = Tokenization(LoudnessCodec(), semantic).predict_step(batch_of([], rejected=rejected), 0)
    assert (tokenized.ids, tokenized.codes, tokenized.rejected) == ([], [], rejected)


def test_card_describes_the_tokens(semantic):
    card = Tokenization(LoudnessCodec(), semantic).card()
    assert card["codec"]["name"] == "loudness"
    assert card["semantic"] == semantic.identity()
    assert {name: card[name] for name in list(card)[2:]} == {
        "sample_rate": 16_000,
        "frame_rate": 50.0,
        "num_quantizers": 2,
        "codebook_size": 16,
        "semantic_vocab_size": 32,
        "soft_semantic": None,
    }


def test_card_needs_a_codebook():
    with pytest.raises(RuntimeError, match="no codebook"):
        Tokenization(LoudnessCodec(), SemanticTokenizer(LogMelFeatures(), 8)).card()


def trainer(folder):
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, default_root_dir=folder
    )


def test_predict_runs_under_a_trainer(semantic, tmp_path):
    batches = [batch_of([16_000, 9_000]), batch_of([4_000])]
    loader = DataLoader(batches, batch_size=None)
    predicted = trainer(tmp_path).predict(Tokenization(LoudnessCodec(), semantic), loader)
    assert [batch.ids for batch in predicted] == [["clip-0", "clip-1"], ["clip-0"]]
    assert predicted[0].semantic[1].shape == (29,)


def test_fit_says_what_to_run_instead(semantic, tmp_path):
    loader = DataLoader([batch_of([16_000])], batch_size=None)
    with pytest.raises(RuntimeError, match="can only predict: run `soundstorm predict"):
        trainer(tmp_path).fit(Tokenization(LoudnessCodec(), semantic), loader)


def test_soft_tokens_lie_beside_the_tokens_they_soften_at_the_codecs_rate():
    semantic = tokenizer_of(LogMelFeatures(), pool=2)
    batch = batch_of([16_000, 8_001, 16_000])
    plain = Tokenization(LoudnessCodec(), semantic)
    soft = Tokenization(LoudnessCodec(), semantic, Posterior(4, 2.0))
    expected, made = plain.predict_step(batch, 0), soft.predict_step(batch, 0)
    assert list(expected.soft_semantic) == []
    for index, found in enumerate(made.soft_semantic):
        assert torch.equal(made.semantic[index], expected.semantic[index])
        assert torch.equal(made.codes[index], expected.codes[index])
        assert torch.equal(found.tokens[:, 0], made.semantic[index])
        alone = semantic.encode_soft(batch.audio[index][None], Posterior(4, 2.0))
        half = torch.arange(len(found.tokens)) // 2
        assert torch.equal(found.tokens, alone.tokens[0, half])
        torch.testing.assert_close(found.probabilities, alone.probabilities[0, half])
    assert plain.card()["soft_semantic"] is None
    assert soft.card()["soft_semantic"] == {"num_tokens": 4, "sharpness": 2.0}


def test_more_soft_tokens_than_the_tokenizer_knows_are_refused_before_any_audio(semantic):
    with pytest.raises(ValueError, match="num_tokens=33 of 32"):
        Tokenization(LoudnessCodec(), semantic, Posterior(33))
