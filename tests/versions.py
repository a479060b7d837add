# SPDX-License-Identifier: Apache-2.0
"""Which Airflow the tests run on, and what they need of a newer one."""

from __future__ import annotations

import pytest
from airflow import __version__

AIRFLOW = tuple(int(part) for part in __version__.split(".")[:2])


def needs_airflow(version: str, what: str) -> pytest.MarkDecorator:
    """Skip, and say why, where Airflow does not have ``what`` yet."""
    needed = tuple(int(part) for part in version.split("."))
    return pytest.mark.skipif(needed > AIRFLOW, reason=f"needs Airflow {version}: {what}")


STATE_STORE = needs_airflow("3.3", "the task state store, by which a retry finds its job")
TRIGGER_XCOMS = needs_airflow("3.3", "XComs that a trigger writes")
TRIGGER_KILLS = needs_airflow("3.3", "kills that a trigger is told of")
START_FROM_TRIGGER = needs_airflow("3.3", "start_from_trigger with rendered fields")
RETRY_POLICIES = needs_airflow("3.3", "retry policies")
