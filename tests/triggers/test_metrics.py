"""What Airflow's metrics are told of real waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from airflow_status_provider import compat, metrics
from airflow_status_provider.waiting import counts
from tests.harness import SECRETS
from tests.triggers.conftest import Connect, payload, trigger_of
from tests.waiting.world import World, result, until

#: what looks for Airflow's metrics; the recorder may take its place
FOUND = compat.stats


class Sent(NamedTuple):
    verb: str
    name: str
    value: Any
    tags: dict[str, str]


class Recorder(list[Sent]):
    """An Airflow metrics backend."""

    def gauge(self, name: str, value: float, *, tags: dict[str, str]) -> None:
        self.append(Sent("gauge", name, value, tags))

    def incr(self, name: str, count: int, *, tags: dict[str, str]) -> None:
        self.append(Sent("incr", name, count, tags))

    def timing(self, name: str, dt: timedelta, *, tags: dict[str, str]) -> None:
        self.append(Sent("timing", name, dt, tags))

    def values(self, name: str) -> list[Any]:
        return [sent.value for sent in self if sent.name == f"airflow_status.{name}"]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """The backend that Airflow sends to where metrics are on."""
    monkeypatch.setattr(counts, "_counts", {})
    monkeypatch.setattr(counts, "_observers", [])
    monkeypatch.setattr(counts, "EVERY", 0.02)
    monkeypatch.setattr(metrics, "_sent", {})
    made = Recorder()
    _forget()
    with sent_to(made, monkeypatch):
        yield made
    _forget()


@contextmanager
def sent_to(made: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    try:
        from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
        from airflow.sdk.observability.stats import initialize
    except ImportError:  # an older Airflow chooses its backend once in a process
        monkeypatch.setattr(compat, "stats", lambda: made)
        yield
    else:
        initialize(factory=lambda: made, export_legacy_names=True)  # type: ignore[arg-type, return-value]
        yield
        initialize(factory=NoStatsLogger, export_legacy_names=True)


def _forget() -> None:
    metrics._stats.cache_clear()
    metrics._tagged.cache_clear()


async def one_wait(here: World, recorder: Recorder | None = None) -> None:
    """A wait whose end the socket tells, if there is one."""
    job_id = here.add()
    waiting = here.spawn(payload(trigger_of(here, job_id)))
    await here.listening()
    if recorder is not None:
        await until(lambda: 1 in recorder.values("waiters"))
    here.end(job_id)
    await result(waiting)
    await until(lambda: not here.server.sockets and not counts.counts_of(here.case.service.name).waiters)


async def test_a_wait_in_numbers(
    connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gauges come and go, counters add up to what happened, and the end's way to the event is timed."""
    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
    here = await connect("organizer-observed")
    await one_wait(here, recorder)
    await until(lambda: recorder.values("waiters")[-1] == recorder.values("sockets")[-1] == 0)
    assert 1 in recorder.values("sockets")
    assert sum(recorder.values("polls")) == here.reads()
    assert sum(recorder.values("pushes")) >= 1
    assert recorder.values("fallbacks") == recorder.values("reconnects") == []
    (late,) = recorder.values("end_to_event")
    assert timedelta() <= late < timedelta(seconds=10)
    tags = {sent.name.partition(".")[2]: sent.tags for sent in recorder}
    assert tags["end_to_event"] == {"service": "organizer", "how": "push"}
    assert tags["polls"] == {"service": "organizer"}
    assert set(tags["waiters"]) == {"service", "hostname"}
    assert not [secret for secret in SECRETS if secret in repr(recorder)]


async def test_what_has_not_grown_is_not_sent(
    connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a quiet wait only the gauges are told again and again."""
    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
    here = await connect("areal")
    job_id = here.add()
    waiting = here.spawn(payload(trigger_of(here, job_id, poll_interval=60.0)))
    await here.listening()
    await until(lambda: len(recorder.values("waiters")) > 20)
    assert 0 not in recorder.values("polls")
    assert len(recorder.values("polls")) <= here.reads()
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_plain_statsd_has_the_tags_in_the_name(
    connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drops tags: two services would overwrite each other's gauges."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    monkeypatch.setattr(metrics, "_hostname", lambda: "a.host")
    await one_wait(await connect("haidy"))
    await until(lambda: recorder.values("waiters.haidy.a_host"))
    assert recorder.values("polls.haidy")
    assert recorder.values("end_to_event.haidy.poll")


async def test_nothing_is_sent_while_metrics_are_off(connect: Connect, recorder: Recorder) -> None:
    """As they are by default: nobody observes, and Airflow is told nothing."""
    await one_wait(await connect("haidy"))
    assert counts._observers == []
    assert recorder == []


async def test_broken_metrics_are_no_trouble_of_the_waits(
    connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the backend does, the wait comes to its end."""
    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")

    def breaking(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    for verb in ("gauge", "incr", "timing"):
        monkeypatch.setattr(recorder, verb, breaking, raising=False)
    await one_wait(await connect("areal"))


async def test_a_host_without_a_name_is_no_trouble_either(
    connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its name cannot be had, what needs it is not sent; the wait ends, and the account closes whole."""
    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
    monkeypatch.setenv("AIRFLOW__CORE__HOSTNAME_CALLABLE", "no.such.callable")
    metrics._hostname.cache_clear()
    await one_wait(await connect("areal"))
    await until(lambda: recorder.values("polls"))
    assert recorder.values("waiters") == []


async def test_a_switch_that_is_no_switch_is_off(
    connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the configuration of metrics ends no wait."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "perhaps")
    await one_wait(await connect("haidy"))
    assert recorder == []


async def test_an_airflow_without_such_metrics_is_told_nothing(
    connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no release's name for them can be imported, waits go on without."""
    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
    here = await connect("haidy")
    with monkeypatch.context() as before:
        before.setattr(compat, "stats", FOUND)
        before.setattr(compat, "_STATS", (("airflow.sdk", "NoSuchStats"), ("airflow.nowhere", "Stats")))
        assert metrics._stats() is None
    await one_wait(here)
    assert recorder == []
