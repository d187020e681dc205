"""Settings of the process."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource
if {keep}:
    from pipeline.process import keep_freed_memory
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
faults = []
for _ in range(2):
    block = libc.malloc(64 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    ctypes.memset(block, 1, 64 << 20)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    libc.free(block)
print(faults[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library only")
def test_what_was_freed_is_used_again_without_new_pages():
    def faults(keep):
        program = [sys.executable, "-c", PROGRAM.format(keep=keep)]
        return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)

    assert faults(False) > 1000, "by default 64 MiB are given back to the system"
    assert faults(True) < 100


def test_the_command_line_has_threads_wait_politely_before_torch_is_there():
    program = """
import os, sys
from pipeline import cli
assert "torch" not in sys.modules
sys.argv = ["soundstorm", "--help"]
cli.main()
print(os.environ["GOMP_SPINCOUNT"])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout.splitlines()[-1]) < 100_000
