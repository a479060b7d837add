# SPDX-License-Identifier: Apache-2.0
"""Short times for every test here, and the log that a task writes."""

from __future__ import annotations

import pytest

from tests.harness import airflow_log, hurried  # noqa: F401


@pytest.fixture(autouse=True)
def _hurry(hurried: None) -> None:  # noqa: F811
    """Every test here is in a hurry."""
