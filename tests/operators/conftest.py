# SPDX-License-Identifier: Apache-2.0
"""Short times for every test here, simulators of every kind, and answers that get lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_status_provider.errors import RemoteUnavailable
from airflow_status_provider.protocols.model import Request, Response
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.fixture import SPEED
from airflow_status_provider.transport.aio import AsyncLine
from airflow_status_provider.transport.http import BlockingLine
from tests.harness import airflow_log, hurried  # noqa: F401

Simulate = Callable[..., SimulatorThread]
Lose = Callable[..., None]


@pytest.fixture(autouse=True)
def _hurry(hurried: None) -> None:  # noqa: F811
    """Every test here is in a hurry."""


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulate]:
    """A function that starts a simulator of a dialect, with the default connections pointing at it."""
    with ExitStack() as stack:

        def start(**options: Any) -> SimulatorThread:
            simulated = stack.enter_context(SimulatorThread(speed=SPEED, **options))
            for conn_id, connection in simulated.connections().items():
                monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
            return simulated

        yield start


@pytest.fixture
def lose_answer(monkeypatch: pytest.MonkeyPatch) -> Lose:
    """A function after which the answer to the next POST of a path gets lost, or takes its worker along."""

    def lose(path: str, trouble: BaseException | None = None) -> None:
        left = [trouble or RemoteUnavailable("the connection broke (as the test wants it)")]

        def losing(line: Any) -> Any:
            send = line.send

            async def wrapped(self: Any, request: Request, url: str, headers: Mapping[str, str]) -> Response:
                answer: Response = await send(self, request, url, headers)
                if left and request.method == "POST" and urlsplit(url).path.endswith(path):
                    raise left.pop()
                return answer

            return wrapped

        for line in (BlockingLine, AsyncLine):
            monkeypatch.setattr(line, "send", losing(line))

    return lose
