"""What all tests share. Those marked ``slow`` run only when asked for: ``python -m pytest -m slow``."""

import json
import os
import subprocess
import sys
from pathlib import Path

# Before any import of a library that reads it: no test reaches a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests run side by side, and what they multiply is small: more threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


def pytest_collection_modifyitems(config, items):
    if config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def run_script(tmp_path_factory):
    """Run a script as a process of its own, which may fork ranks, without importing torch anew."""
    root = Path(__file__).parents[1]
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("forks.py")], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )  # fmt: skip

    def run(script, *arguments, timeout=240):
        folder = tmp_path_factory.mktemp("script")
        arguments = [str(argument) for argument in arguments]
        task = {"script": str(script), "arguments": arguments, "folder": str(folder), "timeout": timeout}
        server.stdin.write(json.dumps(task) + "\n")
        server.stdin.flush()
        code = json.loads(server.stdout.readline())
        out, err = ((folder / name).read_text() for name in ("stdout", "stderr"))
        assert code is not None, f"{script} took longer than {timeout} s: {err[-3000:]}"
        return subprocess.CompletedProcess([script, *arguments], code, out, err)

    yield run
    server.stdin.close()
    server.wait()
