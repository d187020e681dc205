"""What the reader makes of good and of unusable audio."""

from io import BytesIO

import numpy as np
import pytest
import soundfile
import torch

from datamodules.audio_files import AudioReader, UnusableAudio, audio_seconds, part_count

READ = AudioReader(sample_rate=16000)


def tone(seconds=0.5, rate=16000, hertz=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def loudest_hertz(audio, rate):
    spectrum = np.abs(np.fft.rfft(np.asarray(audio) * np.hanning(len(audio))))
    return spectrum.argmax() * rate / len(audio)


@pytest.mark.parametrize(
    ("name", "rate", "options"),
    [
        ("a.wav", 22050, {}),
        ("a.flac", 44100, {}),
        ("a.ogg", 24000, {}),
        ("a.opus", 48000, {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", 32000, {}),
        ("a.wav", 16000, {"subtype": "FLOAT"}),
    ],
)
def test_reads_every_format_at_the_sample_rate_asked_for(tmp_path, name, rate, options):
    soundfile.write(tmp_path / name, tone(0.5, rate), rate, **options)
    audio = READ(tmp_path / name)
    assert audio.dtype == torch.float32
    assert audio.ndim == 1
    assert abs(len(audio) - 8000) <= 160 + 16 * 30 * (name == "a.mp3")
    assert abs(loudest_hertz(audio, 16000) - 440) < 5
    assert 0.4 < audio.abs().max() <= 1


def test_reads_the_content_of_a_file_as_the_file_itself(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(), 16000)
    content = BytesIO((tmp_path / "a.flac").read_bytes())
    assert torch.equal(READ(content), READ(tmp_path / "a.flac"))
    assert audio_seconds(content) == 0.5


def test_eight_channels_are_averaged(tmp_path):
    channels = np.stack([tone(level=level) for level in (0.8, 0.0, 0.0, 0.0, 0.4, 0.0, 0.0, 0.4)], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, 16000, subtype="FLOAT")
    np.testing.assert_allclose(READ(tmp_path / "a.wav"), tone(level=0.2), atol=1e-6)


def test_what_is_louder_than_full_scale_is_scaled_down_undistorted(tmp_path):
    soundfile.write(tmp_path / "a.wav", 32767 * tone(), 16000, subtype="FLOAT")
    audio = READ(tmp_path / "a.wav")
    np.testing.assert_allclose(audio, tone() / tone().max(), atol=1e-5)


def test_parts_join_up_to_the_whole(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.03), 16000, subtype="FLOAT")
    parts = [READ(tmp_path / "a.wav", part, 4) for part in range(4)]
    assert torch.equal(torch.cat(parts), READ(tmp_path / "a.wav"))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_are_as_few_as_the_limit_allows():
    assert [part_count(seconds, 30) for seconds in (0, 0.5, 30, 30.01, 60, 3600)] == [1, 1, 1, 2, 2, 120]


def write_unusable(folder, kind):
    file = folder / f"{kind}.wav"
    if kind == "empty":
        file.touch()
    elif kind == "no-samples":
        soundfile.write(file, tone(0), 16000)
    elif kind == "unreadable":
        file.write_bytes(b"these bytes are no audio " * 9)
    elif kind == "folder":
        file.mkdir()
    elif kind in ("nan", "infinite"):
        soundfile.write(
            file, np.where(np.arange(8000) == 7, {"nan": np.nan, "infinite": np.inf}[kind], tone()), 16000, "FLOAT"
        )
    elif kind == "silent":
        soundfile.write(file, tone(level=5e-5), 16000, "FLOAT")
    elif kind == "short":
        soundfile.write(file, tone(0.09), 16000)
    elif kind == "long":
        soundfile.write(file, np.tile(tone(1, 1000), 61), 1000)
    elif kind == "anti-phase":
        soundfile.write(file, np.stack([tone(), -tone()], axis=1), 16000)
    elif kind == "one-quiet-channel":
        soundfile.write(file, np.stack([tone(level=1.5e-4), tone(level=0)], axis=1), 16000, "FLOAT")
    elif kind in ("cut-off.flac", "cut-off.mp3"):
        file = folder / kind
        soundfile.write(file, np.random.default_rng(0).uniform(-0.5, 0.5, 32000), 16000)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "0 bytes"),
        ("no-samples", "holds no samples"),
        ("unreadable", "cannot be read as audio"),
        ("folder", "cannot be read as audio"),
        ("nan", "NaN"),
        ("infinite", "infinite"),
        ("silent", "silent"),
        ("anti-phase", "channels cancel each other out"),
        ("one-quiet-channel", "is silent: no sample reaches"),
        ("short", "0.090 s, shorter than min_seconds = 0.1"),
        ("long", "61.0 s, longer than max_seconds = 60; set segment_seconds"),
        ("cut-off.flac", r"cannot be decoded \(.{9}"),
        ("cut-off.mp3", "is cut off: 0.9. of 2.00 s are there"),
    ],
)
def test_unusable_audio_is_refused_with_the_reason_on_one_line(tmp_path, kind, reason):
    file = write_unusable(tmp_path, kind)
    with pytest.raises(UnusableAudio, match=reason) as refusal:
        READ(file)
    assert "\n" not in str(refusal.value)
    assert "object at 0x" not in str(refusal.value)


def test_content_that_is_no_audio_is_refused():
    for content in (b"", b"RIFF", b"fLaC" + bytes(100)):
        with pytest.raises(UnusableAudio):
            READ(BytesIO(content))


def test_what_the_resampler_does_not_take_is_refused(tmp_path, monkeypatch):
    def resample(*args, **kwargs):
        raise ValueError("no such ratio")

    monkeypatch.setattr("soxr.resample", resample)
    soundfile.write(tmp_path / "a.wav", tone(), 7)
    with pytest.raises(UnusableAudio, match="cannot be resampled from 7 Hz"):
        AudioReader(16000, max_seconds=2000)(tmp_path / "a.wav")
