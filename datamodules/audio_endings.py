"""Whether an audio file is all there, as far as its container tells.

libsndfile reads what is there of a file that was cut off, and says nothing. FLAC needs no check of ours: a cut stream
does not decode. MP3 often cannot tell: where it begins with a Xing or Info frame, its length is known and missing
samples are noticed when it is read; where it does not, half a file is a shorter file. Neither can WAV whose writer did
not know its length.
"""

import struct
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

_PAGE_HEADER = 27  # bytes of an Ogg page before its table of segments (RFC 3533, section 6)
_LARGEST_PAGE = _PAGE_HEADER + 255 + 255 * 255  # bytes
_LAST_PAGE = 4  # flag: the logical stream ends with this page

_UNKNOWN_SIZE = 0x7FFF0000  # what writes to a pipe states a size near 2 or 4 GiB
_MOST_CHUNKS = 64  # before the samples of a WAV file; there are two to five
_TOLERANCE = 0.1  # seconds; some writers count the header as samples


def why_incomplete(file: Path | BytesIO) -> str:
    """Look for the end of a recording: a few system calls, whatever its length.

    Args:
        file: The file, or its content, whose position is left anywhere.

    Returns:
        What is wrong with its end, in words that follow the file's name; "" if nothing is, or nobody can tell.

    Raises:
        OSError: It cannot be read.
    """
    with nullcontext(file) if isinstance(file, BytesIO) else file.open("rb", buffering=0) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        kind = stream.read(12)
        if kind[:4] == b"OggS":
            return _end_of_ogg(stream, size)
        if kind[:4] in (b"RIFF", b"RF64") and kind[8:] == b"WAVE":
            return _end_of_wav(stream, size)
    return ""


def _end_of_ogg(stream: BinaryIO, size: int) -> str:
    """Insist on a whole last page with the flag that it is the last one."""
    stream.seek(max(0, size - 2 * _LARGEST_PAGE))  # twice: tags may follow the last page
    tail = stream.read()
    at = tail.rfind(b"OggS")
    while at > 0 and tail[at + 4 : at + 5] not in (b"\0", b""):  # no page, but samples that look like one
        at = tail.rfind(b"OggS", 0, at)
    if at < 0:
        return "is cut off or damaged: no Ogg page is near its end"
    header = tail[at : at + _PAGE_HEADER]
    segments = tail[at + _PAGE_HEADER :][: header[-1]]
    there = len(tail) - at - _PAGE_HEADER - len(segments)
    if len(header) < _PAGE_HEADER or len(segments) < header[-1] or there < sum(segments):
        return "is cut off within an Ogg page"
    if not header[5] & _LAST_PAGE:
        return "is cut off: its last Ogg page does not end the stream (if nothing is missing, remux it)"
    return ""


def _end_of_wav(stream: BinaryIO, size: int) -> str:
    """Insist on as many bytes of samples as the header tells, where it does."""
    byte_rate, large_size, at = 0, 0, 12
    for _ in range(_MOST_CHUNKS):
        stream.seek(at)
        header = stream.read(24)
        if len(header) < 8:
            return ""  # no samples: libsndfile says so
        name, length = struct.unpack_from("<4sI", header)
        if name == b"fmt " and len(header) >= 20:
            byte_rate = struct.unpack_from("<I", header, 16)[0]
        elif name == b"ds64" and len(header) == 24:
            large_size = struct.unpack_from("<Q", header, 16)[0]
        elif name == b"data":
            there = size - at - 8
            if length == 0 and there:
                return "does not tell its length; convert it"
            told = large_size if length == 0xFFFFFFFF else length if length < _UNKNOWN_SIZE else 0
            if byte_rate and told - there > _TOLERANCE * byte_rate:
                return f"is cut off: {there / byte_rate:.2f} of {told / byte_rate:.2f} s are there"
            return ""
        at += 8 + length + length % 2
    return ""
