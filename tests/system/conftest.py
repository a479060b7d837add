# SPDX-License-Identifier: Apache-2.0
"""One real Airflow and one simulator for all tests of a session that ask for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_status_provider.simulator import SimulatorThread
from tools.stack import AirflowStack

DAGS = Path(__file__).parent / "dags"
EXAMPLES = [
    Path(__file__).parents[2] / "example_dags" / name for name in ("on_document.py", "tag_until_done.py")
]

ENVIRONMENT = {
    # How soon another triggerer takes over from a dead one: 30 seconds by default, too long for a test.
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
}


@pytest.fixture(scope="session")
def airflow_simulator() -> Iterator[SimulatorThread]:
    """The services behind the four default connections of `airflow_stack`, at their real pace."""
    with SimulatorThread() as simulated:
        yield simulated


@pytest.fixture(scope="session")
def airflow_observed() -> Iterator[SimulatorThread]:
    """The same services as their real servers were recorded; connections `tagger_observed`, …"""
    with SimulatorThread(dialect="observed") as simulated:
        yield simulated


@pytest.fixture(scope="session")
def airflow_stack(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    airflow_simulator: SimulatorThread,
    airflow_observed: SimulatorThread,
) -> Iterator[AirflowStack]:
    """A running Airflow on tests/system/dags and two examples, or on the folder that an indirect parameter names."""
    folder = shutil.copytree(DAGS, tmp_path_factory.mktemp("airflow") / "dags")
    for example in EXAMPLES:
        shutil.copy(example, folder)
    connections = airflow_simulator.connections() | {
        "stack_test": {"conn_type": "generic", "host": "example.test", "password": "a-secret-of-the-test"}
    }
    connections |= {
        name.replace("default", "observed"): connection
        for name, connection in airflow_observed.connections().items()
    }
    with AirflowStack(getattr(request, "param", folder), connections=connections, env=ENVIRONMENT) as stack:
        yield stack
