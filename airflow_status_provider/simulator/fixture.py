"""A pytest fixture; enable it with ``pytest_plugins = ["airflow_status_provider.simulator.fixture"]``."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from airflow_status_provider.simulator.server import SimulatorThread

SPEED = 50.0


@pytest.fixture
def status_simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorThread]:
    """A running simulator, with the four default connections pointing at it."""
    with SimulatorThread(speed=SPEED) as simulated:
        for conn_id, connection in simulated.connections().items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        yield simulated
