"""wav2vec 2.0 and HuBERT with a CTC head, loaded through the real path."""

import pytest
import torch
import transformers as hf

from modules.evaluation import CtcRecognizer, ScorerUnavailableError, WordErrors


@pytest.fixture(scope="module")
def wav2vec2(make_tiny_ctc):
    return make_tiny_ctc("wav2vec2")


@pytest.fixture(scope="module")
def recognizer(wav2vec2):
    recognizer = CtcRecognizer(str(wav2vec2))
    recognizer.load()
    return recognizer


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_transcribes_as_transformers_does(make_tiny_ctc, make_item, kind):
    folder = make_tiny_ctc(kind)
    audio = make_item.tone(2, seed=3)
    processor = hf.AutoProcessor.from_pretrained(folder)
    model = hf.AutoModelForCTC.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**processor(audio.numpy(), sampling_rate=16_000, return_tensors="pt")).logits
    expected = processor.batch_decode(logits.argmax(-1), skip_special_tokens=True)[0].strip()
    recognizer = CtcRecognizer(str(folder))
    recognizer.load()
    assert expected
    assert recognizer.transcribe([audio]) == [expected]
    assert recognizer.identity()["class"] == type(model).__name__


def test_a_clip_is_heard_alike_beside_longer_ones(recognizer, make_item):
    short, long = make_item.tone(1), make_item.tone(3, seed=1)
    assert recognizer.transcribe([short, long]) == recognizer.transcribe([short]) + recognizer.transcribe([long])


def test_long_clips_are_heard_in_pieces(wav2vec2, make_item):
    recognizer = CtcRecognizer(str(wav2vec2), max_seconds=1.0)
    recognizer.load()
    audio = make_item.tone(2.5)
    audio[int(0.8 * 16_000) : int(0.9 * 16_000)] = 0
    first, *_ = recognizer.transcribe([audio])
    assert first.startswith(recognizer.transcribe([audio[: int(0.8 * 16_000) + 26]])[0][:1])
    assert len(first) > 0


def test_what_is_too_short_has_an_empty_transcript(recognizer):
    assert recognizer.transcribe([torch.zeros(0), torch.zeros(300)]) == ["", ""]


def test_serves_word_errors(recognizer, make_item):
    scores = WordErrors(recognizer).score(make_item(text="A B C"))
    assert scores.values["words"] == 3
    assert scores.values["reference"] == "a b c"
    assert scores.values["hypothesis"] == scores.values["transcript"].lower()


def test_a_model_without_ctc_head_is_refused(wav2vec2, tmp_path):
    config = hf.Wav2Vec2Config.from_pretrained(wav2vec2)
    hf.Wav2Vec2Model(config).save_pretrained(tmp_path)
    with pytest.raises(ScorerUnavailableError, match="lacks weights of Wav2Vec2ForCTC"):
        CtcRecognizer(str(tmp_path)).load()


def test_a_folder_without_tokenizer_is_named(wav2vec2, tmp_path):
    hf.Wav2Vec2ForCTC.from_pretrained(wav2vec2).save_pretrained(tmp_path)
    with pytest.raises(ScorerUnavailableError, match="has no feature extractor or tokenizer"):
        CtcRecognizer(str(tmp_path)).load()
