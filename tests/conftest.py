# SPDX-License-Identifier: Apache-2.0
"""For all tests: the simulator's fixture, and an Airflow configuration that owes nothing to this machine."""

from __future__ import annotations

import os
import shutil
import tempfile

import hypothesis
import pytest

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


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the one Airflow run in one process."""
    for item in items:
        if "airflow_stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("airflow"))


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)
