"""The trigger that starts its own job: once, whatever becomes of the triggerer and of the answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.triggers.base import TriggerEvent

from airflow_status_provider.triggers.areal import STARTING, ArealCDBalancerTrigger
from tests.triggers.conftest import Connect, TaskInstance, again, describe, payload
from tests.versions import TRIGGER_XCOMS
from tests.waiting.world import World, result, until


async def documents(here: World) -> list[str]:
    made = [here.add(), here.add()]
    for document in made:
        here.end(document)
    return made


def balancer(start: list[str], within: float = 10.0, **kwargs: Any) -> ArealCDBalancerTrigger:
    given: dict[str, Any] = {
        "conn_id": "here",
        "poll_interval": 0.1,
        "deadline": time.time() + within,
        "seen": True,
        "options": {"start": start},
    }
    return ArealCDBalancerTrigger(**{**given, **kwargs})


@TRIGGER_XCOMS
@pytest.mark.parametrize("seconds", [0.0, 0.2])
async def test_a_run_is_started_once_and_waited_for(
    connect: Connect, task: TaskInstance, seconds: float
) -> None:
    """Listen, write down that it starts, start, write down its id, wait."""
    here = await connect("areal")
    here.sim.areal.script.seconds = seconds
    told = await payload(task.of(balancer(await documents(here))))
    assert told["phase"] == "succeeded"
    (run,) = here.server.starts
    assert told["job_id"] == run
    assert task.history == [
        ("cd_balancer_start", STARTING),
        ("cd_balancer_start", run),
        ("job_id", run),
        ("request_id", run),
    ]


async def test_it_works_without_a_task_instance_too(connect: Connect) -> None:
    """dag.test has nowhere to write anything down."""
    here = await connect("areal")
    here.sim.areal.script.seconds = 0.1
    told = await payload(balancer(await documents(here)))
    assert (told["phase"], told["job_id"]) == ("succeeded", here.server.starts[0])


@TRIGGER_XCOMS
async def test_a_restarted_triggerer_waits_for_the_run_that_was_started(
    connect: Connect, task: TaskInstance
) -> None:
    """The id was written down: the second triggerer finds it, and starts nothing."""
    here = await connect("areal")
    trigger = balancer(await documents(here))
    stored = again(trigger)
    here.sim.areal.script.seconds = 1e9
    running = here.spawn(payload(task.of(trigger)))
    await until(lambda: "request_id" in task.xcoms)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    waiting = here.spawn(payload(task.of(stored)))
    await until(lambda: here.server.sockets >= 1)
    await asyncio.sleep(0.1)
    (run,) = here.server.starts
    here.end(run)
    told = await result(waiting)
    assert (told["phase"], told["job_id"]) == ("succeeded", run)
    assert len(here.server.starts) == 1


@TRIGGER_XCOMS
async def test_a_triggerer_lost_while_it_started_is_said(connect: Connect, task: TaskInstance) -> None:
    """Started or not, nobody knows: it is not started again, and no retry may."""
    here = await connect("areal")
    task.xcoms["cd_balancer_start"] = STARTING
    told = await payload(task.of(balancer(await documents(here), end_from_trigger=True)))
    assert told["error"]["type"] == "StartUncertain"
    assert here.server.starts == []


@TRIGGER_XCOMS
@pytest.mark.parametrize("fault", ["truncate", 500])
async def test_a_start_without_an_answer_is_uncertain(
    connect: Connect, task: TaskInstance, fault: str | int
) -> None:
    """The run may have been started all the same."""
    here = await connect("areal")
    start = await documents(here)
    here.sim.areal.script.seconds = 1e9
    if isinstance(fault, int):
        here.server.faults.rest_fail_next = [fault]
    else:
        here.server.faults.truncate = True
    told = await payload(task.of(balancer(start)))
    assert told["error"]["type"] == "StartUncertain"
    assert told["error"]["message"].startswith("Areal (connection 'here'): ")
    assert task.xcoms["cd_balancer_start"] == STARTING


@TRIGGER_XCOMS
async def test_a_start_that_was_refused_is_not_uncertain(connect: Connect, task: TaskInstance) -> None:
    """The service said no: nothing was started, and that is written down as well."""
    here = await connect("areal")
    told = await payload(task.of(balancer([here.add(), here.add()])))
    assert told["error"]["type"] == "RequestRejected"
    assert "must be processed first" in told["error"]["message"]
    assert "(connection 'here')" in told["error"]["message"]
    assert task.xcoms["cd_balancer_start"] == ""


async def test_credentials_refused_at_the_start_are_read_anew(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was mended meanwhile starts the run, once, and nothing is called uncertain."""
    here = await connect("areal", login=None, password="an-old-key")
    here.sim.areal.socket_auth = "none"  # the socket takes everybody, REST does not
    here.sim.areal.script.seconds = 0.1
    start = await documents(here)
    trigger = task.of(balancer(start))
    fetch = type(trigger._hook()).aendpoint

    async def fetched(hook: Any, stale: Any = None) -> Any:
        if stale is not None:
            describe(monkeypatch, here, login=None, password="areal-simulated-api-key")
        return await fetch(hook, stale)

    monkeypatch.setattr(type(trigger._hook()), "aendpoint", fetched)
    told = await payload(trigger)
    assert told["phase"] == "succeeded"
    assert len(here.server.starts) == 1


@TRIGGER_XCOMS
async def test_an_id_that_cannot_be_written_down_stops_nothing(connect: Connect, task: TaskInstance) -> None:
    """The run has been started and is listened to: it is waited for all the same."""
    here = await connect("areal")
    here.sim.areal.script.seconds = 0.2
    trigger = task.of(balancer(await documents(here)))
    first = task.aset

    async def only_the_first(key: str, value: Any, **where: Any) -> None:
        if value != STARTING:
            raise ConnectionError("the API is away")
        await first(key, value, **where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseXCom, "aset", only_the_first)
        told = await payload(trigger)
    assert told["phase"] == "succeeded"
    assert task.xcoms == {"cd_balancer_start": STARTING}


@TRIGGER_XCOMS
async def test_nothing_is_started_that_cannot_be_written_down(connect: Connect, task: TaskInstance) -> None:
    """Without the first note a restart could start another: so there is no start."""
    here = await connect("areal")
    task.failing = 1
    with pytest.raises(ConnectionError):
        await payload(task.of(balancer(await documents(here))))
    assert here.server.starts == []


async def test_a_run_somebody_else_started_is_only_waited_for(connect: Connect) -> None:
    """With a ``job_id`` nothing is started."""
    here = await connect("areal")
    run = here.add(kind="cd_balancer")
    waiting = here.spawn(payload(balancer([], job_id=run, options=None)))
    await until(lambda: here.server.sockets == 1)
    await asyncio.sleep(0.1)
    here.end(run)
    assert (await result(waiting))["job_id"] == run
    assert here.server.starts == []


async def test_the_event_of_a_start_is_an_event(connect: Connect, task: TaskInstance) -> None:
    """One event, of the plain kind, that names the run."""
    here = await connect("areal")
    here.sim.areal.script.seconds = 0.05
    fired = [event async for event in task.of(balancer(await documents(here))).run()]
    assert [type(event) for event in fired] == [TriggerEvent]
