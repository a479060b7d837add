"""Triggers of all kinds on a simulated service, with a task instance whose XComs are kept here."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import XCom
from airflow.triggers.base import TriggerEvent

from airflow_status_provider import compat
from airflow_status_provider.triggers import progress
from airflow_status_provider.triggers.areal import (
    ArealCDBalancerTrigger,
    ArealCDPullTrigger,
    ArealCDPushTrigger,
    ArealCopilotTrigger,
    ArealDocPushTrigger,
    ArealDocumentTrigger,
    ArealSessionTrigger,
)
from airflow_status_provider.triggers.base import StatusTrigger
from airflow_status_provider.triggers.haidy import HaidyTaskTrigger
from airflow_status_provider.triggers.organizer import OrganizerJobTrigger, OrganizerUploadTrigger
from airflow_status_provider.triggers.tagger import TaggerBatchTrigger
from tests.waiting.conftest import _frozen, _hurried, complaints, world  # noqa: F401 (fixtures)
from tests.waiting.world import World

ALL: list[type[StatusTrigger]] = [
    ArealDocumentTrigger,
    ArealSessionTrigger,
    ArealDocPushTrigger,
    ArealCDBalancerTrigger,
    ArealCDPullTrigger,
    ArealCDPushTrigger,
    ArealCopilotTrigger,
    TaggerBatchTrigger,
    OrganizerJobTrigger,
    OrganizerUploadTrigger,
    HaidyTaskTrigger,
]
#: by the service's name: what its cases' jobs are waited for with
OF_SERVICE: dict[str, type[StatusTrigger]] = {
    "areal": ArealDocumentTrigger,
    "tagger": TaggerBatchTrigger,
    "organizer": OrganizerJobTrigger,
    "haidy": HaidyTaskTrigger,
}

Connect = Callable[..., Awaitable[World]]


@pytest.fixture
def connect(world: Any, monkeypatch: pytest.MonkeyPatch) -> Connect:  # noqa: F811 (the fixture)
    """A function that makes a world and the connection ``here`` to it."""

    async def make(case: str, conn_id: str = "here", speed: float = 1.0, **changes: Any) -> World:
        here: World = await world(case, speed)
        describe(monkeypatch, here, conn_id, **changes)
        return here

    return make


def describe(monkeypatch: pytest.MonkeyPatch, here: World, conn_id: str = "here", **changes: Any) -> None:
    """Put the connection into the environment, as a deployment would."""
    connection = {**here.sim.connections()[f"{here.case.service.name}_default"], **changes}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))


def trigger_of(here: World, job_id: str, /, *, within: float = 10.0, **kwargs: Any) -> StatusTrigger:
    """The trigger for a job of this world, as an operator would have made it some time ago."""
    made = OF_SERVICE[here.case.service.name]
    given: dict[str, Any] = {
        "conn_id": "here",
        "job_id": job_id,
        "poll_interval": 0.1,
        "deadline": time.time() + within,
        "started_at": time.time(),
        "deferred_at": time.time() - 60.0,
    }
    return made(**{**given, **kwargs})


def again(trigger: StatusTrigger) -> StatusTrigger:
    """The same trigger as another triggerer would make it of what is stored."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    assert (module, name) == (type(trigger).__module__, type(trigger).__name__)
    return type(trigger)(**json.loads(json.dumps(kwargs)))


async def events(trigger: StatusTrigger, within: float = 10.0) -> list[TriggerEvent]:
    """All events of a trigger; it must come to its end by itself."""
    async with asyncio.timeout(within):
        return [event async for event in trigger.run()]


async def payload(trigger: StatusTrigger, within: float = 10.0) -> dict[str, Any]:
    """The payload of the one event, which must be plain JSON."""
    (event,) = await events(trigger, within)
    assert type(event) is TriggerEvent
    told = event.payload
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert isinstance(told, dict)
    return told


class TaskInstance:
    """A task instance as the triggerer injects it, and its XComs."""

    def __init__(self) -> None:
        self.dto = SimpleNamespace(
            id="0197",
            dag_id="dag",
            task_id="task",
            run_id="run",
            map_index=-1,
            try_number=1,
            context_carrier=None,
        )
        self.xcoms: dict[str, Any] = {}
        self.history: list[tuple[str, Any]] = []
        self.failing = 0
        self.state: str | None = "failed"

    async def aset(self, key: str, value: Any, **where: Any) -> None:
        assert where == {"dag_id": "dag", "task_id": "task", "run_id": "run", "map_index": self.dto.map_index}
        if self.failing:
            self.failing -= 1
            raise ConnectionError("the API is away")
        self.xcoms[key] = json.loads(json.dumps(value))
        self.history.append((key, value))

    async def put(self, key: str, value: Any, where: dict[str, Any]) -> None:
        await self.aset(key, value, **where)

    async def aget_one(self, *, key: str, **where: Any) -> Any:
        assert where["task_id"] == "task"
        return self.xcoms.get(key)

    def get_task_states(self, **where: Any) -> dict[str, Any]:
        index = where["map_index"]
        return {"run": {"task" if index is None else f"task_{index}": self.state}}

    def of(self, trigger: StatusTrigger) -> StatusTrigger:
        trigger.task_instance = self.dto  # type: ignore[assignment]
        return trigger


@pytest.fixture
def before_3_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow that also calls ``on_kill`` where another triggerer has taken over."""
    monkeypatch.setattr(compat, "triggers_are_released", lambda: False)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> TaskInstance:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    made = TaskInstance()
    monkeypatch.setattr(progress, "TICK", 0.02)
    if hasattr(XCom, "aset"):
        monkeypatch.setattr(XCom, "aset", made.aset)
        monkeypatch.setattr(XCom, "aget_one", made.aget_one)
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(made.get_task_states))
    return made
