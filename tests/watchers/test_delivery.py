"""What a watcher has received, it passes on, whatever happens next."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from airflow_status_provider import compat
from airflow_status_provider.protocols.model import Event
from airflow_status_provider.waiting import running
from airflow_status_provider.waiting.watch import Watch
from airflow_status_provider.watchers import base
from airflow_status_provider.watchers.areal import ArealEventTrigger
from airflow_status_provider.watchers.haidy import HaidyTaskEventTrigger
from tests.triggers.conftest import Connect
from tests.waiting.world import World, until
from tests.watchers.conftest import Watch as Watching
from tests.watchers.conftest import Watched


async def test_a_held_event_is_passed_on_before_an_error(
    connect: Connect, watch: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that is held back for a later run comes at once when the service refuses the socket."""
    monkeypatch.setattr(base, "SPACE", 60.0)
    monkeypatch.setattr(compat, "runs_per_event", lambda: False)
    heard: list[tuple[str, str]] = []
    hear = Watch.hear

    def listen(self: Watch, event: Event) -> None:
        heard.append((event.job_id, str(event.phase)))
        hear(self, event)

    monkeypatch.setattr(Watch, "hear", listen)
    here = await connect("areal")
    watched = watch(here, ArealEventTrigger(areal_conn_id="here", phases="succeeded"))
    await until(lambda: here.server.sockets == 1)
    first, second = here.add(), here.add()
    here.end(first)
    await until(lambda: watched.all("job_id") == [first])
    here.end(second)
    here.server.faults.refuse_upgrade = 403
    await until(lambda: (second, "succeeded") in heard)
    here.server.restart()
    await until(lambda: watched.all("job_id") == [first, second])


class Held:
    """A watcher that has passed on its first event and holds the second one back."""

    def __init__(self, here: World, watching: Watching, **stores: Any) -> None:
        self.here, self.first, self.second = here, here.add(), here.add()
        watcher = ArealEventTrigger(areal_conn_id="here", phases="succeeded")
        if stores:
            watcher.asset_state_store = Stores(**stores)  # type: ignore[assignment]
            self.watched = Watched(here, watcher)
        else:
            self.watched = watching(here, watcher)

    async def until_held(self, heard: list[str]) -> None:
        await until(lambda: self.here.server.sockets >= 1)
        self.here.end(self.first)
        await until(lambda: self.watched.all("job_id") == [self.first])
        self.here.end(self.second)
        await until(lambda: self.second in heard)


class Stores:
    """Airflow's stores of a watcher's assets."""

    def __init__(self, **stores: Store) -> None:
        self._by_name = stores

    async def aget(self, key: str) -> Any:
        raise ValueError(f"Task has {len(self._by_name)} concrete inlets and outlets")


class Store(dict[str, Any]):
    async def aget(self, key: str) -> Any:
        return self.get(key)

    async def aset(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    async def adelete(self, key: str) -> None:
        self.pop(key, None)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs whose success has come to a watch; what follows their first event is held back."""
    monkeypatch.setattr(base, "SPACE", 60.0)
    monkeypatch.setattr(base, "SETTLED", 0.05)
    monkeypatch.setattr(compat, "runs_per_event", lambda: False)
    jobs: list[str] = []
    hear = Watch.hear

    def listen(self: Watch, event: Event) -> None:
        hear(self, event)
        if event.phase.good:
            jobs.append(event.job_id)

    monkeypatch.setattr(Watch, "hear", listen)
    return jobs


async def test_a_held_event_is_passed_on_at_a_stop(
    connect: Connect, watch: Watching, heard: list[str]
) -> None:
    """A watcher that is cancelled passes on what it holds back."""
    held = Held(await connect("areal"), watch)
    await held.until_held(heard)
    held.watched.task.cancel()
    await until(held.watched.task.done)
    assert held.watched.all("job_id") == [held.first, held.second]


async def test_a_held_event_outlives_its_triggerer(
    connect: Connect, watch: Watching, heard: list[str]
) -> None:
    """It is stored for each asset; the next triggerer passes it on, and forgets it."""
    stores = {"one": Store(), "two": Store()}
    here = await connect("areal")
    held = Held(here, watch, **stores)
    await held.until_held(heard)
    await until(lambda: all(stores.values()))
    held.watched.told.clear()
    held.watched.task.cancel()  # the triggerer stops: what the cancelled watcher says is not sent
    await until(held.watched.task.done)
    again = ArealEventTrigger(areal_conn_id="here", phases="succeeded")
    again.asset_state_store = Stores(**stores)  # type: ignore[assignment]
    watched = Watched(here, again)
    await until(lambda: watched.all("job_id") == [held.second])
    await until(lambda: not any(stores.values()))


async def test_equal_watchers_of_two_assets_report_an_end_once(connect: Connect) -> None:
    """They are one trigger: what was reported is kept for each asset, and a restart does not repeat it."""
    here, stores = await connect("haidy"), {"one": Store(), "two": Store()}
    job_id = here.add()
    here.end(job_id)
    for reported in (1, 0):
        watcher = HaidyTaskEventTrigger(haidy_task_id=job_id, haidy_conn_id="here", poll_interval=0.1)
        watcher.asset_state_store = Stores(**stores)  # type: ignore[assignment]
        watched = Watched(here, watcher)
        await watched.so_far(reported)
        await until(lambda: all(stores.values()))
        watched.task.cancel()
        await until(watched.task.done)


@pytest.mark.parametrize("taken_over", [True, False])
async def test_a_triggerer_that_was_frozen(
    connect: Connect, watch: Watching, monkeypatch: pytest.MonkeyPatch, taken_over: bool
) -> None:
    """What came meanwhile is passed on when Airflow has had the time to cancel a watcher that runs elsewhere now."""
    monkeypatch.setattr(compat, "take_over_time", lambda: 0.2)
    monkeypatch.setattr(base, "SYNCED", 0.3)
    here = await connect("areal")
    watched = watch(here, ArealEventTrigger(areal_conn_id="here", phases="succeeded"))
    await until(lambda: here.server.sockets == 1)
    job = here.add()
    here.end(job)
    time.sleep(running.BEAT + 0.3)  # noqa: ASYNC251 - the frozen triggerer
    await asyncio.sleep(0.1)
    assert watched.told == []
    if taken_over:
        watched.task.cancel()
        await until(watched.task.done)
        assert watched.told == []
    else:
        await until(lambda: watched.all("job_id") == [job])
