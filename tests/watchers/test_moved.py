"""A service that moves: its connection leads elsewhere, and its old server is gone."""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.hooks import base as hooks
from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.simulator import Simulator
from airflow_status_provider.transport import endpoint as endpoints
from airflow_status_provider.triggers.areal import ArealDocumentTrigger
from airflow_status_provider.waiting import account
from airflow_status_provider.watchers.areal import ArealEventTrigger
from tests.transport.conftest import Certified, certified  # noqa: F401 (a fixture)
from tests.waiting.world import until

VARIABLE = "AIRFLOW_CONN_AREAL_DEFAULT"


@pytest.fixture
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "LOOK_AGAIN", 0.05)
    monkeypatch.setattr(hooks, "CONNECTION_AGE", 0.0)


@pytest.mark.usefixtures("_look_often")
async def test_waits_and_watchers_change_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the old server cannot be reached, a new host in the connection is found by both, and all is well."""
    async with Simulator() as new:
        old = Simulator()
        await old.start()
        monkeypatch.setenv(VARIABLE, json.dumps(old.connections()["areal_default"]))
        old.areal.add("document", seconds=1e6)
        told: list[str] = []
        ended: list[str] = []

        async def watch() -> None:
            async for event in ArealEventTrigger(types="FILE_STATUS_UPDATED", statuses="completed").run():
                told.append(event.payload["job_id"])  # noqa: PERF401 - seen while it goes on

        async def wait() -> None:
            deadline = time.time() + 3600
            trigger = ArealDocumentTrigger(
                conn_id="areal_default", job_id="document", poll_interval=0.1, deadline=deadline
            )
            async for event in trigger.run():
                ended.append(event.payload["phase"])  # noqa: PERF401 - seen while it goes on

        tasks = [asyncio.create_task(watch()), asyncio.create_task(wait())]
        await until(lambda: old.areal.sockets == 1)
        monkeypatch.setenv(VARIABLE, json.dumps(new.connections()["areal_default"]))
        await asyncio.sleep(0.2)
        assert new.areal.sockets == 0  # as long as the old one answers, nothing changes
        new.areal.add("document", seconds=1e6)
        await old.stop()
        await until(lambda: new.areal.sockets >= 1)
        new.areal.end("document")
        await until(lambda: ended == ["succeeded"])
        new.areal.add("another", seconds=0)
        await until(lambda: "another" in told)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: not account._accounts.get(asyncio.get_running_loop()))


@pytest.mark.usefixtures("_look_often")
async def test_renewed_certificates_are_another_account(
    certified: Certified,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files that hold something else, under the same path, make another account; the same do not."""
    monkeypatch.setattr(endpoints, "_contexts", {})
    renewed = tmp_path / "ca.pem"
    pem = Path(certified.ca_file).read_text()  # noqa: ASYNC240 - a short file
    renewed.write_text(pem)
    fields = {"conn_type": "haidy", "host": "https://127.0.0.1:9", "password": "a token of ours"}
    monkeypatch.setenv("AIRFLOW_CONN_TLS", json.dumps({**fields, "extra": {"ca_file": str(renewed)}}))
    first, second = await HaidyHook("tls").aendpoint(), await HaidyHook("tls").aendpoint()
    assert first is not second
    assert (first.digest, first.tls) == (second.digest, second.tls)
    renewed.write_text(pem + pem)
    third = await HaidyHook("tls").aendpoint()
    assert third.digest != first.digest
    assert third.tls is not first.tls


async def test_a_tls_context_is_loaded_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the authorities takes 40 ms, in which the loop has other things to do."""
    monkeypatch.setattr(endpoints, "_contexts", {})
    where: list[int] = []
    real = ssl.create_default_context
    monkeypatch.setattr(
        ssl, "create_default_context", lambda **more: (where.append(threading.get_ident()), real(**more))[1]
    )
    fields = {"conn_type": "haidy", "host": "https://127.0.0.1:9", "password": "a token of ours"}
    for name in ("TLS_A", "TLS_B"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(fields))
        await HaidyHook(name.lower()).aendpoint()
    assert len(where) == 1
    assert threading.get_ident() not in where


def test_white_space_around_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a copy from a file leaves around a secret is no part of it."""
    extra = {"model_api_key": " key \n"}
    fields: dict[str, Any] = {"conn_type": "tagger", "host": "https://x.example", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SPACED", json.dumps({**fields, "password": "\ta token of ours\r\n"}))
    hook = TaggerHook("spaced")
    assert hook.model_api_key() == "key"
    assert hook.endpoint().secrets == ("a token of ours", "key")


def test_a_loop_that_has_ended_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched keeps no loop alive, and goes when another loop asks, whoever else keeps the old one."""
    monkeypatch.setenv(
        VARIABLE, json.dumps({"conn_type": "areal", "host": "https://x", "password": "secret"})
    )
    loop = asyncio.new_event_loop()
    endpoint = weakref.ref(loop.run_until_complete(ArealHook("areal_default").aendpoint()))
    assert all(not isinstance(found, asyncio.Task) for _, found in hooks._fetched[loop].values())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    asyncio.run(ArealHook("areal_default").aendpoint())
    del loop
    gc.collect()
    assert endpoint() is None
