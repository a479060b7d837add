# SPDX-License-Identifier: Apache-2.0
"""Runs a command and leaves nothing of it behind: `python -m tools.supervise COMMAND...`.

At SIGINT, SIGTERM or SIGHUP the command is asked to end (by SIGINT, at which pytest still reports what it
found). After `GRACE` seconds whatever it has started is killed, after twice that the command itself.
Processes in sessions of their own, as Airflow has, are found by the token that they inherit. The reaper
kills them even if this process is killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

import psutil

from tools import reaper

GRACE = 2.0
LOOK = 0.05


def main(command: Sequence[str]) -> int:
    token = secrets.token_hex(16)
    signals: list[int] = []
    started = 0.0

    def stop(number: int, _: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    guard = reaper.start(token)
    process = subprocess.Popen(command, env=os.environ | reaper.mark(token))
    with contextlib.suppress(subprocess.TimeoutExpired):
        while process.poll() is None:
            if signals and not started:
                started = time.monotonic()
                if signals[0] != signal.SIGINT:  # that one the terminal sends to the command as well
                    process.send_signal(signal.SIGINT)
            if signals and time.monotonic() - started > GRACE:
                _kill_others(token, process.pid)
                process.wait(GRACE)
            time.sleep(LOOK)
    reaper.kill_all(token)
    code = process.wait()
    guard.communicate()  # closes its standard input, at which it ends
    return 128 + signals[0] if signals else code if code >= 0 else 128 - code


def _kill_others(token: str, pid: int) -> None:
    for other in reaper.processes_of(token):
        if other.pid != pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                other.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
