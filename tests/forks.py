"""Runs Python scripts in forks of one process that has imported what takes long: most of such a test's time.

It runs nothing itself, so that it is safe to fork. It reads a line of JSON per script and answers with one.
"""

import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

# So that the forked processes need not import them.
import lightning.pytorch.cli  # noqa: F401
import torch

import modules.evaluation
import modules.soundstorm  # noqa: F401


def become(script: str, arguments: list[str], folder: str) -> int:
    """Be a process that was started with this script."""
    os.setsid()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    sys.path[:0] = [str(Path(script).parent)]
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def outcome(child: int, timeout: float) -> int | None:
    """Wait for a process; end it and what it started when it takes too long."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        task = json.loads(line)
        timeout = task.pop("timeout")
        if (child := os.fork()) == 0:
            status = become(**task)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        print(json.dumps(outcome(child, timeout)), flush=True)
