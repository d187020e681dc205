import numpy as np
import pytest
import soundfile

from datamodules.audio_export import write_audio


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".FLAC"])
def test_audio_comes_back_with_what_is_said_about_it(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    tone = 0.5 * np.sin(np.arange(16000) * 0.1, dtype=np.float32)
    write_audio(file, tone, 16000, "Nobody said this", title="u1")
    with soundfile.SoundFile(file) as sound:
        assert (sound.format, sound.comment, sound.title) == (suffix[1:].upper(), "Nobody said this", "u1")
        audio = sound.read()
        assert np.abs(audio).mean() == pytest.approx(np.abs(tone).mean(), abs=0.02)
        assert len(audio) / sound.samplerate == pytest.approx(1.0, abs=0.02)
    assert list(tmp_path.iterdir()) == [file]


def test_loud_audio_is_clipped_and_does_not_wrap_around(tmp_path):
    write_audio(tmp_path / "a.wav", np.array([2.0, -3.0]), 16000, "loud")
    assert soundfile.read(tmp_path / "a.wav")[0] == pytest.approx([1.0, -1.0], abs=1e-4)


def test_a_format_that_is_not_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.mp4: the format is told by the suffix, one of \.wav, \.flac, \.ogg"):
        write_audio(tmp_path / "a.mp4", np.zeros(9), 16000, "never")
