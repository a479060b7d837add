"""Work that may hang, bounded."""

from __future__ import annotations

import threading

import pytest

from airflow_status_provider.transport.within import within


def test_work_in_time() -> None:
    """What the work returns is returned, and what it raises is raised."""
    assert within(10.0, lambda: 7) == 7
    with pytest.raises(KeyError):
        within(10.0, lambda: {}["x"])


def test_work_that_hangs() -> None:
    """Nobody waits for work that takes longer."""
    hanging = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.05, hanging.wait)
    hanging.set()
