"""A headless Chromium, for those tests that look at the page as it is shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless=shell",
    "--no-sandbox",
    "--no-zygote",
    "--single-process",  # as some small builds need it
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=1500,700",
    "--remote-debugging-port=0",
)


class Page:
    """One tab."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._numbers = count(1)
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        self._devtools.send(json.dumps({"id": number, "method": method, "params": params, **session}))
        while True:
            answer = json.loads(self._devtools.recv(timeout=30))
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """What an expression comes to in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, within: float = 120.0) -> None:
        """Wait until an expression comes to something that is true."""
        deadline = time.monotonic() + within
        while not self.run(script):
            assert time.monotonic() < deadline, f"never {script}: {self.run('document.body.innerText')}"
            time.sleep(0.05)

    def press(self, key: str, text: str = "") -> None:
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a Chromium of its own; the test is skipped where there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium: put one into the PATH, or its path into CHROMIUM")
    with subprocess.Popen(
        [found, *OPTIONS, f"--user-data-dir={profile}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            listening = (re.search(r"listening on (ws://\S+)", line) for line in process.stderr)
            address = next(match[1] for match in listening if match)
            with connect(address, max_size=None, proxy=None) as devtools:
                yield Page(devtools)
        finally:
            process.kill()
