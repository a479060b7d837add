# SPDX-License-Identifier: Apache-2.0
"""Starts and first checks at servers as slow as the real ones, and what cannot become better by waiting."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable

import pytest

from airflow_status_provider.errors import NotSent, RemoteUnavailable, StartUncertain
from airflow_status_provider.hooks import base as hooks
from airflow_status_provider.operators import base as operators
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.transport import http
from tests.harness import Task, plainly, said
from tests.operators.cases import CASES, TAGGER, TRANSCRIBE, Case


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is given up after 0.2 s instead of 30."""
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.2)


def tagger(**arguments: object) -> Task:
    return Task(TAGGER.operator, **{"documents": [{"file_path": "https://files.example/a.pdf"}], **arguments})


def test_a_start_that_is_carried_out_late_is_found(
    status_simulator: SimulatorThread,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    airflow_log: Callable[[], str],
) -> None:
    """The first looks find nothing, since the server has not read the start yet; a later one does."""
    monkeypatch.setattr(operators, "LOOK_FOR", 10.0)
    faults = status_simulator.simulator.tagger.faults
    faults.late_start = 0.6 * 50
    task = tagger()
    assert task.complete().state == "success", said(task)
    assert len(status_simulator.simulator.tagger.starts) == 1
    assert status_simulator.simulator.count("tagger", "/batch/start") == 1
    assert "no answer in time; the service may be busy" in airflow_log()


def test_a_start_that_never_shows_up_says_how_long_it_was_looked_for(
    status_simulator: SimulatorThread, impatient: None
) -> None:
    """A slow answer is not called a broken connection, and Airflow's retries go on."""
    status_simulator.simulator.tagger.faults.late_start = 1e6
    task = tagger()
    assert task.complete().state == "failed"
    error = task.slices[-1].error
    assert isinstance(error, RemoteUnavailable)
    assert "no answer in time" in str(error)
    assert "no batch of this id has appeared in" in str(error)
    assert "broke" not in str(error)


def test_a_start_that_cannot_be_looked_up_says_that_it_was_slow(
    status_simulator: SimulatorThread, impatient: None, tmp_path: object
) -> None:
    """Haidy's is not repeated."""
    status_simulator.simulator.haidy.faults.late_start = 1e6
    task = Task(TRANSCRIBE.operator, **TRANSCRIBE.arguments(status_simulator, tmp_path))
    task.complete()
    assert isinstance(task.slices[-1].error, StartUncertain)
    assert "no answer in time; the service may be busy; the" in plainly(task)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_timeout_bounds_a_start_at_a_server_that_answers_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch, status_simulator: SimulatorThread, tmp_path: object
) -> None:
    """A worker is held for the task's ``timeout`` and one last look, whatever the steps of a start are."""
    monkeypatch.setattr("airflow_status_provider.tasks.LAST_LOOK", 0.1)
    arguments = case.arguments(status_simulator, tmp_path)
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for conn_id, connection in status_simulator.connections().items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**connection, "host": url}))
        task = Task(case.operator, **arguments, timeout=0.5)
        began = time.monotonic()
        task.run()
        assert time.monotonic() - began < 8  # generous: a loaded machine
        assert task.slices[-1].state in ("failed", "deferred")


@pytest.fixture
def wrong_port(status_simulator: SimulatorThread) -> Callable[[str], str]:
    """The host of a connection that cannot work, by what is wrong."""
    return lambda wrong: {
        "TLS against plain http": status_simulator.url.replace("http", "https"),
        "no such name": "http://no-such-host.invalid",
    }[wrong]


@pytest.mark.parametrize("wrong", ["TLS against plain http", "no such name"])
def test_what_waiting_does_not_help_fails_a_start_at_once(
    wrong: str,
    wrong_port: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    status_simulator: SimulatorThread,
) -> None:
    """Nothing was sent, so nothing is lost: the message says what to fix."""
    connection = status_simulator.connections()["tagger_default"]
    monkeypatch.setenv(
        "AIRFLOW_CONN_TAGGER_DEFAULT",
        json.dumps(
            {
                **connection,
                "host": wrong_port(wrong),
                "extra": {**connection["extra"], "allow_insecure": True},
            }
        ),
    )
    pauses: list[float] = []
    monkeypatch.setattr(hooks.BlockingLine, "sleep", lambda self, seconds: pauses.append(seconds))
    task = tagger(timeout=3600)
    assert task.complete().state == "failed"
    assert isinstance(task.slices[-1].error, NotSent)
    assert task.slices[-1].error.permanent
    assert pauses == []


def test_a_certificate_that_is_not_trusted_is_permanent() -> None:
    """As OpenSSL and Python word it; a resolver's "Temporary failure" is not."""
    words = str(ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"))
    assert http.unreachable(words).permanent
    assert not http.unreachable("[Errno -3] Temporary failure in name resolution").permanent
    assert not http.unreachable("[Errno 111] Connection refused").permanent


def test_the_first_check_holds_a_worker_for_two_seconds_at_most(
    slow_status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is busy with the job itself answers later: the triggerer asks."""
    monkeypatch.setattr(hooks, "FIRST_CHECK", 0.1)
    slow_status_simulator.simulator.tagger.faults.block = 0.0
    task = tagger()
    slow_status_simulator.simulator.tagger.script.seconds = 100
    faults = slow_status_simulator.simulator.tagger.faults
    check = hooks.StatusHook.check

    def checked(self: hooks.StatusHook, *arguments: object) -> object:
        faults.slow = 2.0 * 50
        began = time.monotonic()
        try:
            return check(self, *arguments)  # type: ignore[arg-type]
        finally:
            faults.slow = 0.0
            assert time.monotonic() - began < 1.5

    monkeypatch.setattr(hooks.StatusHook, "check", checked)
    task.run()
    assert task.slices[-1].state == "deferred"
