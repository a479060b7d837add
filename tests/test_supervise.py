# SPDX-License-Identifier: Apache-2.0
"""A test run ends within seconds of a signal, with all that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tools.supervise import main

ROOT = Path(__file__).parents[1]

#: ignores what asks it to end, and has a child in a session of its own that does the same
STUBBORN = """
import signal, subprocess, sys, time
from pathlib import Path
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""
#: a suite of two tests that start such a child each, and hang
SUITE = """
import pathlib, subprocess, sys, time
import pytest

@pytest.mark.parametrize("number", range(2))
def test(number):
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    pathlib.Path(__file__).with_name(f"pid{number}").write_text(str(child.pid))
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
"""


def test_the_exit_code_is_the_commands() -> None:
    for code in (0, 3):
        assert supervised(sys.executable, "-c", f"import sys; sys.exit({code})").wait(30) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_command_and_its_children(number: signal.Signals, tmp_path: Path) -> None:
    """One that ignores signals, too, and after the supervisor itself was killed."""
    script, note = tmp_path / "stubborn.py", tmp_path / "pid"
    script.write_text(STUBBORN)
    supervisor = supervised(sys.executable, str(script), str(note))
    pids = [read_pid(note), *(child.pid for child in psutil.Process(supervisor.pid).children())]
    asked = time.monotonic()
    supervisor.send_signal(number)
    assert supervisor.wait(30) == (128 + number if number != signal.SIGKILL else -number)
    until_gone(pids)
    assert time.monotonic() - asked < 10


def test_sigterm_ends_a_suite_that_hangs_in_several_processes(tmp_path: Path) -> None:
    """pytest, its workers, and what the tests have started."""
    (tmp_path / "test_hangs.py").write_text(SUITE)
    supervisor = supervised(
        *(sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider"),
        *("-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)),
    )
    children = [read_pid(tmp_path / f"pid{number}") for number in range(2)]
    workers = [child.pid for child in psutil.Process(supervisor.pid).children(recursive=True)]
    asked = time.monotonic()
    supervisor.terminate()
    assert supervisor.wait(30) == 128 + signal.SIGTERM
    until_gone(children + workers)
    assert time.monotonic() - asked < 10


def supervised(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", main.__module__, *command],
        cwd=ROOT,
        env={**os.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal is for it alone
    )


def read_pid(note: Path) -> int:
    deadline = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < deadline, f"{note} was not written"
        time.sleep(0.05)
    return int(note.read_text())


def until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while left := [pid for pid in pids if lives(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
