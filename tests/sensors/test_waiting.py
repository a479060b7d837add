# SPDX-License-Identifier: Apache-2.0
"""Every sensor in every way it can wait: the same end, the same XCom."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from airflow_status_provider.errors import InvalidInput, NotFound, RemoteJobFailed
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task, said
from tests.sensors.cases import CASES, ERROR, HEARD, READABLE, Case, Remote

ways: dict[str, dict[str, Any]] = {
    "from the trigger": {},
    "resumed": {"end_from_trigger": False},
    "on the worker": {"deferrable": False},
    "poke by poke": {"deferrable": False, "mode": "reschedule", "poke_interval": 0.01},
}


TAGGER = CASES[0]
#: an ended session is read twice before it is believed, so there is always a wait
AT_ONCE = [case for case in READABLE if case.noun != "upload session"]
#: an upload to the Organizer has no bad end
FAILING = [case for case in CASES if case.noun != "uploaded file"]


def every(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


def way(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", [ways[name] for name in names or ways], ids=names or list(ways))


def each(cases: list[Case], *names: str) -> pytest.MarkDecorator:
    """Each of the cases in each of the ways; poke by poke, where the job can be asked about."""
    return pytest.mark.parametrize(
        ("case", "way"),
        [
            pytest.param(case, ways[name], id=f"{case.id}, {name}")
            for case in cases
            for name in names or ways
            if case.readable or name != "poke by poke"
        ],
    )


def softly(soft: str) -> dict[str, Any]:
    return {soft: True} if soft else {}


# -- while it waits


@every(CASES)
def test_a_job_is_seen_from_the_start(case: Case, status_simulator: SimulatorThread) -> None:
    """Before the sensor defers it says, in the XCom ``progress``, what it waits for and until when."""
    remote = Remote(case, status_simulator)
    task = Task(case.sensor, **remote.arguments(timeout=60))
    assert task.run().state == "deferred"
    told = task.xcom("progress")
    assert (told["job_id"], told["service"]) == (remote.id, case.service)
    assert told["conn_id"] == f"{case.service}_default"
    assert told["how"] == "first check"
    assert told["deadline"] == pytest.approx(told["started_at"] + 60, abs=0.01)
    assert bool(told["status"]) == case.readable


# -- the check before


@each(AT_ONCE, "from the trigger", "poke by poke")
def test_an_ended_job_needs_no_deferral(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """A job that has ended before the sensor begins ends it at once, whichever way it would have waited."""
    remote = Remote(case, status_simulator)
    remote.end()
    task = Task(case.sensor, **remote.arguments(**way))
    assert task.run().state == "success"
    assert task.xcom()["job_id"] == remote.id
    assert task.xcom()["phase"] == "succeeded"
    assert task.xcom()["wait"]["how"] == "first check"


@each(AT_ONCE, "from the trigger", "poke by poke")
def test_a_failed_job_fails_at_once(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """A job that has failed before the sensor begins fails it at once, naming connection and job."""
    remote = Remote(case, status_simulator)
    remote.end(good=False)
    task = Task(case.sensor, **remote.arguments(**way))
    piece = task.run()
    assert piece.state == "failed"
    assert isinstance(piece.error, RemoteJobFailed)
    where = f"{case.title} (connection '{case.service}_default'), {case.noun} '{remote.id}' failed"
    assert said(task).startswith(where)
    assert task.xcom() is None


@each(READABLE[:-1], "from the trigger", "poke by poke")
def test_an_unknown_job_is_an_error_before_any_deferral(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """An id that the service does not know is one clear error."""
    arguments = Remote(case, status_simulator).arguments(**way)
    task = Task(case.sensor, **arguments | {case.sensor.id_field: "nobody-knows-me"})
    piece = task.run()
    assert piece.state == "failed"
    assert isinstance(piece.error, NotFound)
    where = f"{case.title} (connection '{case.service}_default'), {case.noun} 'nobody-knows-me': "
    assert said(task).startswith(where)
    assert "404" in said(task)


@pytest.mark.parametrize("soft", ["soft_fail", "never_fail"])
def test_a_wrong_id_is_not_softened(soft: str, status_simulator: SimulatorThread) -> None:
    """``soft_fail`` does not hide a mistake in the DAG; ``never_fail`` hides everything."""
    for way in (ways["from the trigger"], ways["poke by poke"]):
        task = Task(TAGGER.sensor, **{"job_id": "nobody-knows-me", **way, **softly(soft)})
        assert task.run().state == ("skipped" if soft == "never_fail" else "failed")


@way()
def test_an_unknown_haidy_task_is_given_up_after_its_grace(
    way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """A Haidy task that nobody knows fails after the grace, in every way of waiting."""
    task = Task(READABLE[-1].sensor, haidy_task_id="nobody-knows-me", **{"poll_interval": 0.05, **way})
    assert task.complete().state == "failed"
    assert "task 'nobody-knows-me'" in said(task)
    assert "unknown to the service" in said(task)


def test_a_haidy_task_may_be_late(status_simulator: SimulatorThread) -> None:
    """A Haidy task that is unknown to the first reads is waited for all the same."""
    haidy = status_simulator.simulator.haidy
    task_id = status_simulator.call(haidy.add, missing_first=3, seconds=1)
    task = Task(READABLE[-1].sensor, haidy_task_id=task_id, poll_interval=0.05)
    assert task.complete().state == "success"


# -- the wait


@each(CASES)
def test_every_way_of_waiting_gives_the_same(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """However a sensor waits, the XCom is the same, and ``wait`` says how the end was learned."""
    remote = Remote(case, status_simulator)
    task = Task(case.sensor, **remote.arguments(**way))
    remote.end_soon()
    piece = task.complete()
    assert piece.state == "success", piece.error
    result = task.xcom()
    assert set(result) <= {
        *("job_id", "phase", "status", "message", "progress", "processed", "failed", "total"),
        "wait",
        *(() if case.readable else ("result",)),
    }
    assert result["job_id"] == remote.id
    assert result["phase"] == "succeeded"
    assert isinstance(result["status"], str)
    assert result["wait"]["how"] in ("push", "poll")
    assert 0 < result["wait"]["seconds"] < 10


@each(FAILING, "from the trigger", "resumed", "on the worker")
def test_every_way_of_waiting_fails_the_same(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """However a sensor waits, a failed job fails it with the service's own words."""
    remote = Remote(case, status_simulator)
    task = Task(case.sensor, **remote.arguments(**way))
    remote.end_soon(good=False)
    piece = task.complete()
    assert piece.state == "failed"
    assert f"{case.noun} '{remote.id}' failed" in said(task)
    if case.tells == "always" or (case.tells == "on the socket" and task.how == "push"):
        assert ERROR in said(task)
    assert task.xcom() is None
    assert "Traceback" not in said(task)


@every(HEARD)
def test_what_only_the_socket_tells_is_no_matter_of_poking(
    case: Case, status_simulator: SimulatorThread
) -> None:
    """Without a status endpoint there is nothing to poke: said before anything is sent."""
    task = Task(case.sensor, **Remote(case, status_simulator).arguments(**ways["poke by poke"]))
    assert isinstance(task.run().error, InvalidInput)
    assert "only the socket reports" in said(task)
    assert not status_simulator.simulator.requests


@every(HEARD)
def test_what_only_the_socket_tells_is_waited_for(case: Case, status_simulator: SimulatorThread) -> None:
    """Without a status endpoint nothing is known before the wait, so the sensor defers after signing in."""
    remote = Remote(case, status_simulator)
    task = Task(case.sensor, **remote.arguments())
    assert task.run().state == "deferred"
    assert status_simulator.simulator.count(case.service, "/login") == 1


# -- ends that are neither good nor bad


@pytest.mark.parametrize("soft", ["soft_fail", "never_fail"])
@each([TAGGER])
def test_a_failed_job_can_skip_instead(
    case: Case, way: dict[str, Any], soft: str, status_simulator: SimulatorThread
) -> None:
    """``soft_fail`` and ``never_fail`` skip the task when the job failed, whichever way it waited."""
    remote = Remote(case, status_simulator)
    task = Task(case.sensor, **remote.arguments(**way, **softly(soft)))
    remote.end_soon(good=False)
    assert task.complete().state == "skipped"


@pytest.mark.parametrize(
    ("soft", "retries"), [("", 0), ("", 2), ("soft_fail", 0), ("soft_fail", 2), ("never_fail", 0)]
)
@way()
def test_time_runs_out(
    way: dict[str, Any], retries: int, soft: str, status_simulator: SimulatorThread
) -> None:
    """A sensor's time-out is final: ``AirflowSensorTimeout``, never retried, or a skip."""
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments(**way, **softly(soft)), timeout=0.2, retries=retries)
    piece = task.complete()
    assert piece.state == ("skipped" if soft else "failed")
    if piece.error is not None:
        assert isinstance(piece.error, AirflowSensorTimeout)
        assert f"batch '{remote.id}'" in said(task)


@pytest.mark.parametrize("soft", ["", "soft_fail", "never_fail"])
@pytest.mark.parametrize("trouble", ["Trigger timeout", "Trigger failure"])
def test_the_framework_ends_the_deferral(trouble: str, soft: str, status_simulator: SimulatorThread) -> None:
    """Where no triggerer ended the wait in time, it is a time-out; where the trigger broke, it says so."""
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments(**softly(soft)), retries=1)
    task.run()
    piece = task.fail(trouble)
    if trouble == "Trigger timeout":
        assert piece.state == ("skipped" if soft else "failed")
        if not soft:
            assert isinstance(piece.error, AirflowSensorTimeout)
            assert remote.id in said(task)
    else:
        assert piece.state == ("skipped" if soft == "never_fail" else "up_for_retry")


def test_a_last_read_decides_even_then(status_simulator: SimulatorThread) -> None:
    """A job that ended while no triggerer lived is found when the framework's own time is up."""
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments())
    task.run()
    remote.end()
    assert task.fail("Trigger timeout").state == "success"
    assert task.xcom()["phase"] == "succeeded"


@pytest.mark.parametrize("soft", ["", "soft_fail", "never_fail"])
@way()
def test_a_refused_login_is_not_softened(
    way: dict[str, Any], soft: str, status_simulator: SimulatorThread
) -> None:
    """``soft_fail`` is for jobs that ended badly: credentials refused in mid-wait still fail the task."""
    tagger = status_simulator.simulator.tagger
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments(**way, **softly(soft)))

    def lock_out() -> None:
        tagger.users["alice"].active = False
        tagger.expire_tokens()

    if way.get("deferrable", True):
        piece = task.run()
        lock_out()
        piece = task.resume(task.fire())
    elif "mode" in way:
        task.run()
        lock_out()
        piece = task.run()
    else:
        remote.soon(lock_out)
        piece = task.complete()
    assert piece.state == ("skipped" if soft == "never_fail" else "failed")


@pytest.mark.parametrize("soft", ["soft_fail", "never_fail"])
def test_a_look_that_is_refused_is_not_softened_either(soft: str, status_simulator: SimulatorThread) -> None:
    """The same where the event says nothing, and the service refuses to be asked."""
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments(**softly(soft)))
    task.run()
    status_simulator.simulator.tagger.users["alice"].active = False
    assert task.resume_with({"version": 7}).state == ("skipped" if soft == "never_fail" else "failed")


# -- partial, cancelled, lost


@pytest.mark.parametrize("fail_on_partial", [False, True])
@way()
def test_partial_is_good_unless_unwanted(
    way: dict[str, Any], fail_on_partial: bool, status_simulator: SimulatorThread
) -> None:
    """A batch with failed documents is a success, unless ``fail_on_partial`` is set."""
    remote = Remote(TAGGER, status_simulator, seconds=5, documents=3, failed=1)
    task = Task(TAGGER.sensor, **remote.arguments(**way), fail_on_partial=fail_on_partial)
    piece = task.complete()
    if fail_on_partial:
        assert piece.state == "failed"
        assert "ended with 1 failed, and fail_on_partial is set" in said(task)
    else:
        assert piece.state == "success"
        assert task.xcom()["phase"] == "partial"
        assert (task.xcom()["processed"], task.xcom()["failed"]) == (2, 1)


@way("from the trigger", "on the worker")
def test_somebody_cancels(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """A cancelled batch fails the sensor and says that it was cancelled."""
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments(**way))
    remote.soon(lambda: remote.service.end(remote.id, "cancelled"))
    assert task.complete().state == "failed"
    assert "was cancelled" in said(task)


@each([TAGGER])
def test_the_job_is_lost(case: Case, way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """A job that was there and is gone is lost, which is neither a failure of the job nor a wrong id."""
    remote = Remote(case, status_simulator)
    task = Task(case.sensor, **remote.arguments(**way))
    remote.soon(lambda: remote.service.forget(remote.id))
    assert task.complete().state == "failed"
    assert "was there and is gone" in said(task)


@way("from the trigger", "poke by poke")
def test_a_lost_job_can_skip(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """A lost job ended badly, so ``soft_fail`` skips."""
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments(**way), soft_fail=True)
    remote.soon(lambda: remote.service.forget(remote.id))
    assert task.complete().state == "skipped"


# -- events of all kinds


@every(CASES)
def test_dag_test_ends_it_too(case: Case, status_simulator: SimulatorThread) -> None:
    """``dag.test`` runs the trigger without a task instance and resumes with the bare name of a state."""
    remote = Remote(case, status_simulator)
    task = Task(case.sensor, **remote.arguments())
    task.run()
    remote.end_soon()
    assert task.inline().state == "success", said(task)
    assert task.xcom()["job_id"] == remote.id
    assert task.xcom()["phase"] == "succeeded"


@every([TAGGER, *HEARD[1:3], CASES[9]])
@pytest.mark.parametrize("soft", ["", "soft_fail"])
def test_dag_test_fails_it_too(case: Case, soft: str, status_simulator: SimulatorThread) -> None:
    """The same for a job that failed."""
    remote = Remote(case, status_simulator)
    task = Task(case.sensor, **remote.arguments(**softly(soft)))
    task.run()
    remote.end_soon(good=False)
    assert task.inline().state == ("skipped" if soft else "failed")
    if not soft:
        assert remote.id in said(task)


def test_dag_test_when_time_runs_out(status_simulator: SimulatorThread) -> None:
    """The name "failed" of a wait that timed out does not hide in an internal error."""
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments(), timeout=0.2)
    task.run()
    assert task.inline().state == "failed"
    assert "the wait failed, as the trigger has logged; the job is 'processing'" in said(task)


EVENT = {"version": 1, "job_id": "b", "phase": "succeeded", "status": "completed", "processed": 3}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, "success"),
        ({"wait": {"how": "push", "seconds": 1.5}}, "success"),
        ({"xcom": {"job_id": "b"}, "wait": {"how": "push", "seconds": 1.5}}, "success"),
        ({"colour": "blue", "nested": {"a": [1]}}, "success"),
        ({"version": 99, "phase": "partial"}, "success"),
        ({"phase": "failed"}, "failed"),
        ({"phase": "lost"}, "failed"),
        ({"phase": "cancelled", "message": "by hand"}, "failed"),
        ({"error": {"type": "WaitTimeout", "message": "too late"}}, "failed"),
        ({"error": {"type": "SomethingNew", "message": "of a later release"}}, "failed"),
        ({"error": {"type": "annotations", "message": "not a class at all"}}, "failed"),
        ({"error": {}}, "failed"),
    ],
)
def test_events_of_other_releases(
    change: dict[str, Any], state: str, status_simulator: SimulatorThread
) -> None:
    """An event without ``wait``, with more keys or of another version still ends the task in its sense."""
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments(end_from_trigger=False))
    task.run()
    piece = task.resume_with(EVENT | {"job_id": remote.id} | change)
    assert piece.state == state, piece.error
    assert state == "failed" or set(task.xcom()["wait"]) == {"how", "seconds"}
    if message := change.get("message") or change.get("error", {}).get("message"):
        assert message in said(task)


@pytest.mark.parametrize(
    "event",
    [
        EVENT | {"phase": "hibernating"},
        EVENT | {"phase": "running"},
        EVENT | {"phase": None},
        {"version": 2},
        {},
        None,
        "success",
        "failed",
        ["what?"],
    ],
    ids=str,
)
@pytest.mark.parametrize("over", [True, False])
def test_an_event_that_says_nothing_leads_to_a_look(
    event: Any, over: bool, status_simulator: SimulatorThread
) -> None:
    """What an event does not say is asked of the service; a job that still runs is no success."""
    remote = Remote(TAGGER, status_simulator)
    task = Task(TAGGER.sensor, **remote.arguments(end_from_trigger=False))
    task.run()
    if over:
        remote.end()
    piece = task.resume_with(event, keep_kwargs=False)
    if over and event != "failed":
        assert piece.state == "success", piece.error
        assert task.xcom()["job_id"] == remote.id
    elif event == "success":
        assert piece.state == "success"
    else:
        assert piece.state == "failed"
        assert remote.id in said(task)
