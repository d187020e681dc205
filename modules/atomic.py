"""Files that appear whole or not at all."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(file: Path) -> Generator[BinaryIO]:
    """Open a file to be put in place, on the disk and as a whole, when the block ends well.

    Args:
        file: The file; what is there is replaced. Its folder must exist.

    Yields:
        A stream to write to.

    Raises:
        OSError: The disk is full, or the folder cannot be written; the message names the file, and what was there is
            untouched.
    """
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror or error
        raise OSError(
            error.errno, f"{file} cannot be written ({reason}); what was there is untouched: make room and try again"
        ) from error
    except Exception:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(file: Path, text: str) -> None:
    """Put a text file in place as a whole: a reader, or a crash, never meets half of it.

    Raises:
        OSError: See :func:`atomic_file`.
    """
    with atomic_file(file) as stream:
        stream.write(text.encode())
