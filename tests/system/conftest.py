# SPDX-License-Identifier: Apache-2.0
"""One real Airflow and one simulator for all tests of a process that ask for them.

Tests that are marked ``side_by_side`` only look at runs and jobs of their own. All of a process start together, each
in a thread, when the first one is reported, and come before the tests that break or change something.
"""

from __future__ import annotations

import functools
import inspect
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.simulator import SimulatorThread
from tests.airflows import airflow_of
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
    # Files are read when they change or when a test asks for it, not each 30 seconds.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
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


@pytest.fixture(scope="session")
def at_work(
    request: pytest.FixtureRequest,
    airflow_stack: AirflowStack,
    airflow_simulator: SimulatorThread,
    airflow_observed: SimulatorThread,
) -> Iterator[Callable[[str], dict[str, Future[Any]]]]:
    """A function that starts all tests of an Airflow that are marked ``side_by_side``, once."""
    given = {
        "airflow_stack": airflow_stack,
        "airflow_simulator": airflow_simulator,
        "airflow_observed": airflow_observed,
    }
    with ThreadPoolExecutor(16) as pool:

        @functools.cache
        def start(airflow: str) -> dict[str, Future[Any]]:
            tests = [item for item in request.session.items if item.get_closest_marker("side_by_side")]
            mine = [test for test in tests if airflow_of(test.nodeid) == airflow]
            return {test.nodeid: pool.submit(test.obj, **_arguments(test.obj, given)) for test in mine}

        yield start


def _arguments(test: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in inspect.signature(test).parameters}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.get_closest_marker("side_by_side") is None:
        return None
    start = pyfuncitem._request.getfixturevalue("at_work")
    start(airflow_of(pyfuncitem.nodeid))[pyfuncitem.nodeid].result()
    return True
