"""Watchers of one job: its end is told, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_status_provider.errors import InvalidInput
from airflow_status_provider.watchers.base import EndEventTrigger
from airflow_status_provider.watchers.haidy import HaidyTaskEventTrigger
from airflow_status_provider.watchers.tagger import TaggerBatchEventTrigger
from tests.harness import airflow_log  # noqa: F401 (the fixture)
from tests.triggers.conftest import Connect
from tests.waiting.world import World, until
from tests.watchers.conftest import Watch, Watched, stored

CASES = ["tagger-documented", "tagger-observed", "haidy"]


def watcher(here: World, job_id: str, **more: Any) -> EndEventTrigger:
    if here.case.service.name == "haidy":
        return HaidyTaskEventTrigger(
            haidy_task_id=job_id, haidy_conn_id="here", **{"poll_interval": 0.1, **more}
        )
    return TaggerBatchEventTrigger(job_id=job_id, tagger_conn_id="here", **{"poll_interval": 0.1, **more})


class Memory:
    """Airflow's store of an asset."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.broken = False

    async def aget(self, key: str) -> Any:
        if self.broken:
            raise ValueError("2 concrete inlets")
        return self.kept.get(key)

    async def aset(self, key: str, value: Any) -> None:
        if self.broken:
            raise ValueError("2 concrete inlets")
        self.kept[key] = value

    def watched(self, here: World, made: EndEventTrigger) -> Watched:
        again = stored(made)
        again.asset_state_store = self  # type: ignore[assignment]
        return Watched(here, again)


@pytest.mark.parametrize("case", CASES)
async def test_the_end_of_a_job(connect: Connect, watch: Watch, case: str) -> None:
    """It is one event, with the service's own word for how it ended and nothing of the result."""
    here = await connect(case)
    job_id = here.add()
    watched = watch(here, watcher(here, job_id))
    await here.listening()
    here.end(job_id)
    (told,) = await watched.so_far(1)
    assert told == {
        "version": 1,
        "service": here.case.service.name,
        "type": f"{here.case.kind.name}_ended",
        "job_id": job_id,
        "phase": "succeeded",
        "status": here.case.good,
        "message": told["message"],
        "scope": None,
        "user": None,
        "name": None,
    }


@pytest.mark.parametrize("case", CASES)
async def test_a_job_that_is_not_there_yet(
    connect: Connect,
    watch: Watch,
    case: str,
    airflow_log: Callable[[], str],  # noqa: F811 (the fixture)
) -> None:
    """A job may be watched before it is started; that it is unknown so far is said once."""
    here = await connect(case)
    watched = watch(here, watcher(here, "to-come"))
    await until(lambda: "unknown to the service so far" in airflow_log())
    await asyncio.sleep(0.3)
    here.add("to-come")
    here.end("to-come")
    await watched.so_far(1)
    assert airflow_log().count("unknown to the service so far") == 1


@pytest.mark.parametrize("case", ["tagger-observed", "haidy"])
async def test_a_restart(connect: Connect, case: str) -> None:
    """Where Airflow has a memory for watchers, what was told is not told by the next triggerer."""
    here, memory = await connect(case), Memory()
    job_id, other = here.add(), here.add()
    here.end(job_id)
    first = memory.watched(here, watcher(here, job_id))
    await first.so_far(1)
    await until(lambda: memory.kept)
    first.task.cancel()
    second = memory.watched(here, watcher(here, job_id))
    another = memory.watched(here, watcher(here, other))
    here.end(other)
    await another.so_far(1)
    await second.so_far(0)


async def test_before_3_3(connect: Connect, watch: Watch) -> None:
    """Without such a memory, each start of a triggerer tells it once."""
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    for _ in range(2):
        made = stored(watcher(here, job_id))
        vars(made).pop("asset_state_store", None)
        assert len(await Watched(here, made).so_far(1)) == 1


async def test_a_memory_that_fails(
    connect: Connect,
    airflow_log: Callable[[], str],  # noqa: F811 (the fixture)
) -> None:
    """What cannot be remembered is told all the same, and once."""
    here, memory = await connect("haidy"), Memory()
    memory.broken = True
    job_id = here.add()
    here.end(job_id)
    watched = memory.watched(here, watcher(here, job_id))
    await watched.so_far(1)
    await until(lambda: airflow_log().count("after a restart the last event may be reported again") == 2)
    await watched.so_far(1)


async def test_refused_credentials(connect: Connect) -> None:
    """A refused token is not tried again and again."""
    here = await connect("haidy", password="wrong")
    watched = Watched(here, stored(watcher(here, here.add())))
    await until(lambda: here.reads() >= 1)
    await asyncio.sleep(0.4)
    assert here.reads() == 1
    await watched.so_far(0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"job_id": ""}, "id is empty"),
        ({"job_id": "j", "poll_interval": 0}, "poll_interval must be a positive number"),
        ({"job_id": "j", "tagger_conn_id": None}, "connection id is None"),
    ],
)
def test_what_is_wrong_is_said_where_the_dag_is_read(arguments: dict[str, Any], words: str) -> None:
    """A DAG with such a watcher does not import."""
    with pytest.raises(InvalidInput, match=words):
        TaggerBatchEventTrigger(**arguments).serialize()
