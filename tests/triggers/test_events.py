"""How a wait's end becomes the one event of its trigger."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent

from airflow_status_provider import compat, xcoms
from airflow_status_provider.errors import StatusProviderError
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.triggers import base
from airflow_status_provider.triggers.areal import (
    ArealCDPushTrigger,
    ArealCopilotTrigger,
    ArealSessionTrigger,
)
from airflow_status_provider.triggers.organizer import OrganizerUploadTrigger
from tests.triggers.conftest import Connect, TaskInstance, describe, events, payload, trigger_of
from tests.versions import TRIGGER_XCOMS
from tests.waiting.world import CASES, SERVICES, result, until

#: how each service's result tells of itself
RESULTS = {"organizer-observed": "total_files", "haidy": "transcript"}


# -- the payload


@pytest.mark.parametrize("case", CASES)
async def test_the_event_of_a_success(connect: Connect, case: str) -> None:
    """One JSON object with the documented fields, then nothing more."""
    here = await connect(case, speed=10)
    job_id = here.add(seconds=1.0)
    told = await payload(trigger_of(here, job_id, poll_interval=0.3))
    assert (told["version"], told["job_id"], told["phase"]) == (1, job_id, "succeeded")
    assert told["status"] == here.case.good
    assert told["wait"]["how"] in ("push", "poll")
    assert 0.0 <= told["wait"]["seconds"] < 10
    assert "error" not in told
    assert "result" not in told


@pytest.mark.parametrize(
    ("case", "word", "phase", "error"),
    [
        ("areal", "failed", "failed", "RemoteJobFailed"),
        ("tagger-observed", "failed", "failed", "RemoteJobFailed"),
        ("tagger-documented", "cancelled", "cancelled", "RemoteJobCancelled"),
        ("organizer-lifecycle", "recovery_required", "failed", "RemoteJobFailed"),
        ("haidy", "FAILED", "failed", "RemoteJobFailed"),
    ],
)
async def test_the_event_of_a_job_that_ended_badly(
    connect: Connect, case: str, word: str, phase: str, error: str
) -> None:
    """The error's type and words stand in the event, beside how the job ended."""
    here = await connect(case)
    job_id = here.add()
    here.end(job_id, word)
    told = await payload(trigger_of(here, job_id))
    assert (told["version"], told["job_id"], told["phase"]) == (1, job_id, phase)
    assert told["error"]["type"] == error
    assert "(connection 'here')" in told["error"]["message"]
    assert job_id in told["error"]["message"]


async def test_a_partial_success_is_a_matter_of_taste(connect: Connect) -> None:
    """Some documents failed: fine, unless ``fail_on_partial`` says otherwise."""
    here = await connect("tagger-observed", speed=20)
    job_id = here.add(seconds=0.2, failed=1)
    told = await payload(trigger_of(here, job_id))
    assert (told["phase"], told["processed"], told["failed"], told["total"]) == ("partial", 2, 1, 3)
    told = await payload(trigger_of(here, job_id, fail_on_partial=True))
    assert told["error"]["type"] == "RemoteJobPartial"
    assert "1 failed" in told["error"]["message"]


async def test_the_event_of_a_timeout(connect: Connect) -> None:
    """The deadline passed: the job is said to be running still."""
    here = await connect("organizer-observed")
    told = await payload(trigger_of(here, here.add(), within=0.3))
    assert told["error"]["type"] == "WaitTimeout"
    assert told["phase"] == "running"
    assert told["wait"]["seconds"] >= 0.25


async def test_the_event_of_a_lost_job(connect: Connect) -> None:
    """Known to the task and gone: lost."""
    here = await connect("organizer-observed")
    told = await payload(trigger_of(here, "gone", seen=True))
    assert (told["phase"], told["error"]["type"]) == ("lost", "RemoteJobLost")


async def test_push_only_results_stand_in_the_event(connect: Connect) -> None:
    """They are small and harmless, and nobody could fetch them."""
    here = await connect("organizer-documented")
    trigger = OrganizerUploadTrigger(conn_id="here", job_id="file_7", deadline=time.time() + 5)
    waiting = here.spawn(payload(trigger))
    await until(lambda: here.server.sockets == 1)
    await asyncio.sleep(0.05)
    here.sim.organizer.file_uploaded("notes.txt", 3, "file_7")
    assert (await result(waiting))["result"] == {"file_id": "file_7", "name": "notes.txt", "size": 3}


async def test_a_cd_push_tells_its_gateway_request(connect: Connect) -> None:
    """What only the frame has is kept."""
    here = await connect("areal")
    waiting = here.spawn(payload(ArealCDPushTrigger(conn_id="here", job_id="r", deadline=time.time() + 5)))
    await until(lambda: here.server.sockets == 1)
    await asyncio.sleep(0.05)
    await here.sim.areal.cd_push_finished("s", "r", gateway_request_id="g", stats_message="12 fields")
    told = await result(waiting)
    assert told["result"]["gateway_request_id"] == "g"
    assert told["result"]["stats_message"] == "12 fields"


async def test_a_session_and_a_copilot_run_end_by_their_triggers(connect: Connect) -> None:
    """The kinds with trackers of their own."""
    here = await connect("areal", speed=20)
    session = here.add(kind="session", seconds=1.0, documents=3, split_failed=1)
    given: dict[str, Any] = {"conn_id": "here", "poll_interval": 0.1, "deadline": time.time() + 8}
    told = await payload(ArealSessionTrigger(job_id=session, **given))
    assert (told["phase"], told["processed"], told["failed"]) == ("partial", 2, 1)
    copilot = here.add(kind="copilot", seconds=1.0, outcome="success", session_id="s")
    told = await payload(ArealCopilotTrigger(job_id=copilot, options={"scope": "s"}, **given))
    assert (told["phase"], told["status"]) == ("succeeded", "success")


# -- the end of a task without a worker


@TRIGGER_XCOMS
@pytest.mark.parametrize("case", SERVICES)
async def test_a_success_may_end_the_task(connect: Connect, task: TaskInstance, case: str) -> None:
    """``end_from_trigger``: the summary is the XCom, stored from here, and no worker runs."""
    here = await connect(case)
    job_id = here.add()
    here.end(job_id)
    trigger = trigger_of(here, job_id, end_from_trigger=True, deferred_at=time.time())
    (event,) = await events(task.of(trigger))
    assert type(event) is TaskSuccessEvent
    assert event.xcoms is None  # Airflow would encode them twice
    assert task.xcoms["return_value"]["job_id"] == job_id
    assert task.xcoms["return_value"]["wait"]["how"] in ("push", "poll")


@TRIGGER_XCOMS
async def test_the_event_brings_a_summary_where_airflow_keeps_it(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Airflow stores an event's XComs as they are, a sensor's comes with its end, without a request."""
    monkeypatch.setattr(compat, "events_keep_xcoms", lambda: True)
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    (event,) = await events(task.of(trigger_of(here, job_id, end_from_trigger=True)))
    assert type(event) is TaskSuccessEvent
    assert event.xcoms is not None
    assert event.xcoms["return_value"]["job_id"] == job_id
    assert "return_value" not in task.xcoms
    json.dumps(event.xcoms, allow_nan=False)


@TRIGGER_XCOMS
@pytest.mark.parametrize("other_backend", [False, True])
async def test_the_event_brings_no_result_and_nothing_past_another_backend(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch, other_backend: bool
) -> None:
    """Events are logged, and only Airflow's own backend stores what they bring."""
    monkeypatch.setattr(compat, "events_keep_xcoms", lambda: True)
    if other_backend:
        monkeypatch.setattr(xcoms, "kept_by_airflow", lambda: False)
        monkeypatch.setattr(xcoms, "put", task.put)
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    trigger = trigger_of(here, job_id, end_from_trigger=True, with_result=not other_backend)
    (event,) = await events(task.of(trigger))
    assert type(event) is TaskSuccessEvent
    assert event.xcoms is None
    assert job_id in task.xcoms["return_value"].values()


async def test_a_task_without_xcoms_needs_none_stored(connect: Connect) -> None:
    """With ``do_xcom_push=False`` it ends from its trigger on every Airflow."""
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    (event,) = await events(trigger_of(here, job_id, end_from_trigger=True, xcom=False))
    assert type(event) is TaskSuccessEvent
    assert event.xcoms is None


@TRIGGER_XCOMS
async def test_a_summary_that_cannot_be_stored_is_left_to_the_worker(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task does not end without the XCom that it promises."""
    monkeypatch.setattr(base, "RESULT_TRIES", 1)
    here = await connect("haidy")
    task.failing = 10
    job_id = here.add()
    here.end(job_id)
    (event,) = await events(task.of(trigger_of(here, job_id, end_from_trigger=True)))
    assert type(event) is TriggerEvent
    assert event.payload["phase"] == "succeeded"


@pytest.mark.parametrize(
    ("more", "ending"),
    [
        ({}, TaskFailedEvent),
        ({"soft_fail": True}, TaskSkippedEvent),
        ({"resume_on_timeout": True}, TaskFailedEvent),
        ({"resume_on_timeout": True, "soft_fail": True}, TaskSkippedEvent),
    ],
)
async def test_a_failure_may_end_the_task(
    connect: Connect, more: dict[str, Any], ending: type[TriggerEvent]
) -> None:
    """A job that ended badly fails the task, or skips it where that was wanted."""
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id, "FAILED")
    (event,) = await events(trigger_of(here, job_id, end_from_trigger=True, **more))
    assert type(event) is ending


@pytest.mark.parametrize("more", [{}, {"end_from_trigger": True, "soft_fail": True}])
async def test_an_unknown_id_is_a_mistake_here_too(connect: Connect, more: dict[str, Any]) -> None:
    """Where nothing was checked before, or the service was away then: it is not skipped."""
    here = await connect("tagger-observed")
    (event,) = await events(trigger_of(here, "mistyped", **more))
    if more:
        assert type(event) is TaskFailedEvent
    else:
        assert (event.payload["phase"], event.payload["error"]["type"]) == ("lost", "NotFound")
        assert "batch 'mistyped': the batch is unknown to the service" in event.payload["error"]["message"]


@pytest.mark.parametrize(
    ("more", "ending"),
    [
        ({}, TaskFailedEvent),
        ({"soft_fail": True}, TaskSkippedEvent),
        ({"resume_on_timeout": True}, TriggerEvent),
        ({"resume_on_timeout": True, "soft_fail": True}, TriggerEvent),
    ],
)
async def test_a_timeout_may_end_the_task_or_resume_it(
    connect: Connect, more: dict[str, Any], ending: type[TriggerEvent]
) -> None:
    """A sensor's timeout must not be retried, and only a worker can see to that."""
    here = await connect("haidy")
    (event,) = await events(trigger_of(here, here.add(), within=0.2, end_from_trigger=True, **more))
    assert type(event) is ending


async def test_trouble_with_the_credentials_is_never_skipped(connect: Connect) -> None:
    """``soft_fail`` is about the job, not about a connection that somebody must mend."""
    here = await connect("haidy", password="wrong-token")
    (event,) = await events(trigger_of(here, "x", end_from_trigger=True, soft_fail=True))
    assert type(event) is TaskFailedEvent


# -- when the event is sent


@pytest.mark.parametrize(
    ("deferred", "end", "slept"),
    [(0.0, False, 10.0), (2.5, False, 7.5), (11.0, False, None), (-3600.0, False, None), (0.0, True, None)],
)
async def test_a_task_is_resumed_only_when_its_worker_is_surely_gone(
    connect: Connect,
    task: TaskInstance,
    monkeypatch: pytest.MonkeyPatch,
    deferred: float,
    end: bool,
    slept: float | None,
) -> None:
    """Before Airflow 3.4 an event that resumes the task waits for a heartbeat and some time; others do not."""
    monkeypatch.setattr(base.compat, "RESUMES_AT_ONCE", False)
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    monkeypatch.setattr(base, "asyncio", SimpleNamespace(sleep=sleep, timeout=asyncio.timeout))
    given = {"deferred_at": time.time() - deferred, "end_from_trigger": end, "xcom": False}
    await events(task.of(trigger_of(here, job_id, **given)))
    assert naps == ([] if slept is None else [pytest.approx(slept, abs=0.5)])


async def test_the_hold_follows_the_configuration(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment with quicker workers waits less."""
    monkeypatch.setattr(base.compat, "RESUMES_AT_ONCE", False)
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "-4.6")
    begun = time.monotonic()
    await payload(task.of(trigger_of(here, job_id, deferred_at=time.time())))
    assert 0.3 < time.monotonic() - begun < 2.0


async def test_a_task_is_resumed_at_once_where_the_scheduler_bears_it(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Airflow 3.4 on a job that ends at once costs its task no further seconds."""
    monkeypatch.setattr(base.compat, "RESUMES_AT_ONCE", True)
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    begun = time.monotonic()
    await payload(task.of(trigger_of(here, job_id, deferred_at=time.time())))
    assert time.monotonic() - begun < 5.0


async def test_dag_test_holds_nothing(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no scheduler that could fail a task which resumes too early."""
    monkeypatch.setattr(base.compat, "RESUMES_AT_ONCE", False)
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    begun = time.monotonic()
    await payload(trigger_of(here, job_id, deferred_at=time.time()))
    assert time.monotonic() - begun < 5.0


async def test_an_event_is_the_last_thing(connect: Connect) -> None:
    """After its event the generator ends at once; a trigger that lingers is taken for killed."""
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    running = trigger_of(here, job_id).run()
    await anext(running)
    begun = time.monotonic()
    with pytest.raises(StopAsyncIteration):
        await anext(running)
    assert time.monotonic() - begun < 0.05


# -- the result


@TRIGGER_XCOMS
@pytest.mark.parametrize("case", RESULTS)
async def test_a_result_goes_straight_to_xcom(connect: Connect, task: TaskInstance, case: str) -> None:
    """Where there is a task instance, the result is stored, and the event only says so."""
    here = await connect(case)
    job_id = here.add()
    here.end(job_id)
    told = await payload(task.of(trigger_of(here, job_id, with_result=True)))
    assert told["stored"] is True
    assert "xcom" not in told
    assert "result" not in told
    assert RESULTS[case] in json.dumps(task.xcoms["return_value"])


@TRIGGER_XCOMS
async def test_a_batchs_documents_go_to_xcom_too(connect: Connect, task: TaskInstance) -> None:
    """Tagger's tags come over the socket only; the trigger fetches them."""
    here = await connect("tagger-observed", speed=20)
    job_id = here.add(seconds=0.5)
    (event,) = await events(task.of(trigger_of(here, job_id, with_result=True, end_from_trigger=True)))
    assert type(event) is TaskSuccessEvent
    assert event.xcoms is None
    assert task.xcoms["return_value"]["wait"]["how"] in ("push", "poll")
    documents = task.xcoms["return_value"]["documents"]
    assert [row["success"] for row in documents] == [True] * 3


async def test_without_a_task_instance_the_event_has_to_carry_it(connect: Connect) -> None:
    """dag.test gives no task instance, and keeps no event."""
    here = await connect("haidy")
    job_id = here.add()
    here.end(job_id)
    told = await payload(trigger_of(here, job_id, with_result=True))
    assert told["xcom"]["result"]["transcript"] == "The patient reports no complaints."
    told = await payload(trigger_of(here, job_id, with_result=True, end_from_trigger=True))
    assert told["xcom"]["result"]["transcript"]


@TRIGGER_XCOMS
async def test_a_mapped_task_stores_its_own_result(connect: Connect, task: TaskInstance) -> None:
    """Under its own map index."""
    here = await connect("haidy")
    task.dto.map_index = 3
    job_id = here.add()
    here.end(job_id)
    await payload(task.of(trigger_of(here, job_id, with_result=True)))
    assert task.xcoms["return_value"]["haidy_task_id"] == job_id


@pytest.mark.parametrize(
    ("case", "stored"), [pytest.param("haidy", True, marks=TRIGGER_XCOMS), ("organizer-observed", False)]
)
async def test_a_large_result_is_left_to_the_worker_unless_it_is_told_only_once(
    connect: Connect, task: TaskInstance, case: str, stored: bool
) -> None:
    """64 KiB through the triggerer are enough, but nothing that cannot be had again is left behind."""
    here = await connect(case)
    if case == "haidy":
        job_id = here.add(result={"transcript": "x" * 100_000}, one_shot=True)
    else:
        job_id = here.add(files=5000)
    here.end(job_id)
    told = await payload(task.of(trigger_of(here, job_id, with_result=True)))
    assert ("stored" in told) is stored
    assert ("return_value" in task.xcoms) is stored
    assert len(json.dumps(told)) < 1000
    if not stored:
        (event,) = await events(task.of(trigger_of(here, job_id, with_result=True, end_from_trigger=True)))
        assert type(event) is TriggerEvent


@TRIGGER_XCOMS
@pytest.mark.parametrize(("failing", "stored"), [(1, True), (2, True), (3, False)])
async def test_a_result_that_cannot_be_stored_at_once_is_tried_again(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch, failing: int, stored: bool
) -> None:
    """The API may be away for a moment; if it stays away, the worker fetches the result."""
    naps = _no_naps(monkeypatch)
    here = await connect("organizer-observed")
    job_id = here.add()
    here.end(job_id)
    task.failing = failing
    told = await payload(task.of(trigger_of(here, job_id, with_result=True)))
    assert ("stored" in told) is stored
    assert "xcom" not in told
    assert len(naps) == min(failing, 2)


@TRIGGER_XCOMS
async def test_a_result_told_once_that_cannot_be_stored_is_not_lost_silently(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not stand in the event, and nobody could fetch it: the trigger fails, and says why."""
    _no_naps(monkeypatch)
    here = await connect("haidy")
    job_id = here.add(one_shot=True)
    here.end(job_id)
    task.failing = 9
    with pytest.raises(StatusProviderError, match=r"could not be stored \(ConnectionError\)") as failed:
        await events(task.of(trigger_of(here, job_id, with_result=True)))
    # whose words might quote what was to be stored
    assert failed.value.__suppress_context__


def _no_naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    monkeypatch.setattr(base, "asyncio", SimpleNamespace(sleep=sleep, timeout=asyncio.timeout))
    return naps


async def test_a_result_that_cannot_be_fetched_is_left_to_the_worker(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job has ended well: trouble with its result is no reason to fail in the triggerer."""
    here = await connect("tagger-observed")
    job_id = here.add()
    here.end(job_id)
    trigger = task.of(trigger_of(here, job_id, with_result=True))
    fetching = type(trigger._hook()).aget_result

    async def spoiled(
        hook: Any, job_id: str, *, kind: JobKind | None = None, **options: Any
    ) -> dict[str, Any]:
        here.server.faults.rest_status = 500
        return await fetching(hook, job_id, kind=kind, **options)

    monkeypatch.setattr(type(trigger._hook()), "aget_result", spoiled)
    told = await payload(trigger)
    assert told["phase"] == "succeeded"
    assert not {"stored", "xcom", "error"} & told.keys()


# -- the connection


async def test_a_connection_mended_meanwhile_is_picked_up(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the credentials are refused, the connection is read again before anybody fails."""
    here = await connect("areal")
    jobs = [here.add() for _ in range(3)]
    waits = [here.spawn(payload(trigger_of(here, job_id))) for job_id in jobs]
    await until(lambda: here.reads() >= 6)
    alice = here.server.users["alice"]
    alice.password = "rotated-Password1"
    here.server.expire_tokens()
    here.server.tokens._refresh.clear()
    describe(monkeypatch, here, password="rotated-Password1")
    logins = here.sim.count("areal", "/login", "POST")
    await until(lambda: here.server.sockets == 1 and here.sim.count("areal", "/login", "POST") > logins + 1)
    for job_id in jobs:
        here.end(job_id)
    for waiting in waits:
        assert (await result(waiting))["phase"] == "succeeded"
    # one that was refused, one with the new password
    assert here.sim.count("areal", "/login", "POST") == logins + 2


@pytest.mark.parametrize("case", SERVICES)
async def test_credentials_that_stay_wrong_fail_once_and_clearly(connect: Connect, case: str) -> None:
    """Every wait of the account says what to mend."""
    here = await connect(case, password="wrong-Password1")
    told = [await result(here.spawn(payload(trigger_of(here, here.add())))) for _ in range(2)]
    for one in told:
        assert one["error"]["type"] == "AuthenticationFailed"
        assert "(connection 'here')" in one["error"]["message"]
        assert "wrong-Password1" not in json.dumps(one)
