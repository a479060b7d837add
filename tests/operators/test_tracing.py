# SPDX-License-Identifier: Apache-2.0
"""What services are told of the trace in which a task starts its job."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry import trace

from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task, said
from tests.operators.cases import CASES, Case
from tests.triggers.test_tracing import exporter, waits  # noqa: F401 (fixture)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_start_tells_its_task_s_trace(
    case: Case,
    status_simulator: SimulatorThread,
    tmp_path: Path,
    exporter,  # noqa: F811 (the fixture)
) -> None:
    """So do the other requests for that job, but neither a login nor an upload to a store of files."""
    arguments = case.arguments(status_simulator, tmp_path)
    before = len(status_simulator.simulator.requests)
    with trace.get_tracer("airflow").start_as_current_span("worker.task") as span:
        task = Task(case.operator, **arguments, deferrable=False)
        assert task.complete().state == "success", said(task)
    seen = status_simulator.simulator.requests[before:]
    own = f"00-{span.get_span_context().trace_id:032x}-"
    for each in seen:
        shared = each.status == 101 or "login" in each.path or "/s3/" in each.path
        assert each.headers.get("traceparent", "").startswith(own) != shared, each
    assert any(each.headers.get("traceparent") for each in seen if each.method == "POST")
    assert len(waits(exporter)) == 1
