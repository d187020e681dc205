"""Semantic tokens, and the folder they come from."""

import json

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from safetensors import safe_open

from modules.batches import SoftTokens
from modules.semantic import LogMelFeatures, Posterior, SemanticTokenizer, SpeechFeatures, TransformersFeatures


class Counter(SpeechFeatures):
    """One dimension per frame of 320 samples: the mean of its samples."""

    sample_rate, hop_length, dim = 16_000, 320, 1

    def num_frames(self, num_samples):
        return num_samples // 320

    def extract(self, audio):
        return audio[:, : self.num_frames(audio.shape[1]) * 320].unfold(1, 320, 320).mean(dim=2, keepdim=True)

    def identity(self):
        return {"name": "counter", "revision": 1}

    def init_args(self):
        return {}


def staircase(*levels):
    return torch.tensor(levels, dtype=torch.float32).repeat_interleave(320)[None]


def counter_tokenizer(pool=1, mean=0.0, std=1.0):
    tokenizer = SemanticTokenizer(Counter(), num_clusters=4, pool=pool)
    tokenizer.set_codebook(torch.tensor([mean]), torch.tensor([std]), torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    return tokenizer


def random_tokenizer(features, num_clusters=16, pool=1):
    tokenizer = SemanticTokenizer(features, num_clusters, pool)
    centroids = torch.randn(num_clusters, features.dim)
    tokenizer.set_codebook(torch.randn(features.dim), 0.5 + torch.rand(features.dim), centroids)
    return tokenizer


def test_tokens_are_the_nearest_centroids_of_standardised_frames():
    assert counter_tokenizer().encode(staircase(0, 0.4, 0.6, 2, 9)).tolist() == [[0, 0, 1, 2, 3]]
    # (x - 10) / 2
    assert counter_tokenizer(mean=10, std=2).encode(staircase(10, 12, 12.8, 13.2, 15)).tolist() == [[0, 1, 1, 2, 2]]


def test_distances_are_euclidean(speechlike):
    tokenizer = random_tokenizer(LogMelFeatures())
    frames = tokenizer.standardize(tokenizer.frames(speechlike(8000)[None]))
    tokens, squared = tokenizer.nearest(frames)
    distances = torch.cdist(frames.double(), tokenizer.centroids.double()[None])
    assert torch.equal(tokens, distances.argmin(dim=2))
    torch.testing.assert_close(squared.double(), distances.amin(dim=2).square(), rtol=1e-4, atol=1e-4)


def test_pooling_averages_pairs_and_keeps_a_single_last_frame():
    tokenizer = counter_tokenizer(pool=2)
    assert tokenizer.frame_rate == 25
    assert tokenizer.frames(staircase(0, 2, 3, 5, 7)).flatten().tolist() == [1, 4, 7]
    assert tokenizer.encode(staircase(0, 2, 2, 2, 3)).tolist() == [[1, 2, 3]]
    assert [tokenizer.num_tokens(320 * frames) for frames in (1, 2, 3, 4)] == [1, 1, 2, 2]


def test_rates_and_vocabulary():
    tokenizer = SemanticTokenizer(LogMelFeatures(), num_clusters=100, pool=2)
    assert (tokenizer.sample_rate, tokenizer.hop_length, tokenizer.vocab_size) == (16_000, 640, 100)
    assert tokenizer.exact_frame_rate == 25


def test_without_codebook_encoding_names_the_remedy():
    tokenizer = SemanticTokenizer(LogMelFeatures(), num_clusters=4)
    assert not tokenizer.fitted
    with pytest.raises(RuntimeError, match="has no codebook: fit one with `soundstorm fit"):
        tokenizer.encode(torch.zeros(1, 4000))
    with pytest.raises(RuntimeError, match="has no codebook"):
        tokenizer.save_pretrained("nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": torch.zeros(2)}, r"mean has shape \[2\] where the tokenizer needs \[1\]"),
        ({"centroids": torch.zeros(5, 1)}, r"centroids has shape \[5, 1\] where the tokenizer needs \[4, 1\]"),
        ({"centroids": torch.full((4, 1), torch.nan)}, "centroids holds values that are not finite"),
        ({"std": torch.zeros(1)}, "std holds values that are not positive"),
    ],
)
def test_codebooks_that_do_not_fit_are_refused(change, message):
    codebook = {"mean": torch.zeros(1), "std": torch.ones(1), "centroids": torch.zeros(4, 1)} | change
    with pytest.raises(ValueError, match=message):
        SemanticTokenizer(Counter(), num_clusters=4).set_codebook(**codebook)


@pytest.mark.parametrize("pool", [1, 2])
def test_saved_tokenizer_gives_the_same_tokens(encoders, speechlike, tmp_path, pool):
    tokenizer = random_tokenizer(TransformersFeatures(encoders["wavlm"], layer=2), pool=pool)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    again = SemanticTokenizer.from_pretrained(str(tmp_path / "tokenizer"))
    audio = speechlike(9999)[None]
    assert torch.equal(tokenizer.encode(audio), again.encode(audio))
    assert again.identity() == tokenizer.identity()
    assert again.frame_rate == tokenizer.frame_rate


def test_folder_holds_the_codebook_and_not_the_encoder(encoders, tmp_path):
    random_tokenizer(TransformersFeatures(encoders["hubert"], layer=2)).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["centroids", "mean", "std"]
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {
        "class_path": "modules.semantic.SemanticTokenizer",
        "init_args": {
            "features": {
                "class_path": "modules.semantic.TransformersFeatures",
                "init_args": {"model": encoders["hubert"], "layer": 2, "revision": None},
            },
            "num_clusters": 16,
            "pool": 1,
        },
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.yaml", "model.safetensors"]


def test_features_can_be_given_at_load(encoders, tmp_path):
    tokenizer = random_tokenizer(TransformersFeatures(encoders["hubert"], layer=2))
    tokenizer.save_pretrained(tmp_path)
    config = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace(encoders["hubert"], "/moved/away"))
    with pytest.raises(OSError, match="'/moved/away'"):
        SemanticTokenizer.from_pretrained(str(tmp_path))
    again = SemanticTokenizer.from_pretrained(str(tmp_path), features=tokenizer.features)
    assert again.identity() == tokenizer.identity()


def test_features_of_another_model_are_refused(encoders, tmp_path):
    random_tokenizer(TransformersFeatures(encoders["hubert"], layer=2)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"fitted on the features .*hubert.*, not on .*wavlm"):
        SemanticTokenizer.from_pretrained(str(tmp_path), TransformersFeatures(encoders["wavlm"], layer=2))


@pytest.mark.parametrize(
    "class_path",
    ["os.system", "subprocess.Popen", "modules.semantic.tokenizer.SemanticTokenizer", "modules.semantic.log_mel.math"],
)
def test_configuration_cannot_name_foreign_classes(tmp_path, class_path):
    random_tokenizer(LogMelFeatures()).save_pretrained(tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["init_args"]["features"]["class_path"] = class_path
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"names '.*', which is no SpeechFeatures of modules\.semantic"):
        SemanticTokenizer.from_pretrained(str(tmp_path))


def test_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no semantic tokenizer \(it has no config.yaml\).*soundstorm fit"):
        SemanticTokenizer.from_pretrained(str(tmp_path))


@pytest.mark.parametrize("content", ["", "just text", "init_args: {features: {}}", "{"])
def test_damaged_configuration_is_named(tmp_path, content):
    random_tokenizer(LogMelFeatures()).save_pretrained(tmp_path)
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml does not describe a semantic tokenizer"):
        SemanticTokenizer.from_pretrained(str(tmp_path))


def test_identity_tells_codebooks_apart():
    one, other = random_tokenizer(LogMelFeatures()), random_tokenizer(LogMelFeatures())
    assert one.identity() != other.identity()
    assert json.loads(json.dumps(one.identity())) == one.identity()


def test_arrays_made_elsewhere_can_be_imported(tmp_path):
    tokenizer = counter_tokenizer(mean=10, std=2)
    arrays = {name: getattr(tokenizer, name).numpy() for name in ("mean", "std", "centroids")}
    np.savez(tmp_path / "codebook.npz", **arrays)
    imported = SemanticTokenizer.from_npz(Counter(), str(tmp_path / "codebook.npz"))
    assert imported.encode(staircase(10, 12, 15)).tolist() == [[0, 1, 2]]
    np.savez(tmp_path / "half.npz", mean=arrays["mean"])
    with pytest.raises(ValueError, match=r"holds \['mean'\]: no centroids, std"):
        SemanticTokenizer.from_npz(Counter(), str(tmp_path / "half.npz"))


def test_configuration_files_can_name_saved_and_imported_tokenizers(tmp_path):
    tokenizer = random_tokenizer(LogMelFeatures(), pool=2)
    tokenizer.save_pretrained(tmp_path)
    np.savez(tmp_path / "codebook.npz", **{name: getattr(tokenizer, name) for name in ("mean", "std", "centroids")})
    parser = ArgumentParser()
    parser.add_argument("--semantic", type=SemanticTokenizer)
    features = {"class_path": "modules.semantic.LogMelFeatures"}
    for method, init_args in {
        "from_pretrained": {"folder": str(tmp_path)},
        "from_npz": {"features": features, "path": str(tmp_path / "codebook.npz"), "pool": 2},
    }.items():
        config = {"class_path": f"modules.semantic.SemanticTokenizer.{method}", "init_args": init_args}
        built = parser.instantiate(parser.parse_object({"semantic": config})).semantic
        assert built.identity() == tokenizer.identity()


def test_imported_arrays_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "codebook.npz", mean=np.array([object()]), std=np.ones(1), centroids=np.zeros((4, 1)))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        SemanticTokenizer.from_npz(Counter(), str(tmp_path / "codebook.npz"))


def test_a_posterior_is_a_softmax_over_squared_distances_per_dimension(speechlike):
    tokenizer = random_tokenizer(LogMelFeatures(), num_clusters=16)
    audio = speechlike(8000)[None]
    frames = tokenizer.standardize(tokenizer.frames(audio))
    squared = torch.cdist(frames.double(), tokenizer.centroids.double()[None]).square()
    soft = tokenizer.encode_soft(audio, Posterior(num_tokens=16, sharpness=3.0))
    expected = (-3.0 * squared / frames.shape[-1]).softmax(-1).float()
    torch.testing.assert_close(soft.spread(16), expected, atol=1e-5, rtol=1e-4)
    few = tokenizer.encode_soft(audio, Posterior(num_tokens=3, sharpness=3.0))
    assert torch.equal(few.tokens, soft.tokens[..., :3])
    torch.testing.assert_close(few.probabilities.sum(-1), torch.ones(few.tokens.shape[:2]))
    ratio = few.probabilities[..., 0] / few.probabilities[..., 1]
    torch.testing.assert_close(ratio, soft.probabilities[..., 0] / soft.probabilities[..., 1], rtol=1e-3, atol=1e-4)


def test_the_most_probable_token_is_the_token(speechlike):
    tokenizer = random_tokenizer(LogMelFeatures(), pool=2)
    audio = speechlike(9000)[None]
    soft = tokenizer.encode_soft(audio, Posterior(4, 5.0))
    assert torch.equal(soft.tokens[..., 0], tokenizer.encode(audio))
    assert (soft.probabilities.diff(dim=-1) <= 0).all()


def test_more_tokens_than_there_are_cannot_be_probable():
    with pytest.raises(ValueError, match="num_tokens=5 of 4 semantic tokens: ask for fewer"):
        counter_tokenizer().encode_soft(staircase(0, 1), Posterior(5))


@pytest.mark.parametrize("num_tokens", [0, 2.0, True, "2"])
def test_a_number_of_probable_tokens_that_makes_no_sense_is_refused(num_tokens):
    with pytest.raises(ValueError, match=f"num_tokens={num_tokens!r} must be a whole number"):
        Posterior(num_tokens=num_tokens)


@pytest.mark.parametrize("sharpness", [0, -1.0, float("nan"), "30", None, True])
def test_a_sharpness_that_makes_no_sense_is_refused(sharpness):
    with pytest.raises(ValueError, match=f"sharpness={sharpness!r} must be a positive number"):
        Posterior(sharpness=sharpness)


def test_probabilities_are_laid_out_by_token_and_padding_adds_nothing():
    tokens = torch.tensor([[[2, 0], [0, 0], [0, 0]]])
    probabilities = torch.tensor([[[0.75, 0.25], [1.0, 0.0], [0.0, 0.0]]])
    assert SoftTokens(tokens, probabilities).spread(3).tolist() == [[[0.25, 0, 0.75], [1, 0, 0], [0, 0, 0]]]
