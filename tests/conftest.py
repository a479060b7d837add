# SPDX-License-Identifier: Apache-2.0
"""For all tests: the simulator's fixture, and an Airflow configuration that owes nothing to this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest

from tests.airflows import airflow_of

# a busy machine is no reason to fail
hypothesis.settings.register_profile(
    "ours", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None
)
hypothesis.settings.load_profile("ours")

# Airflow reads its environment, and writes its configuration, when it is first imported: this comes before.
for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "_AIRFLOW"))]:
    del os.environ[_name]
_HOME = tempfile.mkdtemp(prefix="airflow-tests-")
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

pytest_plugins = ["airflow_status_provider.simulator.fixture"]


@pytest.fixture(autouse=True)
def nothing_logged_so_far() -> None:
    """What one test logged leaves the next one no less."""
    from airflow_status_provider.waiting import quota, waiter

    waiter.quotas = quota.Quotas()


@pytest.fixture(autouse=True)
def nobody_signed_in_so_far() -> None:
    """What one test signed in for does not save the next one a login."""
    from airflow_status_provider.transport import sessions

    sessions.forget()


@pytest.fixture(autouse=True)
def _supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.1.0 gives a loop no connection, not even one of the environment, where there is no supervisor."""
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time import comms, context, task_runner

    async def knows_no_connection(message: Any) -> comms.ErrorResponse:
        return comms.ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": message.conn_id})

    if "SUPERVISOR_COMMS" in context._async_get_connection.__code__.co_names:
        supervisor = SimpleNamespace(asend=knows_no_connection)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """tests/system runs in two processes with one Airflow each, since most of its time is waiting. Every other test
    runs in any process.

    The mark ``xdist_group`` would say that, but pytest-xdist 3.8 does not find it with pytest 9.2.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class Scheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return airflow_of(nodeid) or nodeid

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for Airflow begins first; there, what runs side by side comes before what breaks something."""
    items.sort(
        key=lambda item: (not airflow_of(item.nodeid), item.get_closest_marker("side_by_side") is None)
    )


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)
