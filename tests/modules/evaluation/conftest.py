"""Tiny models with random weights, saved as published ones are, and items to score."""

import json

import pytest
import torch
import transformers as hf

from modules.evaluation import EvaluationItem

WORDS = ["Ġred", "Ġgreen", "Ġblue", "Ġcolour", "Ġone", "Ġtwo", "Ġthree", "Ġsea", "Ġsky", "Ġsun", ".", ","]
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
SPECIAL += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory):
    """A folder with a Whisper that says random words of WORDS."""
    folder = tmp_path_factory.mktemp("whisper")
    ids = {token: number for number, token in enumerate([*WORDS, *SPECIAL])}
    (folder / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    tokenizer = hf.WhisperTokenizer(
        vocab={**ids, "<|0.00|>": len(ids)}, merges=[], normalizer_file=str(folder / "normalizer.json")
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    features = hf.WhisperFeatureExtractor(feature_size=80)
    end = ids["<|endoftext|>"]
    config = hf.WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_target_positions=64,
        init_std=1.0,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(0)
    model = hf.WhisperForConditionalGeneration(config)
    model.generation_config._from_model_config = False
    generation = model.generation_config
    generation.is_multilingual = True
    generation.lang_to_id = {"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]}
    generation.task_to_id = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    generation.no_timestamps_token_id = ids["<|notimestamps|>"]
    generation.prev_sot_token_id = ids["<|startofprev|>"]
    generation.suppress_tokens = [ids[token] for token in SPECIAL[1:]]
    model.save_pretrained(folder)
    hf.WhisperProcessor(features, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_xvector(tmp_path_factory):
    """A folder with a WavLM that has an x-vector head."""
    folder = tmp_path_factory.mktemp("xvector")
    config = hf.WavLMConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(16, 16, 16, 16, 32),
        xvector_output_dim=16,
        classifier_proj_size=8,
    )
    torch.manual_seed(0)
    hf.WavLMForXVector(config).save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def tone(seconds, hertz=200.0, seed=0, sample_rate=16_000):
    """A tone with some noise, so that clips differ."""
    time = torch.arange(int(seconds * sample_rate)) / sample_rate
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
    return 0.3 * torch.sin(2 * torch.pi * hertz * time) + 0.02 * noise


@pytest.fixture
def make_item():
    """Make an item; every field has a default."""

    def make(audio=None, **values):
        audio = tone(8) if audio is None else audio
        defaults = dict(
            id="a", system="soundstorm", condition="prompted", split="short", audio=audio, original=audio,
            sample_rate=16_000, prompt_seconds=3.0, own_prompt=True, seed=1, speaker="s", text="red green blue",
        )  # fmt: skip
        return EvaluationItem(**(defaults | values))

    make.tone = tone
    return make


@pytest.fixture(scope="session")
def make_tiny_ctc(tmp_path_factory):
    """Make a folder with a recogniser that says random letters."""

    def make(kind):
        folder = tmp_path_factory.mktemp(kind)
        letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"]
        (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
        tokenizer = hf.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
        sizes = dict(
            vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            conv_dim=(16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, initializer_range=1.0,
        )  # fmt: skip
        torch.manual_seed(0)
        config, model = {
            "wav2vec2": (hf.Wav2Vec2Config, hf.Wav2Vec2ForCTC),
            "hubert": (hf.HubertConfig, hf.HubertForCTC),
        }[kind]
        model(config(**sizes)).save_pretrained(folder)
        hf.Wav2Vec2Processor(hf.Wav2Vec2FeatureExtractor(do_normalize=True), tokenizer).save_pretrained(folder)
        return folder

    return make
