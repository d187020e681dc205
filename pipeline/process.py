"""Settings of the process that the libraries below leave to their users."""

import ctypes
import os
import sys

# mallopt(3) of the GNU C library.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def wait_politely() -> None:
    """Have the threads of a CPU computation go to sleep soon while they wait for one another.

    By default they spin for milliseconds. That gains some percent on an idle machine; where another process wants the
    same cores, each wait lasts as long as that process is let run, and everything takes ten times as long. To be called
    before torch is imported, which reads the setting; what the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def keep_freed_memory() -> None:
    """Have the GNU C library keep what is freed, for the next tensor, instead of giving it back to the system.

    By default every tensor beyond some MiB is mapped anew, and each of its pages is cleared by the system at its first
    use: on a CPU that was a tenth to a third of a training step. Peak memory stays the same. Elsewhere than with that
    library nothing happens.
    """
    if sys.platform != "linux":
        return
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (musl has none, and another allocator)
        library.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        return
