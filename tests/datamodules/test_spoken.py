import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from datamodules.audio import AudioDataModule
from datamodules.spoken import COMMENT, KokoroSynthesizer, SpokenText, Voice, VoiceSynthesizer, tilted


class Hum(VoiceSynthesizer):
    """Hums 200 Hz for half a second, the shorter the faster it is asked to speak, and counts what it was asked."""

    sample_rate = 24_000

    def __init__(self):
        self.said = []

    def draw_voice(self, generator):
        return Voice(f"voice{generator.integers(3)}", np.zeros(1, np.float32), "en-us")

    def speak(self, text, voice, speed):
        self.said.append((text, voice.name))
        if "?" in text:
            raise ValueError("no phonemes")
        if "hush" in text:
            return np.zeros(12_000, np.float32)
        return np.sin(2 * np.pi * 200 * np.arange(round(12_000 / speed)) / 24_000).astype(np.float32)


def spoken(folder: Path, lines="One here.\nTwo there.\n", **arguments) -> SpokenText:
    (folder / "text.txt").write_text(lines, encoding="utf-8")
    settings = {"tilt_db": 0.0, "snr_db": (60.0, 60.0), "synthesizer": Hum(), **arguments}
    return SpokenText(str(folder / "text.txt"), str(folder / "audio"), **settings)


def content(source: SpokenText) -> dict[str, bytes]:
    """What is heard, without titles and comments."""
    return {utterance.text: soundfile.read(utterance.path)[0].tobytes() for utterance in source}


def pitch(audio: np.ndarray, sample_rate: int) -> float:
    padded = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 8 * len(audio)))
    return padded.argmax() * sample_rate / (8 * len(audio))


def test_every_sentence_is_spoken_once_and_says_so(tmp_path):
    source = spoken(tmp_path, "One here.\n\n  Two   there.\nOne here.\n")
    source.prepare()
    assert [text for text, _ in source.synthesizer.said] == ["One here.", "Two there."] == [u.text for u in source]
    assert [voice for _, voice in source.synthesizer.said] == source.speakers()
    with soundfile.SoundFile(source[0].path) as file:
        assert (file.samplerate, file.channels, file.comment) == (16_000, 1, COMMENT)


def test_prepare_goes_on_where_it_was_stopped(tmp_path):
    source = spoken(tmp_path)
    source.prepare()
    before = content(source)
    Path(source[1].path).unlink()
    source.prepare()
    assert [text for text, _ in source.synthesizer.said[2:]] == ["Two there."]
    assert content(source) == before


def test_a_sentence_sounds_the_same_wherever_it_stands(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    ranges = {"tilt_db": 2.5, "snr_db": (28.0, 60.0)}
    one, other = (
        spoken(tmp_path / "a", **ranges),
        spoken(tmp_path / "b", "New.\nTwo there.\nOne here.\n", **ranges),
    )
    one.prepare(), other.prepare()
    assert content(one).items() <= content(other).items()
    assert len(set(content(other).values())) == 3


def test_another_seed_is_another_recording(tmp_path):
    one, other = spoken(tmp_path), spoken(tmp_path, seed=1)
    one.prepare(), other.prepare()
    assert not set(one.ids()) & set(other.ids())
    assert content(one)["One here."] != content(other)["One here."]


def test_a_smaller_vocal_tract_is_higher_and_not_faster(tmp_path):
    source = spoken(tmp_path, vocal_tract=(1.1, 1.1), speed=(1.0, 1.0))
    source.prepare()
    audio, rate = soundfile.read(source[0].path)
    assert pitch(audio, rate) == pytest.approx(220, abs=1.5)
    assert len(audio) == pytest.approx(8000, abs=20)


def test_speed_shortens_and_does_not_raise(tmp_path):
    source = spoken(tmp_path, vocal_tract=(1.0, 1.0), speed=(1.2, 1.2))
    source.prepare()
    audio, rate = soundfile.read(source[0].path)
    assert pitch(audio, rate) == pytest.approx(200, abs=1.5)
    assert len(audio) == pytest.approx(8000 / 1.2, abs=20)


def test_noise_and_peak_are_as_loud_as_asked(tmp_path):
    source = spoken(tmp_path, snr_db=(20.0, 20.0), peak=(0.5, 0.5), vocal_tract=(1.0, 1.0), speed=(1.0, 1.0))
    source.prepare()
    audio, _ = soundfile.read(source[0].path)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    hum = spectrum[90:111].sum()  # 200 Hz of a second of 16 kHz, half as many bins here
    assert 10 * np.log10(hum / (spectrum.sum() - hum)) == pytest.approx(20, abs=1)
    assert np.abs(audio).max() == pytest.approx(0.5, rel=0.3)


def test_tilt_is_in_decibels_per_octave():
    noise = np.random.default_rng(0).normal(size=16_000)
    gain = 20 * np.log10(np.abs(np.fft.rfft(tilted(noise, 16_000, -2.0)) / np.fft.rfft(noise)))
    assert gain[[500, 1000, 4000]] == pytest.approx([2.0, 0.0, -4.0], abs=0.01)
    assert gain[1:100] == pytest.approx(gain[100], abs=0.01)


def test_what_cannot_be_spoken_is_named_and_the_rest_is_made(tmp_path):
    source = spoken(tmp_path, "???\nhush\nTwo there.\n")
    with pytest.warns(UserWarning, match=r"2 sentences .* '\?\?\?' \(no phonemes\)"):
        source.prepare()
    assert [Path(utterance.path).exists() for utterance in source] == [False, False, True]
    data = AudioDataModule(source, batch_size=3)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert len(batch.ids) == 1
    assert len(batch.rejected) == 2


@pytest.mark.parametrize("argument", ["vocal_tract", "speed", "snr_db", "peak"])
@pytest.mark.parametrize("values", [(1.0, 0.5), (0.0, 1.0)])
def test_a_range_that_is_none_is_refused(tmp_path, argument, values):
    with pytest.raises(ValueError, match=argument):
        spoken(tmp_path, **{argument: values})


@pytest.mark.parametrize("arguments", [{"peak": (0.5, 1.5)}, {"tilt_db": -1.0}])
def test_a_peak_above_full_scale_or_a_negative_tilt_is_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        spoken(tmp_path, **arguments)


def test_a_missing_or_empty_text_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"text\.txt holds no sentence"):
        len(spoken(tmp_path, "\n \n"))
    with pytest.raises(FileNotFoundError, match="sentence on each line"):
        len(SpokenText(str(tmp_path / "none.txt"), str(tmp_path), Hum()))


@pytest.fixture
def kokoro(tmp_path, monkeypatch):
    """Kokoro's package and files, of the right shape; it says how it was asked to speak."""
    names = ["af_one", "af_two", "af_nicole", "am_one", "bf_one", "bm_one", "zm_one"]
    np.savez(tmp_path / "voices.npz", **{n: np.full((510, 1, 256), k, np.float32) for k, n in enumerate(names)})
    (tmp_path / "model.onnx").touch()
    asked = []

    class Kokoro:
        rate = 24_000

        def __init__(self, model, voices):
            asked.append((model, voices))

        def create(self, text, voice, speed, lang):
            asked.append((text, voice, speed, lang))
            return np.ones(100, np.float32), self.rate

    monkeypatch.setitem(sys.modules, "kokoro_onnx", SimpleNamespace(Kokoro=Kokoro))
    return SimpleNamespace(folder=tmp_path, names=names, asked=asked, Kokoro=Kokoro)


def kokoro_synthesizer(kokoro, **arguments) -> KokoroSynthesizer:
    return KokoroSynthesizer(str(kokoro.folder / "model.onnx"), str(kokoro.folder / "voices.npz"), **arguments)


def test_kokoro_draws_english_voices_and_mixes_two_of_a_kind(kokoro):
    synthesizer = kokoro_synthesizer(kokoro)
    generator = np.random.default_rng(0)
    voices = [synthesizer.draw_voice(generator) for _ in range(300)]
    assert {name for voice in voices for name in voice.name.split("-")[:2]} == {
        "af_one", "af_two", "am_one", "bf_one", "bm_one",
    }  # fmt: skip
    mixed = {voice.name: voice.style.max() for voice in voices if voice.name.count("-") == 2}
    assert mixed == {
        "af_one-af_two-0.35": pytest.approx(0.35), "af_two-af_one-0.35": pytest.approx(0.65),
        "af_one-af_two-0.5": pytest.approx(0.5), "af_two-af_one-0.5": pytest.approx(0.5),
    }  # fmt: skip
    assert all((voice.language == "en-gb") == voice.name.startswith("b") for voice in voices)


def test_kokoro_draws_kinds_as_often_as_asked(kokoro):
    synthesizer = kokoro_synthesizer(kokoro, kinds={"zm": 3, "am": 1})
    generator = np.random.default_rng(0)
    names = [synthesizer.draw_voice(generator).name for _ in range(1000)]
    assert names.count("zm_one") == pytest.approx(750, abs=50)
    assert names.count("am_one") == 1000 - names.count("zm_one")


def test_kokoro_is_asked_for_the_voice_the_speed_and_the_language(kokoro):
    synthesizer = kokoro_synthesizer(kokoro)
    voice = Voice("x", np.full((510, 1, 256), 7, np.float32), "en-gb")
    assert len(synthesizer.speak("Hello.", voice, 1.25)) == 100
    made, (text, style, speed, language) = kokoro.asked
    assert made == (synthesizer.model, synthesizer.voices)
    assert (text, speed, language) == ("Hello.", 1.25, "en-gb")
    assert style is voice.style


def test_what_kokoro_lacks_is_named(kokoro, monkeypatch):
    generator = np.random.default_rng(0)
    voice = Voice("x", np.zeros((510, 1, 256), np.float32), "en-us")
    with pytest.raises(ValueError, match="no voices of the kind 'xx'"):
        kokoro_synthesizer(kokoro, kinds={"xx": 1}).draw_voice(generator)
    with pytest.raises(FileNotFoundError, match=r"none\.npz is no file"):
        KokoroSynthesizer("model.onnx", "none.npz").draw_voice(generator)
    with pytest.raises(FileNotFoundError, match=r"none\.onnx is no file"):
        KokoroSynthesizer("none.onnx", "none.npz").speak("Hello.", voice, 1.0)
    kokoro.Kokoro.rate = 22_050
    with pytest.raises(ValueError, match="22050 Hz, not at 24000"):
        kokoro_synthesizer(kokoro).speak("Hello.", voice, 1.0)
    monkeypatch.setitem(sys.modules, "kokoro_onnx", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[speak\]'"):
        kokoro_synthesizer(kokoro).speak("Hello.", voice, 1.0)
