"""A wait ends although its connection does not settle."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.triggers import base
from airflow_status_provider.triggers.haidy import HaidyTaskTrigger
from tests.transport.conftest import answer, peer

__all__ = ["peer"]


async def _event(trigger: HaidyTaskTrigger) -> Any:
    async with asyncio.timeout(10):
        async for event in trigger.run():
            return event.payload
    raise AssertionError


@pytest.mark.parametrize("deadline", [1.5, None])
async def test_other_credentials_at_each_read_end_the_wait(
    peer: Any, monkeypatch: pytest.MonkeyPatch, deadline: float | None
) -> None:
    """They are tried a few times with pauses between, not for ever, and not past the deadline."""
    fetched = 0

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"{}", "401 Unauthorized", Connection="close"))
        await writer.drain()
        writer.close()

    async def connection(self: HaidyHook) -> Connection:
        nonlocal fetched
        fetched += 1
        return Connection(
            conn_id="h", conn_type="haidy", host=service.url, password=f"dynamic-password-{fetched}"
        )

    service = await peer(handle)
    monkeypatch.setattr(HaidyHook, "_aconnection", connection)
    monkeypatch.setattr(base, "full_jitter", lambda attempt: 0.2 if deadline is None else 0.6)
    until = None if deadline is None else time.time() + deadline
    event = await _event(HaidyTaskTrigger(conn_id="h", job_id="j", deadline=until, poll_interval=5))
    assert event["error"]["type"] == "AuthenticationFailed"
    assert len(service.heard) <= base.MOST_CREDENTIALS


async def test_a_connection_that_is_not_given_ends_the_wait_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A secrets backend that hangs does not hold a wait past its deadline."""

    async def connection(self: HaidyHook) -> Connection:
        await asyncio.sleep(3600)
        raise AssertionError

    monkeypatch.setattr(HaidyHook, "_aconnection", connection)
    monkeypatch.setattr(base, "LAST_FETCH_TIME", 0.3)
    trigger = HaidyTaskTrigger(conn_id="hangs", job_id="j", deadline=time.time() + 0.1, poll_interval=5)
    event = await _event(trigger)
    assert event["error"]["type"] == "WaitTimeout"
    assert "task 'j': Airflow does not give the connection" in event["error"]["message"]


async def test_a_wait_that_resumes_after_its_deadline_reads_once(
    peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggerer was away at the deadline: the connection is fetched, and the last read decides."""

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b'{"taskId": "j", "status": "DONE", "result": {}}', Connection="close"))
        await writer.drain()
        writer.close()

    service = await peer(handle)

    async def connection(self: HaidyHook) -> Connection:
        await asyncio.sleep(0.05)
        return Connection(conn_id="late", conn_type="haidy", host=service.url, password="secret-password")

    monkeypatch.setattr(HaidyHook, "_aconnection", connection)
    event = await _event(HaidyTaskTrigger(conn_id="late", job_id="j", deadline=time.time() - 60))
    assert event["phase"] == "succeeded"
