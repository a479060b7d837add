# SPDX-License-Identifier: Apache-2.0
"""Starts and logins at servers that are blocked, or that allow only so many in so many seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_status_provider.errors import RateLimited
from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.operators import base as operators
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.fixture import SPEED
from airflow_status_provider.transport import http, sessions
from tests.harness import Task, plainly, said
from tests.operators.cases import CASES, COPILOT, DOCUMENTS, FOR_EVER, ORGANIZER, TAGGER, Case
from tests.operators.conftest import Simulate
from tests.versions import STATE_STORE

#: the operators whose service has a login, one a service
SIGNING = [TAGGER, ORGANIZER, COPILOT]


def every(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


def task_of(case: Case, simulated: SimulatorThread, folder: Path, **more: Any) -> Task:
    return Task(case.operator, **{**case.arguments(simulated, folder), **more})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is given up after 0.1 s, as after 30 s in life; what was not answered is looked for for 2 s."""
    built = http.built

    def hurried(*given: Any) -> httpx.Request:
        request = built(*given)
        request.extensions["timeout"]["read"] = 0.1
        return request

    monkeypatch.setattr(http, "built", hurried)
    monkeypatch.setattr(operators, "LOOK_FOR", 2.0)


# -- starts


@every(CASES)
def test_a_start_waits_while_a_document_blocks_the_server(
    case: Case, slow_status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """The start is answered late, the task succeeds in its first try, and nothing starts twice."""
    arguments = case.arguments(slow_status_simulator, tmp_path)
    tagger = slow_status_simulator.simulator.tagger
    slow_status_simulator.call(tagger.add, seconds=1.0, documents=2)
    task = Task(case.operator, **arguments)
    assert task.complete().state == "success", said(task)
    assert len(case.remote(slow_status_simulator).starts) == (2 if case is DOCUMENTS else 1)


@pytest.mark.parametrize(
    ("case", "generation"), [(TAGGER, "a3"), (COPILOT, "a3"), (DOCUMENTS, "a3"), (ORGANIZER, "lc")]
)
def test_a_start_outlasts_a_server_that_answers_nothing(
    case: Case, generation: str, simulate: Simulate, tmp_path: Path, impatient: None
) -> None:
    """Requests queue up at a blocked server, which answers and carries them out in one go: still one start."""
    simulated = simulate(dialect="observed", generation=generation)
    remote = case.remote(simulated)
    remote.script.seconds = FOR_EVER
    arguments = case.arguments(simulated, tmp_path)
    case.operator.hook_class(case.operator.hook_class.default_conn_name).sign_in()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(simulated.call, remote.block, SPEED)
        task = Task(case.operator, **arguments)
        assert task.run().state == "deferred", said(task)
    assert len(remote.starts) == (2 if case is DOCUMENTS else 1)


@STATE_STORE
@every([TAGGER, COPILOT])
def test_a_lost_workers_start_that_is_carried_out_late_is_found_by_the_retry(
    case: Case, simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has not read the start yet when the next try asks: it goes on looking, and starts no other."""
    monkeypatch.setattr(operators, "LOOK_FOR", 5.0)
    simulated = simulate(dialect="observed")
    remote = case.remote(simulated)
    remote.script.seconds = FOR_EVER
    task = Task(case.operator, retries=1, **case.arguments(simulated, tmp_path))
    began = time.monotonic()
    with monkeypatch.context() as patch:
        built = http.built

        def killed(*given: Any) -> httpx.Request:
            request = built(*given)
            if request.url.path.endswith(("/batch/start", "/execute/")):
                remote.faults.late_start = 1.0 * SPEED
                request.extensions["timeout"]["read"] = 0.2
            return request

        def die(*given: Any) -> Any:
            raise SystemExit(1)

        patch.setattr(http, "built", killed)
        patch.setattr(operators, "uncertain", die)
        assert task.run().state == "up_for_retry"
    assert remote.starts == []
    task.retry()
    assert task.run().state == "deferred", said(task)
    assert 0.5 < time.monotonic() - began < 5
    assert len(remote.starts) == 1


@STATE_STORE
@every([TAGGER, DOCUMENTS, COPILOT])
def test_a_start_that_was_refused_is_not_looked_for_by_the_retry(
    case: Case, slow_status_simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It surely did not happen, so the next try starts at once."""
    monkeypatch.setattr(operators, "LOOK_FOR", 60.0)
    case.remote(slow_status_simulator).faults.start_limit = (0, 3600.0)
    task = task_of(case, slow_status_simulator, tmp_path, retries=1)
    assert task.run().state == "up_for_retry"
    case.remote(slow_status_simulator).faults.start_limit = None
    task.retry()
    began = time.monotonic()
    assert task.run().state in ("deferred", "success"), said(task)
    assert time.monotonic() - began < 10


@every(SIGNING)
def test_a_start_above_the_limit_waits_as_long_as_the_service_asks(
    case: Case, slow_status_simulator: SimulatorThread, tmp_path: Path, airflow_log: Callable[[], str]
) -> None:
    """The second start in a second is answered 429 with Retry-After, and succeeds after that."""
    remote = case.remote(slow_status_simulator)
    remote.faults.start_limit = (1, 1.0)
    assert task_of(case, slow_status_simulator, tmp_path).run().state == "deferred"
    second = task_of(case, slow_status_simulator, tmp_path, retries=1)
    began = time.monotonic()
    assert second.run().state == "deferred", said(second)
    assert 0.5 < time.monotonic() - began < 5
    assert len(remote.starts) == 2
    assert "429" in airflow_log()


@every(SIGNING)
def test_a_start_whose_limit_is_too_long_fails_at_once_and_says_for_how_long(
    case: Case, slow_status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """An hour is longer than the task may wait: the error says in how many seconds, and Airflow retries."""
    case.remote(slow_status_simulator).faults.start_limit = (1, 3600.0)
    assert task_of(case, slow_status_simulator, tmp_path).run().state == "deferred"
    second = task_of(case, slow_status_simulator, tmp_path, retries=1)
    began = time.monotonic()
    assert second.run().state == "up_for_retry"
    assert time.monotonic() - began < 5
    assert isinstance(second.slices[-1].error, RateLimited)
    assert "36" in plainly(second)
    assert len(case.remote(slow_status_simulator).starts) == 1


# -- logins


@every(SIGNING)
def test_a_login_above_the_limit_waits_as_long_as_the_service_asks(
    case: Case, slow_status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """A task in a process of its own signs in after the time that the service asks for, and succeeds."""
    arguments = case.arguments(slow_status_simulator, tmp_path)
    case.remote(slow_status_simulator).faults.login_limit = (1, 1.0)
    for _ in range(2):
        sessions.forget()  # as another worker's process has none
        task = Task(case.operator, **arguments)
        assert task.run().state == "deferred", said(task)
    assert len(case.remote(slow_status_simulator).starts) == 2


def test_a_login_above_a_long_limit_fails_with_the_seconds(
    slow_status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """The Organizer's default, 10 logins in 300 s, is longer than a worker waits: nothing was started."""
    organizer = slow_status_simulator.simulator.organizer
    organizer.faults.login_limit = (10, 300.0)
    with httpx.Client(base_url=slow_status_simulator.url, trust_env=False) as client:
        for _ in range(10):
            client.post("/api/v1/auth/login", data={"username": "alice", "password": "wonderland-12A"})
    sessions.forget()
    task = task_of(ORGANIZER, slow_status_simulator, tmp_path, retries=1)
    assert task.run().state == "up_for_retry"
    assert isinstance(task.slices[-1].error, RateLimited)
    assert organizer.starts == []


def test_an_api_key_needs_no_login(
    slow_status_simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no login is allowed any more, twelve processes with a key start their jobs."""
    slow_status_simulator.simulator.organizer.faults.login_limit = (1, 300.0)
    slow_status_simulator.simulator.organizer.faults.start_limit = None
    OrganizerHook().sign_in()
    connection = slow_status_simulator.connections(auth="key")["organizer_default"]
    monkeypatch.setenv("AIRFLOW_CONN_ORGANIZER_DEFAULT", json.dumps(connection))
    for _ in range(12):
        sessions.forget()
        task = task_of(ORGANIZER, slow_status_simulator, tmp_path)
        assert task.run().state == "deferred", said(task)
    assert len(slow_status_simulator.simulator.organizer.starts) == 12


@every(SIGNING)
def test_a_login_that_costs_time_is_paid_once(
    case: Case, slow_status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Start, check, wait and result of one process take the time of one login."""
    arguments = case.arguments(slow_status_simulator, tmp_path)
    sessions.forget()
    case.remote(slow_status_simulator).faults.login_cost = 20.0  # 0.4 s at the simulator's speed
    before = slow_status_simulator.simulator.count(case.service, "/login", "POST")
    task = Task(case.operator, deferrable=False, **arguments)
    assert task.complete().state == "success", said(task)
    assert slow_status_simulator.simulator.count(case.service, "/login", "POST") - before == 1
