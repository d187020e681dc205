"""Ways to damage a file."""

import random
import signal
from contextlib import contextmanager


def damages(content, count, seed=0):
    """Yield names and damaged versions of a file's content: cut, flipped, filled, exchanged."""
    yield "empty", b""
    yield "text", b"this is something else\n"
    yield "picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    yield "zeros", bytes(len(content))
    yield "json list", b"[1, 2, 3]"
    yield "json number", b"17"
    yield "json null", b"null"
    yield "not utf-8", b"\xff\xfe\x00\xd8" + content[4:]
    dice = random.Random(seed)
    for number in range(count):
        damaged = bytearray(content)
        kind = ("cut", "flip", "flips", "fill", "insert", "number")[number % 6]
        position = dice.randrange(len(content))
        if kind == "cut":
            del damaged[position:]
        elif kind == "flip":
            damaged[position] ^= 1 << dice.randrange(8)
        elif kind == "flips":
            for _ in range(20):
                damaged[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        elif kind == "fill":
            damaged[position : position + 64] = bytes([dice.choice((0, 255))]) * len(damaged[position : position + 64])
        elif kind == "insert":
            damaged[position:position] = dice.randbytes(dice.randrange(1, 40))
        else:  # the first bytes say what and how much follows
            first = dice.randrange(min(64, len(content)))
            damaged[first : first + 4] = dice.choice((b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"9999"))
        if bytes(damaged) != content:
            yield f"{kind} {number}", bytes(damaged)


@contextmanager
def in_time(seconds):
    def late(*args):
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
