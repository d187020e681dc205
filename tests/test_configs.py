"""Every file under configs/ is parsed and everything it names is built, with tiny models in the place of hub ids."""

import contextlib
import re
from pathlib import Path

import pytest
import torch
import transformers as hf
import yaml
from jsonargparse import ArgumentParser
from lightning import LightningModule

from modules.codec import AudioCodec
from modules.semantic import LogMelFeatures, Posterior, SemanticTokenizer
from modules.soundstorm import DecodingSchedule, SoundStormNetwork
from pipeline.stages import make_cli

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
FRAGMENTS = {"network": SoundStormNetwork, "codec": AudioCodec}
ENCODER = {"hidden_size": 16, "num_hidden_layers": 17, "num_attention_heads": 2, "intermediate_size": 16}


def is_fragment(path: Path) -> bool:
    return "class_path" in yaml.safe_load(path.read_text())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs"))


def tiny_dac(sample_rate: int, strides: list[int]) -> hf.DacModel:
    return hf.DacModel(
        hf.DacConfig(
            encoder_hidden_size=4,
            decoder_hidden_size=16,
            downsampling_ratios=strides,
            upsampling_ratios=strides[::-1],
            n_codebooks=12,
            codebook_dim=4,
            sampling_rate=sample_rate,
        )
    )


def tiny_models(folder: Path) -> dict[str, Path]:
    """Save a tiny model in the real format for every hub id that the files name."""
    convolutions = {"conv_dim": (8,) * 7, "num_feat_extract_layers": 7, "num_conv_pos_embedding_groups": 2}
    whisper = hf.WhisperConfig(
        d_model=16, encoder_layers=6, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    speech = hf.Wav2Vec2FeatureExtractor()
    models = {
        "descript/dac_16khz": (tiny_dac(16_000, [2, 4, 5, 8]), None),
        "descript/dac_24khz": (tiny_dac(24_000, [2, 4, 5, 8]), None),
        "facebook/w2v-bert-2.0": (
            hf.Wav2Vec2BertModel(hf.Wav2Vec2BertConfig(**ENCODER, feature_projection_input_dim=160)),
            hf.SeamlessM4TFeatureExtractor(padding_value=1.0),
        ),
        "facebook/hubert-base-ls960": (hf.HubertModel(hf.HubertConfig(**ENCODER, **convolutions)), speech),
        "openai/whisper-base": (hf.WhisperModel(whisper), hf.WhisperFeatureExtractor()),
    }  # fmt: skip
    folders = {}
    for hub_id, (model, processor) in models.items():
        folders[hub_id] = folder / hub_id.replace("/", "--")
        model.save_pretrained(folders[hub_id])
        if processor is not None:
            processor.save_pretrained(folders[hub_id])
    return folders


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the files with tiny models for hub ids, and what earlier stages would have written."""
    root = tmp_path_factory.mktemp("checkout")
    folders = tiny_models(root / "models")
    for path in FILES:
        text = path.read_text()
        for hub_id, folder in folders.items():
            text = text.replace(hub_id, str(folder))
        copy = root / "configs" / name(path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
    demo, other = LogMelFeatures(), LogMelFeatures(num_mels=512, context=0, window_length=4096)
    for folder, features in {
        "runs/semantic/w2v_bert/tokenizer": demo,
        "runs/semantic/whisper_base/tokenizer": other,  # as wide as the teacher in distilled.yaml
    }.items():
        tokenizer = SemanticTokenizer(features, num_clusters=256)
        tokenizer.set_codebook(torch.zeros(features.dim), torch.ones(features.dim), torch.randn(256, features.dim))
        tokenizer.save_pretrained(root / folder)
    (root / "checkpoints").symlink_to(ROOT / "checkpoints")
    (root / "datamodules").symlink_to(ROOT / "datamodules")
    for part in ("distilled", "distilled_longer", "distilled_sentences"):
        (root / "runs/semantic" / part).mkdir()
        (root / "runs/semantic" / part / "tokenizer").symlink_to(ROOT / "checkpoints/small-16k/semantic")
    for run in ("small", "small_longer", "small_student", "small_spoken", "small_guidance", "soundstorm"):
        (root / "runs" / run).mkdir()
        (root / "runs" / run / "network").symlink_to(ROOT / "checkpoints/small-16k/soundstorm")
    for empty in ("speech", "data/librilight/large"):
        (root / empty).mkdir(parents=True)
    return root


@pytest.fixture
def published_weights_stay_real(monkeypatch):
    """Load them where everything else is built on no device."""
    load = hf.PreTrainedModel.from_pretrained.__func__

    def load_on_cpu(cls, *args, **options):
        with torch.device("cpu"):
            return load(cls, *args, **options)

    monkeypatch.setattr(hf.PreTrainedModel, "from_pretrained", classmethod(load_on_cpu))


# Lyra's stage runs in tests/modules/codec.
STAGE_FILES = [p for p in FILES if not is_fragment(p) and p.stem != "lyra_rvq" and p.parent.name != "schedule"]


@pytest.mark.parametrize("path", STAGE_FILES, ids=name)
@pytest.mark.usefixtures("published_weights_stay_real")
def test_a_stage_is_built_from_its_file(path, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    preset = ["-c", "configs/soundstorm/small.yaml"] if path.parent.name == "training" else []
    with torch.device("meta" if path.stem.startswith("paper") else "cpu"):
        cli = make_cli(
            [
                *preset,
                "-c",
                f"configs/{name(path)}",
                "--trainer.accelerator=cpu",
                "--trainer.devices=1",
                "--trainer.strategy=auto",
            ],
            run=False,
        )
    assert isinstance(cli.model, LightningModule)
    assert cli.datamodule is not None


# The other codecs are built from their files in tests/modules/codec.
@pytest.mark.parametrize(
    "path",
    [p for p in FILES if is_fragment(p) and (p.parent.name == "network" or p.stem in ("dac_16khz", "small_16k"))],
    ids=name,
)
def test_a_part_is_built_from_its_file(path, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    kind = FRAGMENTS[path.parent.name]
    parser = ArgumentParser()
    parser.add_argument("part", type=kind)
    value = yaml.safe_load((checkout / "configs" / name(path)).read_text())
    parsed = parser.parse_object({"part": value})
    with torch.device("meta" if path.stem == "paper" else "cpu"):
        assert isinstance(parser.instantiate_classes(parsed).part, kind)


def test_the_papers_network_is_the_default_network():
    values = yaml.safe_load((ROOT / "configs/network/paper.yaml").read_text())["init_args"]
    with torch.device("meta"):
        count = sum(p.numel() for p in SoundStormNetwork(**values).parameters())
        assert count == sum(p.numel() for p in SoundStormNetwork().parameters()) == 353_899_520


@pytest.mark.parametrize(("preset", "millions"), [("small", 20), ("base", 95)])
def test_presets_have_the_size_that_they_say(preset, millions):
    values = yaml.safe_load((ROOT / f"configs/network/{preset}.yaml").read_text())["init_args"]
    with torch.device("meta"):
        assert round(sum(p.numel() for p in SoundStormNetwork(**values).parameters()) / 1e6) == millions


def test_the_shipped_system_is_measured_as_it_speaks():
    read = lambda file: yaml.safe_load((ROOT / file).read_text())  # noqa: E731
    model, config = (
        read("configs/generate/small_guided.yaml")["model"]["init_args"],
        read("checkpoints/small-16k/config.yaml"),
    )
    measured = read(f"configs/schedule/{Path(model['schedule']).name}")
    iterations = {"iterations": list(DecodingSchedule().iterations)}
    assert vars(DecodingSchedule(**iterations | measured)) == vars(DecodingSchedule(**iterations | config["schedule"]))
    assert model["soft_semantic"] is bool(config["soft_semantic"])
    (soft,) = re.findall(r"^SOFT := --model.init_args.soft '(.*)'$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert Posterior(**yaml.safe_load(soft)) == Posterior(**config["soft_semantic"])


def test_the_papers_training_departs_from_nothing():
    config = yaml.safe_load((ROOT / "configs/soundstorm/paper.yaml").read_text())
    assert "masking" not in config["model"]["init_args"]
    assert "schedule" not in config["model"]["init_args"]
    assert config["trainer"]["max_epochs"] == 10
    assert config["data"]["init_args"]["max_seconds"] == 30


@pytest.mark.parametrize(
    ("fast", "asked", "taken"),
    [(False, "bf16-mixed", "32-true"), (True, "bf16-mixed", "bf16-mixed"), (False, "bf16-true", "bf16-true")],
)
def test_where_bfloat16_is_slow_float32_takes_its_place_in_mixed_precision(checkout, monkeypatch, fast, asked, taken):
    monkeypatch.chdir(checkout)
    monkeypatch.setattr("pipeline.stages.multiplies_bfloat16", lambda device: fast)
    arguments = ["-c", "configs/soundstorm/synthetic.yaml", "--trainer.accelerator=cpu", f"--trainer.precision={asked}"]
    with (
        contextlib.nullcontext() if asked == taken else pytest.warns(UserWarning, match="bfloat16 is slow on this CPU")
    ):
        cli = make_cli(arguments, run=False)
    assert cli.trainer.precision == taken
