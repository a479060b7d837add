"""What a stored deferral brings: nothing of it may break the triggerer, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TriggerEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_status_provider.errors import StatusProviderError
from airflow_status_provider.triggers.areal import ArealCDBalancerTrigger, ArealSessionTrigger
from airflow_status_provider.triggers.base import DEFAULTS, StatusTrigger
from airflow_status_provider.triggers.haidy import HaidyTaskTrigger
from tests.triggers.conftest import ALL, Connect, again, payload, trigger_of
from tests.waiting.world import CASES, until

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["here", "starting", "..", "None", "\ud800", "7d9d9c3e-0000-4000-8000-000000000000"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [*DEFAULTS, "self", "cls", "queue", "kwargs", "unknown", "task_instance", "trigger_id", "log", "run"]
)
OPTIONS = st.dictionaries(
    st.sampled_from(["scope", "documents", "settled", "baseline", "start", "seen", "kind", "job_id"]),
    VALUES,
    max_size=3,
)
KWARGS = st.dictionaries(NAMES | st.text(max_size=12), VALUES, max_size=8)


@pytest.mark.parametrize("made", ALL)
def test_a_trigger_survives_its_storage(made: type[StatusTrigger]) -> None:
    """What ``serialize`` gives is plain JSON, and makes the same trigger again."""
    kwargs: dict[str, Any] = {
        "conn_id": "here",
        "job_id": "job/1 ä",
        "poll_interval": 2.5,
        "deadline": 1790000000.25,
        "stall_timeout": 60.5,
        "options": {"scope": "s", "documents": ["a", "b"]},
        "seen": True,
        "started_at": 1.5,
        "deferred_at": 2.5,
        "end_from_trigger": True,
        "resume_on_timeout": True,
        "soft_fail": True,
        "fail_on_partial": True,
        "max_failed": 0.5,
        "with_result": True,
        "xcom": False,
        "cancel_on_kill": True,
        "cancel_on_timeout": True,
        "within": 60.5,
        "of_execution": True,
        "fields": {"job_id": "document_id"},
        "document_id": "{{ params.id }}",
        "of_another_release": {"n": [1, None]},
    }
    trigger = made(**kwargs)
    path, stored = trigger.serialize()
    assert path == f"{made.__module__}.{made.__name__}"
    assert made.__module__.startswith("airflow_status_provider.triggers.")
    assert stored == kwargs
    assert again(trigger).serialize() == (path, stored)


def test_what_is_as_by_default_is_not_stored() -> None:
    """A triggerer reads the rows of all triggers again and again: they are small."""
    trigger = HaidyTaskTrigger(conn_id="here", job_id="job", deadline=None, seen=False, xcom=True)
    _, stored = trigger.serialize()
    assert stored == {"conn_id": "here", "job_id": "job"}
    assert vars(again(trigger)) == vars(trigger)


def test_no_default_changes() -> None:
    """What was stored by another release of this package holds only what differs from these."""
    flags = ("seen", "end_from_trigger", "resume_on_timeout", "soft_fail", "fail_on_partial", "with_result")
    cancels = ("cancel_on_kill", "cancel_on_timeout", "of_execution", "failure_details")
    unset = (
        "deadline",
        "stall_timeout",
        "options",
        "started_at",
        "deferred_at",
        "within",
        "fields",
        "max_failed",
    )
    assert {
        "conn_id": "",
        "job_id": "",
        "poll_interval": 5.0,
        "xcom": True,
        **dict.fromkeys((*flags, *cancels), False),
        **dict.fromkeys(unset),
    } == DEFAULTS


@given(KWARGS)
def test_no_kwargs_break_init(kwargs: dict[str, Any]) -> None:
    """An ``__init__`` that raises would take the whole triggerer down, again and again."""
    for made in ALL:
        trigger = made(**kwargs)
        left_out = kwargs.keys() - trigger.serialize()[1].keys()
        assert all(kwargs[name] is DEFAULTS[name] for name in left_out)
        assert again(trigger).serialize()[1].keys() == trigger.serialize()[1].keys()


ROUND = iter(range(10**9))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.sampled_from(ALL),
    KWARGS,
    st.sampled_from(["here", None]),
    st.sampled_from(["job", None]),
    st.none() | OPTIONS,
)
def test_no_kwargs_hang_or_crash_run(
    monkeypatch: pytest.MonkeyPatch,
    made: type[StatusTrigger],
    kwargs: dict[str, Any],
    conn_id: str | None,
    job_id: str | None,
    options: dict[str, Any] | None,
) -> None:
    """Whatever the kwargs are, ``run`` yields one event, or waits for a deadline that it understood."""
    connection = {"conn_type": made.hook_class.conn_type, "host": "http://127.0.0.1:9", "password": "x" * 9}
    monkeypatch.setenv("AIRFLOW_CONN_HERE", json.dumps(connection))
    kwargs = {"deadline": time.time() - 1, **kwargs}
    for name, value in (("conn_id", conn_id), ("job_id", job_id), ("options", options)):
        if value is not None:
            kwargs[name] = value
    trigger = made(**kwargs)

    async def main(patience: float) -> list[TriggerEvent] | None:
        try:
            async with asyncio.timeout(patience):
                return [event async for event in trigger.run()]
        except TimeoutError:
            return None

    began = time.time()
    told = asyncio.run(main(0.3))
    if told is None:
        trigger._validate()
        if (
            trigger.deadline is None
            or trigger.deadline > began - 1
            or trigger.deferred_at is not None
            or trigger.cancel_on_timeout
        ):
            return
        trigger = made(**kwargs)
        told = asyncio.run(main(30.0))
    assert told is not None
    (event,) = told
    if isinstance(event, TaskSkippedEvent | TaskFailedEvent):
        return
    assert event.payload["version"] == 1
    assert {"job_id", "phase", "status", "error", "wait"} <= event.payload.keys()
    assert issubclass(_error_class(event.payload["error"]["type"]), StatusProviderError)
    json.dumps(event.payload, allow_nan=False)


def _error_class(name: str) -> type[Exception]:
    from airflow_status_provider import errors

    found: type[Exception] = getattr(errors, name)
    return found


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"conn_id": ""}, "the connection id is empty"),
        ({"conn_id": None}, "the connection id is None"),
        ({"conn_id": ["7"]}, "the connection id must be text"),
        ({"job_id": ""}, "the task id is empty"),
        ({"job_id": None}, "the task id is None; does its template render to nothing?"),
        ({"job_id": ".."}, "cannot be an id"),
        ({"poll_interval": 0}, "poll_interval must be a positive number"),
        ({"poll_interval": "often"}, "poll_interval must be a positive number, not 'often'"),
        ({"poll_interval": True}, "poll_interval must be a positive number"),
        ({"poll_interval": float("inf")}, "poll_interval must be a positive number"),
        ({"poll_interval": 10**400}, "poll_interval must be a positive number"),
        ({"poll_interval": 1e308}, "poll_interval must be a positive number"),
        ({"deadline": "tomorrow"}, "deadline must be Unix seconds or None, not 'tomorrow'"),
        ({"deadline": float("nan")}, "deadline must be Unix seconds or None"),
        ({"max_failed": "few"}, "max_failed must be a share from 0 to 1 or None, not 'few'"),
        ({"max_failed": 1.5}, "max_failed must be a share from 0 to 1"),
        ({"deadline": 10**400}, "deadline must be Unix seconds or None"),
        ({"options": ["scope"]}, "options must be an object"),
        ({"options": {"scope": {"a": 1}}}, "options must be an object of texts and lists of texts"),
        ({"options": {"no such": "x"}}, "the trigger's options do not fit a task"),
        ({"conn_id": "nowhere"}, "there is no such connection; create it with type 'haidy'"),
    ],
)
async def test_what_is_wrong_is_said_by_an_event(
    connect: Connect, kwargs: dict[str, Any], words: str
) -> None:
    """A mistake in the kwargs is one clear failure event, not a broken trigger."""
    here = await connect("haidy")
    told = await payload(trigger_of(here, "job", **kwargs))
    assert words in told["error"]["message"]
    assert told["error"]["type"] in ("InvalidInput", "InvalidConnection")
    assert told["job_id"] == str(kwargs.get("job_id", "job"))


async def test_numbers_may_come_as_text(connect: Connect) -> None:
    """A store that turned numbers into text turned them into nothing worse."""
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    deadline = str(time.time() + 5)
    told = await payload(trigger_of(here, job_id, poll_interval="0.1", deadline=deadline, started_at="x"))
    assert told["phase"] == "succeeded"


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        (ArealCDBalancerTrigger, {"start": ["a"]}, "options.start must be the ids of two documents"),
        (
            ArealCDBalancerTrigger,
            {"start": ["a", "b", "c"]},
            "options.start must be the ids of two documents",
        ),
        (ArealCDBalancerTrigger, {"start": "ab"}, "options.start must be the ids of two documents"),
        (ArealCDBalancerTrigger, {"start": ["a", ""]}, "the document id is empty"),
        (ArealCDBalancerTrigger, None, "the CD balancer run id is empty"),
        (ArealSessionTrigger, {"documents": "abc", "x": "y"}, "id is empty"),
    ],
)
async def test_a_start_that_cannot_be_right_is_not_tried(
    connect: Connect, made: type[StatusTrigger], options: dict[str, Any] | None, words: str
) -> None:
    """What would be started is looked at before anything is opened or written."""
    here = await connect("areal")
    told = await payload(made(conn_id="here", job_id="", options=options))
    assert words in told["error"]["message"]
    assert here.sim.requests == []


@pytest.mark.parametrize("case", CASES)
async def test_a_trigger_goes_on_anywhere(connect: Connect, case: str) -> None:
    """Stopped in the middle and made again from what is stored, a trigger waits on with the same deadline."""
    here = await connect(case)
    job_id = here.add()
    first = trigger_of(here, job_id)
    running = here.spawn(payload(first))
    await here.listening()
    stored = first.serialize()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    second = again(first)
    assert second.serialize() == stored
    waiting = here.spawn(payload(second))
    reads = here.reads()
    await until(lambda: here.reads() > reads)
    here.end(job_id)
    told = await waiting
    assert told["phase"] == "succeeded"
    assert told["wait"]["seconds"] >= 0.05


async def test_two_copies_of_a_trigger_do_no_harm(connect: Connect) -> None:
    """After a lapse two triggerers may run the same trigger: both say the same."""
    here = await connect("organizer-observed")
    job_id = here.add()
    first = trigger_of(here, job_id)
    copies = [here.spawn(payload(first)), here.spawn(payload(again(first)))]
    await here.listening()
    here.end(job_id)
    told = [await copy for copy in copies]
    assert told[0]["phase"] == told[1]["phase"] == "succeeded"
