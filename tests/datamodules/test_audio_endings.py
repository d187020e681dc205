"""Which cut-off files are noticed; none may pass with a transcript that says more."""

import struct
from io import BytesIO

import numpy as np
import pytest
import soundfile

from datamodules.audio_endings import why_incomplete
from datamodules.audio_files import AudioReader, UnusableAudio, audio_seconds

READ = AudioReader(16_000)
WRITERS = {
    "vorbis.ogg": {},
    "opus.opus": {"format": "OGG", "subtype": "OPUS"},
    "flac.flac": {},
    "pcm.wav": {},
    "float.wav": {"subtype": "FLOAT"},
    "extensible.wav": {"format": "WAVEX"},
    "rf64.wav": {"format": "RF64"},
    "xing.mp3": {},
}


@pytest.fixture(scope="module")
def contents():
    """Three seconds in every container."""
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, 48_000)
    contents = {}
    for name, options in WRITERS.items():
        file = BytesIO()
        soundfile.write(file, samples, 16_000, **{"format": name.rpartition(".")[2], **options})
        contents[name] = file.getvalue()
    return contents


@pytest.mark.parametrize("name", WRITERS)
def test_whole_files_pass(contents, name):
    assert why_incomplete(BytesIO(contents[name])) == ""
    assert abs(len(READ(BytesIO(contents[name]))) - 48_000) < 1600


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.96])
@pytest.mark.parametrize("name", WRITERS)
def test_cut_off_files_are_refused(contents, name, share, tmp_path):
    cut = contents[name][: int(share * len(contents[name]))]
    (tmp_path / name).write_bytes(cut)
    for file in (BytesIO(cut), tmp_path / name):
        with pytest.raises(UnusableAudio, match=r"is cut off|cannot be|does not tell"):
            READ(file)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vorbis.ogg", "is cut off (within an Ogg page|: its last Ogg page does not end the stream)"),
        ("opus.opus", "is cut off (within an Ogg page|: its last Ogg page does not end the stream)"),
        ("pcm.wav", "is cut off: 1.50 of 3.00 s are there"),
        ("extensible.wav", "is cut off: 1.50 of 3.00 s are there"),
        ("rf64.wav", "is cut off: 1.50 of 3.00 s are there"),
    ],
)
def test_the_length_of_a_cut_off_file_is_not_believed(contents, name, reason):
    """Else a long recording would be divided into parts that are all there."""
    with pytest.raises(UnusableAudio, match=reason):
        audio_seconds(BytesIO(contents[name][: len(contents[name]) // 2]))


def ogg_pages(content):
    pages, at = [], 0
    while at < len(content):
        table = content[at + 27 : at + 27 + content[at + 26]]
        end = at + 27 + len(table) + sum(table)
        pages.append(content[at:end])
        at = end
    return pages


@pytest.mark.parametrize("name", ["vorbis.ogg", "opus.opus"])
def test_an_ogg_file_cut_between_pages_is_noticed(contents, name):
    pages = ogg_pages(contents[name])
    assert len(pages) > 3
    assert "its last Ogg page does not end the stream" in why_incomplete(BytesIO(b"".join(pages[:-1])))
    assert why_incomplete(BytesIO(b"".join(pages[:-1]) + pages[-1][:20])) == "is cut off within an Ogg page"
    assert why_incomplete(BytesIO(b"".join(pages[:-1]) + pages[-1][:-1])) == "is cut off within an Ogg page"


def test_tags_after_the_last_page_of_an_ogg_file_are_no_harm(contents):
    assert why_incomplete(BytesIO(contents["vorbis.ogg"] + b"TAG" + bytes(125))) == ""


def test_samples_that_look_like_an_ogg_page_are_none(contents):
    *pages, last = ogg_pages(contents["vorbis.ogg"])
    assert len(last) > 100
    disguised = last[:-50] + b"OggS\x07" + last[-45:]
    assert why_incomplete(BytesIO(b"".join(pages) + disguised)) == ""


def test_an_ogg_file_filled_up_with_zeros_is_noticed(contents):
    """As downloads leave it that allot the space first."""
    content = contents["vorbis.ogg"]
    half = content[: len(content) // 2]
    assert why_incomplete(BytesIO(half + bytes(len(content) - len(half)))).startswith("is cut off")
    assert "no Ogg page is near its end" in why_incomplete(BytesIO(half + bytes(200_000)))


def wav(content, told):
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", told) + content[at + 4 :]


@pytest.mark.parametrize("told", [0xFFFFFFFF, 0xFFFFFFFF - 44, 0x80000000, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_file_written_to_a_pipe_is_read_as_far_as_it_goes(contents, told):
    assert len(READ(BytesIO(wav(contents["pcm.wav"], told)))) == 48_000


def test_a_wav_file_whose_header_counts_itself_is_read(contents):
    assert len(READ(BytesIO(wav(contents["pcm.wav"], len(contents["pcm.wav"]))))) == 48_000


def test_a_wav_file_whose_writer_died_before_it_told_the_length_says_so(contents):
    with pytest.raises(UnusableAudio, match="does not tell its length; convert it"):
        READ(BytesIO(wav(contents["pcm.wav"], 0)))


def test_other_chunks_of_a_wav_file_are_passed_over(contents):
    content = contents["pcm.wav"]
    at = content.index(b"data")
    tags = content[:at] + b"LIST" + struct.pack("<I", 5) + b"INFOx\0" + content[at:]
    assert why_incomplete(BytesIO(tags)) == ""
    assert why_incomplete(BytesIO(tags[:-8000])) == "is cut off: 2.75 of 3.00 s are there"


def test_an_mp3_file_without_a_frame_count_cannot_tell(contents):
    """What the module's docstring admits."""
    content = contents["xing.mp3"]
    bare = content[content.index(content[:2], 4) :]  # without the first frame, which holds the count
    assert len(READ(BytesIO(bare[: len(bare) // 2]))) < 30_000
