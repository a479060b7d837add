# SPDX-License-Identifier: Apache-2.0
"""Connections in Airflow's own database, tested where users test them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from airflow_status_provider.simulator import SimulatorThread
from tools.stack import AirflowStack

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def stored(airflow_stack: AirflowStack, airflow_simulator: SimulatorThread) -> str:
    """A connection that only the database knows, as the form saves it."""
    fields: dict[str, Any] = airflow_simulator.connections()["tagger_default"]
    fields |= {"extra": json.dumps({**fields["extra"], "ws_url": None, "allow_insecure": None})}
    airflow_stack.airflow("connections", "add", "stored", "--conn-json", json.dumps(fields))
    return "stored"


def test_the_command_line_tests_it(airflow_stack: AirflowStack, stored: str) -> None:
    """``airflow connections test`` finds the hook and asks the service."""
    assert "Connection success" in airflow_stack.airflow("connections", "test", stored)


def test_the_doctor_finds_it(airflow_stack: AirflowStack, stored: str) -> None:
    """``airflow-status doctor`` looks into the database, although it is no process of Airflow's."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow_status_provider.cli", "doctor", stored],
        env=airflow_stack.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict       push: " in done.stdout
