# SPDX-License-Identifier: Apache-2.0
"""Ends what a stack of tools.stack left behind, however the process that started it went away.

    python reaper.py TOKEN [DIRECTORY]

It waits for the end of its standard input, which is a pipe that the owner of the stack holds: the owner
closes it when it is done, and the kernel does when the owner is killed. Then it kills every process whose
environment carries TOKEN and removes DIRECTORY. It goes by the environment because Airflow and its tasks make
process groups and sessions of their own; the token is inherited by all of them. Owners nest: the variable
holds the tokens of all of them, with colons between.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

TOKEN_VARIABLE = "STACK_TOKEN"  # noqa: S105 -- the name of a mark, nothing secret


def start(token: str, *directories: str) -> subprocess.Popen[bytes]:
    """A reaper for processes that carry the token; it does its work when its standard input is closed."""
    return subprocess.Popen(
        [sys.executable, "-P", __file__, token, *directories],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C in the terminal is not for it
        # nor is what an outer owner does to its own
        env={name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE},
    )


def mark(token: str) -> dict[str, str]:
    """The variables that mark a process as the token's, and as those that this process carries."""
    carried = os.environ.get(TOKEN_VARIABLE)
    # without the second, process titles (Airflow's, pytest-xdist's) overwrite what the reaper reads
    return {TOKEN_VARIABLE: f"{carried}:{token}" if carried else token, "SPT_NOENV": "1"}


def processes_of(token: str, session: int | None = None) -> Iterator[psutil.Process]:
    """Every live process that carries the token, or those of them in one session."""
    for process in psutil.process_iter():
        try:
            if token not in process.environ().get(TOKEN_VARIABLE, "").split(":"):
                continue
            if session is None or os.getsid(process.pid) == session:
                yield process
        except (psutil.Error, ProcessLookupError):  # gone, a zombie, or not ours to look at
            continue


def kill_all(token: str, session: int | None = None) -> None:
    """Kill until none is left. All are halted first, so that none sees another die and reacts, or forks."""
    while found := list(processes_of(token, session)):
        for end in (psutil.Process.suspend, psutil.Process.kill):
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(process)
        time.sleep(0.02)


def main(token: str, *directories: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    kill_all(token)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
