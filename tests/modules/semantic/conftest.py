"""Tiny speech encoders on disk."""

import numpy as np
import pytest
import torch
import transformers as hf

SMALL = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
CONVOLUTIONS = dict(
    conv_dim=(16,) * 7,
    conv_kernel=(10, 3, 3, 3, 3, 2, 2),
    conv_stride=(5, 2, 2, 2, 2, 2, 2),
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2,
)


def _waveform(normalize):
    return hf.Wav2Vec2FeatureExtractor(do_normalize=normalize)


def _hubert():
    config = hf.HubertConfig(**SMALL, **CONVOLUTIONS, num_feat_extract_layers=7)
    return hf.HubertModel(config), _waveform(True)


def _hubert_large():
    # Norm before the blocks instead of behind them, as in the large models.
    config = hf.HubertConfig(**SMALL, **CONVOLUTIONS, do_stable_layer_norm=True, feat_extract_norm="layer")
    return hf.HubertModel(config), _waveform(True)


def _wavlm():
    return hf.WavLMModel(hf.WavLMConfig(**SMALL, **CONVOLUTIONS, num_buckets=16)), _waveform(False)


def _wav2vec2():
    config = hf.Wav2Vec2Config(**SMALL, **CONVOLUTIONS, add_adapter=True, output_hidden_size=24)
    return hf.Wav2Vec2Model(config), _waveform(True)


def _w2v_bert():
    config = hf.Wav2Vec2BertConfig(
        **SMALL, feature_projection_input_dim=160, conv_depthwise_kernel_size=7, left_max_position_embeddings=8
    )
    return hf.Wav2Vec2BertModel(config), hf.SeamlessM4TFeatureExtractor(padding_value=1.0)


def _whisper():
    config = hf.WhisperConfig(
        d_model=24,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = hf.WhisperModel(config)
    # The real table is sinusoidal and far from the tiny weights' scale; a distinct one shows which rows are used.
    model.encoder.embed_positions.weight.data.normal_()
    return model, hf.WhisperFeatureExtractor()


MAKERS = {
    "hubert": _hubert,
    "hubert-large": _hubert_large,
    "wavlm": _wavlm,
    "wav2vec2": _wav2vec2,
    "w2v-bert": _w2v_bert,
    "whisper": _whisper,
}


@pytest.fixture(scope="session")
def encoders(tmp_path_factory):
    """Folders of tiny random speech encoders, by family, in the format of the real ones."""
    folders = {}
    for name, make in MAKERS.items():
        torch.manual_seed(len(folders))
        model, extractor = make()
        # Pre-training initialises with tiny weights, next to which every layer would look like the one before.
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
        extractor.save_pretrained(folders[name])
    return {name: str(folder) for name, folder in folders.items()}


@pytest.fixture
def speechlike():
    """Noise under a slow envelope, ``[N]`` samples."""

    def make(num_samples, seed=0):
        rng = np.random.default_rng(seed)
        knots = rng.random(num_samples // 2000 + 2)
        envelope = np.interp(np.arange(num_samples), 2000 * np.arange(len(knots)), knots)
        return torch.from_numpy((0.3 * envelope * rng.standard_normal(num_samples)).astype(np.float32))

    return make
