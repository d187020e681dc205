"""Parity with transformers, on tiny models in the real format."""

import copy
import json
import shutil
from math import ceil
from pathlib import Path

import pytest
import torch
import transformers as hf

from modules.semantic import TransformersFeatures

FAMILIES = ["hubert", "hubert-large", "wavlm", "wav2vec2", "w2v-bert", "whisper"]


def direct(folder, audio, layer):
    """The same hidden states by transformers alone: the whole model and its own feature extractor, one clip."""
    extractor = hf.AutoFeatureExtractor.from_pretrained(folder)
    model = hf.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = extractor(audio.numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states[layer][0]
    if "attention_mask" in inputs:  # w2v-BERT: an odd last filterbank frame is padded and masked out
        states = states[inputs["attention_mask"][0].bool()]
    return states


def sliced_whisper(folder, audio, layer):
    """Whisper's own forward pass in a model whose position table has been cut to the clip."""
    extractor = hf.AutoFeatureExtractor.from_pretrained(folder)
    mel = torch.from_numpy(extractor(audio.numpy(), sampling_rate=16_000, padding="do_not_pad").input_features[0])
    encoder = hf.AutoModel.from_pretrained(folder, dtype=torch.float32).eval().encoder
    num_frames = ceil(mel.shape[-1] / 2)
    encoder.config.max_source_positions = num_frames
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:num_frames])
    if mel.shape[-1] % 2:  # Whisper insists on whole pairs; zeros are what its convolution pads with
        pytest.fail("choose an even number of mel frames")
    with torch.no_grad():
        return encoder(mel[None], output_hidden_states=True).hidden_states[layer][0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("layer", "num_samples"),
    # An even number of mel frames for Whisper, an odd one for w2v-BERT. Layer 3 is the topmost, behind which some
    # models normalise; in a short clip it matters how the standardisation over its frames is done.
    [(1, 20_950), (3, 1_750)],
)
def test_features_are_the_full_models_hidden_states(encoders, speechlike, family, layer, num_samples):
    audio = speechlike(num_samples)
    reference = (sliced_whisper if family == "whisper" else direct)(encoders[family], audio, layer)

    features = TransformersFeatures(encoders[family], layer=layer)(audio[None])[0]

    assert features.shape == reference.shape
    torch.testing.assert_close(features, reference, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_front_end_is_the_feature_extractor(encoders, speechlike, family):
    audio = speechlike(1_750)
    options = {"padding": "do_not_pad"} if family == "whisper" else {}
    extractor = hf.AutoFeatureExtractor.from_pretrained(encoders[family])
    reference = extractor(audio.numpy(), sampling_rate=16_000, return_tensors="pt", **options)
    reference = reference["input_values" if "input_values" in reference else "input_features"]
    prepared = TransformersFeatures(encoders[family], layer=1).front_end(audio[None])
    if family == "w2v-bert":
        reference = reference[:, : prepared.shape[1]]
    torch.testing.assert_close(prepared, reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_layer_would_be_noticed(encoders, speechlike, family):
    audio = speechlike(16_000)[None]
    first, second = (TransformersFeatures(encoders[family], layer=layer)(audio) for layer in (1, 2))
    assert (first - second).abs().mean() > 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_above_the_layer_are_not_built(encoders, family):
    names = [name for name, _ in TransformersFeatures(encoders[family], layer=2).named_modules()]
    assert any(".layers.1." in name for name in names)
    assert not any(".layers.2." in name or "decoder" in name or "adapter" in name for name in names)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("hubert", {399: 0, 400: 1, 719: 1, 720: 2, 16_000: 49, 320_000: 999}),
        ("hubert-large", {399: 0, 400: 1, 719: 1, 720: 2, 16_000: 49}),
        ("wavlm", {399: 0, 400: 1, 719: 1, 720: 2, 16_000: 49}),
        ("wav2vec2", {399: 0, 400: 1, 719: 1, 720: 2, 16_000: 49}),
        ("w2v-bert", {559: 0, 560: 1, 879: 1, 880: 2, 16_000: 49, 320_000: 999}),
        ("whisper", {200: 0, 201: 1, 479: 1, 480: 2, 640: 2, 800: 3, 16_000: 50, 320_000: 1000}),
    ],
)
def test_number_of_frames(encoders, speechlike, family, expected):
    features = TransformersFeatures(encoders[family], layer=1)
    for num_samples, num_frames in expected.items():
        assert features.num_frames(num_samples) == num_frames
        if 0 < num_frames < 100:
            assert features(speechlike(num_samples)[None]).shape == (1, num_frames, features.dim)
        elif num_frames == 0:
            with pytest.raises(ValueError, match="too short for one frame"):
                features(speechlike(num_samples)[None])


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_depend_on_one_another(encoders, speechlike, family):
    features = TransformersFeatures(encoders[family], layer=2)
    loud, faint = speechlike(12_345, seed=1), 0.01 * speechlike(12_345, seed=2)
    together = features(torch.stack([loud, faint]))
    torch.testing.assert_close(together[0], features(loud[None])[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[1], features(faint[None])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "matters"), [("hubert", False), ("wavlm", True)])
def test_audio_is_standardised_as_the_preprocessor_says(encoders, speechlike, family, matters):
    features, audio = TransformersFeatures(encoders[family], layer=1), speechlike(8000)[None]
    change = (features(audio) - features(0.1 * audio)).abs().max()
    assert (change > 1e-2) == matters


def test_whisper_refuses_more_than_its_positions(encoders):
    with pytest.raises(ValueError, match=r"30.02 s of audio is more than the 30 s"):
        TransformersFeatures(encoders["whisper"], layer=1)(torch.zeros(1, 480_320))


def test_features_stay_frozen_in_evaluation_mode(encoders, speechlike):
    features = TransformersFeatures(encoders["wav2vec2"], layer=2)
    torch.nn.Sequential(features).train()
    audio = speechlike(8000)[None].requires_grad_()
    first, second = features(audio), features(audio)
    torch.testing.assert_close(first, second, rtol=0, atol=0)  # no dropout, no masking
    assert not first.requires_grad


def test_autocast_does_not_reach_the_features(encoders, speechlike):
    features, audio = TransformersFeatures(encoders["hubert"], layer=2), speechlike(8000)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = features(audio)
    torch.testing.assert_close(under_autocast, features(audio), rtol=0, atol=0)


def test_identity_follows_weights_and_layer_not_the_folder(encoders, tmp_path):
    identity = TransformersFeatures(encoders["hubert"], layer=2).identity()
    assert identity["name"] == "hubert"
    assert identity["layer"] == 2

    moved = shutil.copytree(encoders["hubert"], tmp_path / "moved")
    assert TransformersFeatures(str(moved), layer=2).identity() == identity
    assert TransformersFeatures(encoders["hubert"], layer=1).identity() != identity

    preprocessor = json.loads((moved / "preprocessor_config.json").read_text())
    (moved / "preprocessor_config.json").write_text(json.dumps({**preprocessor, "do_normalize": False}))
    assert TransformersFeatures(str(moved), layer=2).identity() != identity

    model = hf.AutoModel.from_pretrained(encoders["hubert"])
    model.encoder.layers[1].final_layer_norm.bias.data[0] += 1e-3
    model.save_pretrained(tmp_path / "changed")
    shutil.copy(Path(encoders["hubert"]) / "preprocessor_config.json", tmp_path / "changed")
    assert TransformersFeatures(str(tmp_path / "changed"), layer=2).identity() != identity


def test_weights_are_float32_whatever_the_file_holds(encoders, tmp_path):
    hf.AutoModel.from_pretrained(encoders["whisper"], dtype=torch.float16).save_pretrained(tmp_path)
    shutil.copy(Path(encoders["whisper"]) / "preprocessor_config.json", tmp_path)
    features = TransformersFeatures(str(tmp_path), layer=1)
    assert {parameter.dtype for parameter in features.parameters()} == {torch.float32}


def test_missing_layer_is_named(encoders):
    for layer in (0, 4):
        with pytest.raises(ValueError, match=f"layers 1 to 3, layer {layer} was asked for"):
            TransformersFeatures(encoders["hubert"], layer=layer)


def test_missing_weights_are_an_error_instead_of_noise(encoders, tmp_path):
    model = hf.AutoModel.from_pretrained(encoders["hubert"])
    state = {name: value for name, value in model.state_dict().items() if "layers.1.attention.k_proj" not in name}
    model.save_pretrained(tmp_path, state_dict=copy.deepcopy(state))
    shutil.copy(Path(encoders["hubert"]) / "preprocessor_config.json", tmp_path)
    with pytest.raises(ValueError, match=r"lacks weights of a HubertModel: encoder\.layers\.1\.attention\.k_proj"):
        TransformersFeatures(str(tmp_path), layer=2)


def test_models_that_are_no_speech_encoder_are_named(tmp_path):
    hf.ASTFeatureExtractor().save_pretrained(tmp_path)
    hf.ASTConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"ASTFeatureExtractor; speech encoders with .*Wav2Vec2FeatureExtractor"):
        TransformersFeatures(str(tmp_path), layer=1)


def test_unreachable_models_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"speech encoder 'nobody/nothing' is no local folder .*hf download") as caught:
        TransformersFeatures("nobody/nothing", layer=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="cannot be read"):
        TransformersFeatures(str(tmp_path), layer=1)


def test_loading_leaves_the_verbosity_of_transformers_alone(encoders, capfd):
    hf.utils.logging.set_verbosity_info()
    try:
        TransformersFeatures(encoders["hubert"], layer=1)
        assert hf.utils.logging.get_verbosity() == hf.utils.logging.INFO
    finally:
        hf.utils.logging.set_verbosity_warning()
    assert "UNEXPECTED" not in capfd.readouterr().err
