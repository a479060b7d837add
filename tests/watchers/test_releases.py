# SPDX-License-Identifier: Apache-2.0
"""What watchers do otherwise on other releases: of Airflow (3.4 gives them queues), and of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.triggers.base import BaseEventTrigger

from airflow_status_provider import compat
from airflow_status_provider.errors import InvalidInput
from airflow_status_provider.watchers import base
from airflow_status_provider.watchers.areal import ArealEventTrigger
from airflow_status_provider.watchers.base import Watcher
from airflow_status_provider.watchers.haidy import HaidyTaskEventTrigger
from airflow_status_provider.watchers.organizer import OrganizerEventTrigger
from airflow_status_provider.watchers.tagger import TaggerBatchEventTrigger
from tests.triggers.conftest import Connect
from tests.watchers.conftest import Watched
from tests.watchers.test_streams import listening, watcher

EVERY: dict[str, Callable[..., Watcher]] = {
    "areal": ArealEventTrigger,
    "organizer": OrganizerEventTrigger,
    "tagger": lambda **more: TaggerBatchEventTrigger(job_id="b", **more),
    "haidy": lambda **more: HaidyTaskEventTrigger(haidy_task_id="t", **more),
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


@pytest.fixture
def airflow_3_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow that gives watchers a queue, as far as a watcher sees it."""
    if compat.watchers_take_queue():
        return
    plain = BaseEventTrigger.__init__

    def init(self: Any, *, queue: str | None = None) -> None:
        plain(self)
        self.queue = queue

    monkeypatch.setattr(BaseEventTrigger, "__init__", init)
    monkeypatch.setattr(compat, "watchers_take_queue", lambda: True)


@pytest.mark.usefixtures("airflow_3_4")
@every
def test_a_watcher_takes_a_queue_and_hands_it_on(make: Callable[..., Watcher]) -> None:
    """Airflow reads it off the watcher; it is no part of what is stored, by which the watcher is known."""
    made: Any = make(queue="x")
    assert made.queue == "x"
    assert "queue" not in made.serialize()[1]
    assert made.serialize() == make().serialize()


@pytest.mark.usefixtures("airflow_3_4")
@pytest.mark.parametrize("odd", ["", " ", 7, ["x"]])
@every
def test_a_queue_that_is_none_is_said_where_the_dag_is_read(make: Callable[..., Watcher], odd: Any) -> None:
    """``__init__`` never fails; what is wrong is an import error of the Dag."""
    with pytest.raises(InvalidInput, match="queue must be the name of a queue"):
        make(queue=odd).serialize()


@every
def test_an_older_airflow_refuses_a_queue_in_words(
    make: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that nobody would keep to is no queue."""
    monkeypatch.setattr(compat, "watchers_take_queue", lambda: False)
    with pytest.raises(InvalidInput, match="queue needs Airflow 3.4 or newer"):
        make(queue="x").serialize()
    assert make(queue=None).serialize() == make().serialize()


async def test_where_each_event_gets_a_run_none_is_held_back(
    connect: Connect, watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last event of a burst comes as soon as the first."""
    monkeypatch.setattr(base, "SPACE", 1e9)
    monkeypatch.setattr(compat, "runs_per_event", lambda: True)
    here = await connect("areal")
    watched = watch(here, watcher())
    await listening(here)
    jobs = [here.add() for _ in range(5)]
    for job_id in jobs:
        here.end(job_id)
    told = await watched.so_far(5)
    assert [event["job_id"] for event in told] == jobs


@pytest.mark.parametrize(("setting", "each"), [(None, False), ("True", False), ("False", True)])
def test_whether_each_event_gets_a_run_is_airflows_setting(
    setting: str | None, each: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``[scheduler] batch_asset_events``; an Airflow without it makes one run of several events."""
    if setting is None:
        if compat.RELEASE >= (3, 4):
            pytest.skip("this Airflow has the setting")
        monkeypatch.delenv("AIRFLOW__SCHEDULER__BATCH_ASSET_EVENTS", raising=False)
    else:
        monkeypatch.setenv("AIRFLOW__SCHEDULER__BATCH_ASSET_EVENTS", setting)
    assert compat.runs_per_event() is each


# -- other releases of this package


@every
def test_an_unknown_argument_is_said_where_the_dag_is_read(make: Callable[..., Watcher]) -> None:
    """A filter with a slip of the pen must not let everything pass."""
    with pytest.raises(InvalidInput, match="EventTrigger takes no a_slip, stauses$"):
        make(stauses="completed", a_slip=None).serialize()


async def test_a_stored_watcher_with_arguments_of_another_release_watches(connect: Connect) -> None:
    """What a newer release has stored is left alone when an older one goes on."""
    here = await connect("areal")
    watched = Watched(here, watcher(of_another_release={"n": [1, None]}))
    await listening(here)
    job_id = here.add()
    here.end(job_id)
    (event,) = await watched.so_far(1)
    assert event["job_id"] == job_id
