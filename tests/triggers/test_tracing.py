"""Waits in their tasks' traces, and what the services are told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from tests.harness import SECRETS
from tests.triggers.conftest import Connect, payload, trigger_of
from tests.waiting.world import World, result, until


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Tracing is on, and what it exports is kept here."""
    made = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(made))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield made
    provider.shutdown()


async def in_triggerer(name: str, here: World, job_id: str, **kwargs: Any) -> tuple[str, dict[str, Any]]:
    """Run the trigger in a span of its own, as a triggerer does; the trace's id and the event."""
    with trace.get_tracer("airflow").start_as_current_span(name) as span:
        told = await payload(trigger_of(here, job_id, **kwargs))
    return f"{span.get_span_context().trace_id:032x}", told


def waits(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == "airflow_status.wait"]


def traced(here: World, about: str) -> set[str]:
    """The ``traceparent`` of requests with this in their path or body; empty where there was none."""
    return {
        seen.headers.get("traceparent", "")
        for seen in here.sim.requests
        if about in f"{seen.status} {seen.path} {seen.body!r}"
    }


@pytest.mark.parametrize("case", ["areal", "organizer-observed", "haidy"])
async def test_a_wait_is_a_span_in_its_task_s_trace(
    connect: Connect, exporter: InMemorySpanExporter, case: str
) -> None:
    """Two tasks share all of an account and none of their traces: each job's reads tell their own."""
    here = await connect(case)
    jobs = [here.add(), here.add()]
    waiting = [here.spawn(in_triggerer(f"trigger.{job}", here, job)) for job in jobs]
    await until(lambda: all(traced(here, job) for job in jobs))
    for job_id in jobs:
        here.end(job_id)
    for job_id, (trace_id, told) in zip(jobs, [await result(each) for each in waiting], strict=True):
        (span,) = [w for w in waits(exporter) if (w.attributes or {})["airflow_status.job_id"] == job_id]
        (parent,) = [s for s in exporter.get_finished_spans() if s.name == f"trigger.{job_id}"]
        assert span.parent == parent.get_span_context()
        assert span.attributes == {
            "airflow_status.service": here.case.service.name,
            "airflow_status.connection": "here",
            "airflow_status.kind": here.case.kind.name,
            "airflow_status.job_id": job_id,
            "airflow_status.how": told["wait"]["how"],
            "airflow_status.phase": "succeeded",
            "airflow_status.status": told["status"],
        }
        own = span.get_span_context()
        assert own is not None
        assert traced(here, job_id) == {f"00-{trace_id}-{own.span_id:016x}-{own.trace_flags:02x}"}


async def test_what_is_shared_belongs_to_no_trace(connect: Connect, exporter: InMemorySpanExporter) -> None:
    """Neither the login nor the account's socket, though one task's wait has caused them."""
    here = await connect("areal")
    job_id = here.add()
    waiting = here.spawn(in_triggerer("trigger.t", here, job_id))
    await here.listening()
    here.end(job_id)
    await result(waiting)
    assert traced(here, "/login") == {""}
    assert traced(here, "101 ") == {""}


@pytest.mark.parametrize("flags", [None, TraceFlags.DEFAULT, TraceFlags.SAMPLED])
async def test_without_a_trace_nothing_is_told(connect: Connect, flags: int | None) -> None:
    """Airflow's tracing is off, though it hands tasks a trace's id even then."""
    here = await connect("haidy")
    job_id = here.add()
    handed = SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(flags or 0))
    span = trace.INVALID_SPAN if flags is None else NonRecordingSpan(handed)
    with trace.use_span(span):
        waiting = here.spawn(in_triggerer("trigger.t", here, job_id))
    await here.listening()
    here.end(job_id)
    await result(waiting)
    assert not [seen for seen in here.sim.requests if {"traceparent", "tracestate"} & set(seen.headers)]


async def test_a_wait_that_fails_says_so(connect: Connect, exporter: InMemorySpanExporter) -> None:
    """In the words that the user reads, without causes and without a credential."""
    here = await connect("haidy", password="a-token-that-is-wrong")
    _, told = await in_triggerer("trigger.t", here, here.add())
    (span,) = waits(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert told["error"]["message"] == span.status.description
    assert span.events == ()
    exported = "".join(each.to_json() for each in exporter.get_finished_spans())
    assert not [secret for secret in (*SECRETS, "a-token-that-is-wrong") if secret in exported]


async def test_a_wait_that_is_given_up_is_a_span_too(
    connect: Connect, exporter: InMemorySpanExporter
) -> None:
    """A triggerer that stops leaves no wait out."""
    here = await connect("haidy")
    waiting = here.spawn(in_triggerer("trigger.t", here, here.add()))
    await here.listening()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert len(waits(exporter)) == 1
