"""Whisper, loaded through the real path."""

import pytest
import torch
import transformers as hf

from modules.evaluation import ScorerUnavailableError, WhisperRecognizer


@pytest.fixture(scope="module")
def recognizer(tiny_whisper):
    recognizer = WhisperRecognizer(str(tiny_whisper))
    recognizer.load()
    return recognizer


def test_transcribes_as_transformers_does(recognizer, tiny_whisper, make_item):
    audio = make_item.tone(2, seed=3)
    processor = hf.AutoProcessor.from_pretrained(tiny_whisper)
    model = hf.WhisperForConditionalGeneration.from_pretrained(tiny_whisper)
    inputs = processor(audio.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    model.generation_config.suppress_tokens.append(model.config.vocab_size - 1)  # time stamps, see below
    tokens = model.generate(inputs, language="en", task="transcribe", max_new_tokens=30)
    expected = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
    assert expected
    assert recognizer.transcribe([audio]) == [expected]


def test_a_transcript_is_capped_by_the_duration_of_its_own_clip(recognizer, make_item):
    short, long = make_item.tone(0.5), make_item.tone(3, seed=1)
    recognizer_rate = recognizer.max_tokens_per_second
    together = recognizer.transcribe([short, long])
    assert together == recognizer.transcribe([short]) + recognizer.transcribe([long])
    # The model never stops by itself: the caps are what ends its transcripts.
    words = [len(text.replace(".", " .").replace(",", " ,").split()) for text in together]
    assert words == [10 + int(recognizer_rate * 0.5), 10 + int(recognizer_rate * 3)]


def test_time_stamps_are_never_said(tiny_whisper, tmp_path, make_item):
    model = hf.WhisperForConditionalGeneration.from_pretrained(tiny_whisper)
    stamp = model.generation_config.no_timestamps_token_id + 1
    # Left to itself this model says stamps and nothing else, which would make it listen to the clip for ever.
    model.generation_config.suppress_tokens = list(range(1, stamp))
    model.save_pretrained(tmp_path)
    hf.AutoProcessor.from_pretrained(tiny_whisper).save_pretrained(tmp_path)
    recognizer = WhisperRecognizer(str(tmp_path))
    recognizer.load()
    assert set(recognizer.transcribe([make_item.tone(1)])[0].split()) == {"red"}


def test_long_clips_are_cut_where_it_is_quiet(recognizer):
    audio = torch.ones(50 * 16_000)
    audio[25 * 16_000 : 25 * 16_000 + 3200] = 0
    pieces = recognizer._windows(audio)
    assert sum(map(len, pieces)) == len(audio)
    assert len(pieces) == 2
    assert 25 <= len(pieces[0]) / 16_000 <= 25.2


def test_empty_audio_has_an_empty_transcript(recognizer):
    assert recognizer.transcribe([torch.zeros(0)]) == [""]


def test_normalises_with_the_spelling_table_of_the_model(recognizer):
    assert recognizer.normalizer("The COLOUR, isn't it?") == "the color is not it"


def test_a_folder_without_spelling_table_keeps_spellings(tiny_whisper, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in tiny_whisper.iterdir():
        if file.name != "normalizer.json":
            (bare / file.name).write_bytes(file.read_bytes())
    without = WhisperRecognizer(str(bare))
    without.load()
    given = WhisperRecognizer(str(bare), spellings=tiny_whisper / "normalizer.json")
    given.load()
    assert without.normalizer("Colour!") == "colour"
    assert given.normalizer("Colour!") == "color"
    assert without.normalizer.identity() != given.normalizer.identity()


def test_the_revision_follows_the_weights_not_the_folder(recognizer, tiny_whisper, tmp_path):
    model = hf.WhisperForConditionalGeneration.from_pretrained(tiny_whisper)
    processor = hf.AutoProcessor.from_pretrained(tiny_whisper)
    revisions = []
    for name in ("same", "other"):
        if name == "other":
            model.proj_out.weight.data[0, 0] += 1
        for part in (model, processor):
            part.save_pretrained(tmp_path / name)
        copy = WhisperRecognizer(str(tmp_path / name))
        copy.load()
        revisions.append(copy.identity()["revision"])
    assert revisions[0] == recognizer.identity()["revision"]
    assert revisions[1] != revisions[0]


def test_a_hub_id_that_cannot_be_reached_is_unavailable():
    with pytest.raises(ScorerUnavailableError, match=r"'nobody/no-such-model' cannot be loaded.*; name a local folder"):
        WhisperRecognizer("nobody/no-such-model").load()


def test_weights_are_never_filled_in_at_random(tiny_whisper, tmp_path):
    folder = tmp_path / "broken"
    model = hf.WhisperForConditionalGeneration.from_pretrained(tiny_whisper)
    weights = {key: value for key, value in model.state_dict().items() if "encoder.conv1" not in key}
    model.save_pretrained(folder, state_dict=weights)
    hf.AutoProcessor.from_pretrained(tiny_whisper).save_pretrained(folder)
    with pytest.raises(ScorerUnavailableError, match="lacks weights"):
        WhisperRecognizer(str(folder)).load()


def test_a_generation_config_without_languages_is_named(tiny_whisper, tmp_path):
    folder = tmp_path / "old"
    model = hf.WhisperForConditionalGeneration.from_pretrained(tiny_whisper)
    del model.generation_config.lang_to_id
    model.save_pretrained(folder)
    hf.AutoProcessor.from_pretrained(tiny_whisper).save_pretrained(folder)
    with pytest.raises(ScorerUnavailableError, match=r"generation_config\.json of .* does not list the language 'en'"):
        WhisperRecognizer(str(folder)).load()
