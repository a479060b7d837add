"""A pytest fixture; enable it with ``pytest_plugins = ["airflow_status_provider.simulator.fixture"]``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_status_provider.simulator.server import SimulatorThread

SPEED = 50.0


@pytest.fixture
def status_simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorThread]:
    """A running simulator, with the four default connections pointing at it."""
    with _pointed_at(monkeypatch) as simulated:
        yield simulated


@pytest.fixture
def slow_status_simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorThread]:
    """The same, as slow as the real servers are: a document keeps Tagger from answering for 6 seconds, each
    login costs 0.25, and the Organizer allows 10 logins in 300. All of it is divided by the speed."""
    with _pointed_at(monkeypatch, dialect="observed") as simulated:
        simulator = simulated.simulator
        simulator.tagger.faults.block = 6.0
        for service in (simulator.areal, simulator.tagger, simulator.organizer):
            service.faults.login_cost = 0.25
        simulator.organizer.faults.login_limit = (10, 300.0 / SPEED)
        yield simulated


@contextmanager
def _pointed_at(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[SimulatorThread]:
    with SimulatorThread(speed=SPEED, **options) as simulated:
        for conn_id, connection in simulated.connections().items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        yield simulated
