"""Watchers of a stream: what they tell, what they leave out, and what they do when things go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from airflow.triggers.base import BaseEventTrigger

from airflow_status_provider import compat
from airflow_status_provider.errors import InvalidInput
from airflow_status_provider.protocols import areal
from airflow_status_provider.watchers import base
from airflow_status_provider.watchers.areal import ArealEventTrigger
from airflow_status_provider.watchers.base import Watcher
from airflow_status_provider.watchers.organizer import OrganizerEventTrigger
from tests.harness import SECRETS, airflow_log  # noqa: F401 (the fixture)
from tests.triggers.conftest import Connect, describe
from tests.waiting.world import Wire, World, until
from tests.watchers.conftest import Watch, stored

COMPLETED = {"types": "FILE_STATUS_UPDATED", "statuses": "completed"}


def watcher(**filters: Any) -> ArealEventTrigger:
    return ArealEventTrigger(areal_conn_id="here", **filters)


async def listening(here: World, sockets: int = 1) -> None:
    await until(lambda: here.server.sockets == sockets)


# -- what is told


async def test_a_document_that_is_completed(connect: Connect, watch: Watch) -> None:
    """An event says what happened to what, and whose it is; all of it plain, and always the same fields."""
    here = await connect("areal")
    watched = watch(here, watcher(**COMPLETED))
    await listening(here)
    document = here.add()
    here.end(document)
    (told,) = await watched.so_far(1)
    assert told == {
        "version": 1,
        "service": "areal",
        "type": "FILE_STATUS_UPDATED",
        "job_id": document,
        "phase": "succeeded",
        "status": "completed",
        "message": None,
        "scope": here.server.jobs[document].session_id,
        "user": here.server.users["alice"].id,
        "name": None,
    }


async def test_all_types(connect: Connect, watch: Watch) -> None:
    """Without a filter every type of message is told, under the id of what it is about."""
    here = await connect("areal")
    watched = watch(here, watcher())
    await listening(here)
    document = here.add(noise=True)
    here.end(document)
    await until(lambda: len(watched.told) >= 12)
    assert set(watched.all("type")) == areal.EVENTS
    assert all(isinstance(job_id, str) and job_id for job_id in watched.all("job_id"))
    phases = {told["type"]: told["phase"] for told in watched.told}
    assert phases["FILE_DELETED"] == "cancelled"
    assert phases["CD_PULL_FINISHED"] == "failed"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"statuses": ["completed", "failed"]}, ["mine completed", "failing failed", "theirs completed"]),
        ({"phases": "failed"}, ["failing failed"]),
        ({"statuses": "completed", "upload_session_id": "theirs-session"}, ["theirs completed"]),
        ({"phases": ["succeeded"], "types": ["FILE_DELETED", "FILE_CREATED"]}, []),
        ({"types": ["FILE_DELETED"]}, ["gone deleted"]),
        ({"user_id": "nobody"}, []),
    ],
)
async def test_filters(connect: Connect, watch: Watch, filters: dict[str, Any], expected: list[str]) -> None:
    """Each filter is one word or several; an event must pass them all."""
    here = await connect("areal")
    every, watched = watch(here, watcher()), watch(here, watcher(**filters))
    await listening(here)
    for name, script in {
        "mine": {},
        "failing": {"outcome": "failed"},
        "theirs": {"session_id": "theirs-session"},
    }.items():
        here.add(name, **script)
        here.end(name)
    here.add("gone")
    here.server.delete("gone")
    await until(lambda: "FILE_DELETED" in every.all("type"))
    told = await watched.so_far(len(expected))
    assert [f"{each['job_id']} {each['status']}" for each in told] == expected


async def test_the_users_own(connect: Connect, watch: Watch) -> None:
    """A user's id lets pass what is the user's."""
    here = await connect("areal")
    watched = watch(here, watcher(user_id=here.server.users["alice"].id, **COMPLETED))
    await listening(here)
    document = here.add()
    here.end(document)
    await watched.so_far(1)


@pytest.mark.parametrize(
    ("case", "types"),
    [
        ("organizer-documented", ["job_progress", "job_complete"]),
        ("organizer-observed", ["job.created", "job.updated"]),
        ("organizer-lifecycle", ["job.created", "job.updated"]),
    ],
)
async def test_organizer_jobs(connect: Connect, watch: Watch, case: str, types: list[str]) -> None:
    """Phases read the same in both dialects; a job's progress alone is no event."""
    here = await connect(case)
    every = watch(here, OrganizerEventTrigger(organizer_conn_id="here"))
    ended = watch(here, OrganizerEventTrigger(organizer_conn_id="here", phases=["succeeded", "failed"]))
    await listening(here)
    await asyncio.sleep(0.15)  # until the subscription holds
    job_id = here.add(seconds=0.3)
    (told,) = await ended.so_far(1)
    assert (told["job_id"], told["phase"], told["status"]) == (job_id, "succeeded", "completed")
    assert [each for each in types if each in every.all("type")] == types
    assert len({(each["type"], each["status"]) for each in every.told}) == len(every.told)


async def test_an_uploaded_file(connect: Connect, watch: Watch) -> None:
    """An upload is one event, by its id, with its name."""
    here = await connect("organizer-documented")
    watched = watch(here, OrganizerEventTrigger(organizer_conn_id="here", types="file_uploaded"))
    await listening(here)
    file_id = here.server.file_uploaded("scan.pdf", 512)
    (told,) = await watched.so_far(1)
    assert (told["job_id"], told["name"], told["status"]) == (file_id, "scan.pdf", "uploaded")


# -- what is told once


async def test_a_frame_that_comes_twice(connect: Connect, watch: Watch) -> None:
    """Doubled frames are one event each."""
    here = await connect("areal")
    here.server.faults.duplicate = True
    watched = watch(here, watcher(**COMPLETED))
    await listening(here)
    for name in ("one", "two"):
        here.add(name)
        here.end(name)
    assert [told["job_id"] for told in await watched.so_far(2)] == ["one", "two"]


async def test_a_reconnect(connect: Connect, watch: Watch) -> None:
    """After a reconnect, what was told is not told again, and what is new is told."""
    here = await connect("areal")
    watched = watch(here, watcher(**COMPLETED))
    await listening(here)
    first = here.add()
    here.end(first)
    await watched.so_far(1)
    await here.server.drop_sockets()
    await listening(here, 0)
    await listening(here)
    job = here.server.jobs[first]
    here.server._move(job, "completed")  # as a service does that replays what came last
    second = here.add()
    here.end(second)
    await watched.so_far(2)
    assert watched.all("job_id") == [first, second]


async def test_a_burst(connect: Connect, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first event comes at once, the last one alone: Airflow begins no run for one that comes close after
    another, but takes it into the next."""
    monkeypatch.setattr(base, "SPACE", 1e9)
    monkeypatch.setattr(compat, "runs_per_event", lambda: False)
    here = await connect("areal")
    watched = watch(here, watcher(**COMPLETED))
    await listening(here)
    names = ["first", "second", "third", "fourth"]
    for count, name in enumerate(names):
        here.add(name)
        here.end(name)
        await watched.so_far(max(1, count))
    assert watched.all("job_id") == names[:-1]


async def test_two_watchers_and_a_wait_share_one_socket(connect: Connect, watch: Watch) -> None:
    """All of an account is on one socket, and each watcher hears all of it."""
    here = await connect("areal")
    watches = [watch(here, watcher(**COMPLETED)), watch(here, watcher(phases="succeeded"))]
    await listening(here)
    document = here.add()
    waiting = here.wait(document)
    await until(lambda: here.reads() >= 1)
    assert here.server.sockets == 1
    here.end(document)
    for watched in watches:
        assert [told["job_id"] for told in await watched.so_far(1)] == [document]
    await waiting
    assert here.sim.count("areal", "/status/") == 1
    assert here.sign_ins() == 1


# -- what goes wrong


async def test_refused_credentials(
    connect: Connect,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    airflow_log: Callable[[], str],  # noqa: F811 (the fixture)
) -> None:
    """They are tried once, said once, and tried again when the connection has been mended."""
    here = await connect("areal", password="wrong-Password1")
    watched = [watch(here, watcher(**COMPLETED)), watch(here, watcher())]
    words = "the login was refused"
    await until(lambda: airflow_log().count(words) == 3)  # each in its own log, and the socket's at DEBUG
    await asyncio.sleep(0.5)
    assert here.sim.count("areal", "/login", "POST") == 1
    assert airflow_log().count(words) == 3
    assert not [each for each in watched if each.task.done()]
    assert not [secret for secret in ("wrong-Password1", *SECRETS) if secret in airflow_log()]
    describe(monkeypatch, here)
    await listening(here)
    document = here.add()
    here.end(document)
    await watched[0].so_far(1)


async def test_credentials_that_are_accepted_later(
    connect: Connect, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then the same credentials are tried again: what was wrong may have been the service."""
    monkeypatch.setattr(base, "TRY_AGAIN", 0.2)
    here = await connect("areal")
    password = here.server.users["alice"].password
    here.server.users["alice"].password = "changed-Password1"
    watch(here, watcher())
    await until(lambda: here.sim.count("areal", "/login", "POST") == 1)
    here.server.users["alice"].password = password
    await listening(here)


async def test_a_socket_that_takes_no_such_credentials(
    connect: Connect,
    watch: Watch,
    airflow_log: Callable[[], str],  # noqa: F811 (the fixture)
) -> None:
    """Nothing but the socket tells of events: who is refused there is told so, and does not knock on."""
    here = await connect("areal")
    here.server.faults.refuse_upgrade = 403
    watched = watch(here, watcher())
    await until(lambda: "use credentials that the socket accepts" in airflow_log())
    knocks = here.sim.count("areal", "/status/")
    await asyncio.sleep(0.5)
    assert here.sim.count("areal", "/status/") == knocks == 3
    assert airflow_log().count("use credentials that the socket accepts") == 1
    assert not watched.task.done()


async def test_a_service_that_is_away(
    connect: Connect,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    airflow_log: Callable[[], str],  # noqa: F811 (the fixture)
) -> None:
    """It is waited for with growing pauses, one line says so, and one that it is back."""
    here = await connect("areal")
    wire = Wire(here.sim.url)
    await wire.mend()
    await wire.cut()
    describe(monkeypatch, here, host=wire.url, port=None)
    watched = watch(here, watcher(**COMPLETED))
    await until(lambda: "event stream interrupted" in airflow_log())
    await asyncio.sleep(0.5)
    assert airflow_log().count("event stream interrupted") == 1
    await wire.mend()
    await listening(here)
    await until(lambda: "listening again" in airflow_log())
    document = here.add()
    here.end(document)
    await watched.so_far(1)
    await wire.cut()


async def test_a_connection_that_is_not_there_yet(
    world: Any,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    airflow_log: Callable[[], str],  # noqa: F811 (the fixture)
) -> None:
    """It is said once, and found when somebody has made it."""
    here = await world("areal")
    watch(here, watcher())
    await until(lambda: "there is no such connection" in airflow_log())
    await asyncio.sleep(0.3)
    assert airflow_log().count("there is no such connection") == 1
    describe(monkeypatch, here)
    await listening(here)


async def test_a_bug(connect: Connect, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a bug of ours ends a watcher, or has it spin."""
    calls = 0

    def broken(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise ValueError

    monkeypatch.setattr(base, "watch", broken)
    here = await connect("areal")
    watched = watch(here, watcher())
    await until(lambda: calls > 2)
    await asyncio.sleep(0.3)
    assert calls < 12
    assert not watched.task.done()


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"types": "FILE_DONE"}, "types: there is no FILE_DONE; there are CDBALANCER_STATUS_UPDATED"),
        ({"phases": ["done"]}, "phases: there is no done; there are cancelled"),
        ({"statuses": []}, "statuses must be a text or several"),
        ({"statuses": [1]}, "statuses must be a text or several"),
        ({"user_id": 5}, "user_id must be a text or several"),
        ({"areal_conn_id": ""}, "the connection id is empty"),
    ],
)
async def test_what_is_wrong_is_said_where_the_dag_is_read(
    filters: dict[str, Any],
    words: str,
    airflow_log: Callable[[], str],  # noqa: F811 (the fixture)
) -> None:
    """A DAG with a watcher that cannot be right does not import; a stored one waits, and says why."""
    made = ArealEventTrigger(**filters)
    with pytest.raises(InvalidInput, match=words):
        made.serialize()
    run = asyncio.ensure_future(anext(made.run()))
    await until(lambda: words in airflow_log())
    assert not run.done()
    run.cancel()


# -- as Airflow sees it


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (watcher(types=["FILE_DELETED", "FILE_CREATED"]), watcher(types={"FILE_CREATED", "FILE_DELETED"})),
        (watcher(statuses="completed"), watcher(statuses=("completed",))),
    ],
)
def test_the_same_watcher_is_the_same(one: Watcher, other: Watcher) -> None:
    """However its filters are written down, a watcher keeps its identity: also over restarts."""
    assert one.serialize() == other.serialize() == stored(one).serialize()
    assert BaseEventTrigger.hash(*one.serialize()) == BaseEventTrigger.hash(*stored(other).serialize())


async def test_a_cancelled_watcher_leaves_nothing(connect: Connect) -> None:
    """Cancelled while it listens or while its event is taken, it closes its socket (see the fixture)."""
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    here = await connect("areal")
    runner = TriggerRunner()
    made = stored(watcher(**COMPLETED))
    runner.triggers[1] = {"task": None, "is_watcher": True, "name": "watcher", "events": 0}
    task = here.spawn(runner.run_trigger(1, made))
    await listening(here)
    document = here.add()
    here.end(document)
    await until(lambda: runner.events)
    task.cancel("__airflow_user_action__")
    await listening(here, 0)

    events = stored(watcher(**COMPLETED)).run()
    taken = here.spawn(anext(events))  # type: ignore[arg-type]
    await listening(here)
    document = here.add()
    here.end(document)
    await taken
    del events, taken
    here.tasks.clear()
    await listening(here, 0)
