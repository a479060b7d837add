# SPDX-License-Identifier: Apache-2.0
"""The retry policy, asked by Airflow's own task runner: what is tried again, when, and what is not."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_status_provider import compat, errors, tasks
from airflow_status_provider.errors import (
    InvalidInput,
    RateLimited,
    RemoteJobError,
    RemoteJobPartial,
    StatusProviderError,
)
from airflow_status_provider.hooks import base as hooks
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task, hurried  # noqa: F401
from tests.versions import AIRFLOW, RETRY_POLICIES, needs_airflow

if AIRFLOW >= (3, 3):
    from airflow.sdk import RetryAction

    from airflow_status_provider.retries import RemoteJobRetryPolicy

pytestmark = [pytest.mark.usefixtures("hurried"), RETRY_POLICIES]

DOCUMENTS = [{"file_path": f"https://files.example/{n}.pdf"} for n in range(2)]


def batch(**more: Any) -> Task:
    arguments = {
        "documents": DOCUMENTS,
        "poll_interval": 0.05,
        "retry_policy": RemoteJobRetryPolicy(),
        **more,
    }
    return Task(TaggerBatchOperator, retries=3, **arguments)


@pytest.mark.parametrize("way", [{}, {"deferrable": False}], ids=["deferred", "on the worker"])
@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_job_that_ended_badly_is_not_done_again(
    outcome: str, way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """A failed job fails its task at once, however many retries are left."""
    status_simulator.simulator.tagger.script.outcome = outcome
    piece = batch(retry_policy=RemoteJobRetryPolicy(cancelled_is_final=True), **way).complete()
    assert piece.state == "failed"
    assert isinstance(piece.error, RemoteJobError)
    assert len(status_simulator.simulator.tagger.starts) == 1


def test_a_cancelled_job_is_retried_by_default(status_simulator: SimulatorThread) -> None:
    """A Tagger that is stopped marks its batches as cancelled: nobody has decided against the work."""
    tagger = status_simulator.simulator.tagger
    tagger.script.outcome = "cancelled"
    task = batch()
    assert task.complete().state == "up_for_retry"
    tagger.script.outcome = "completed"
    task.retry()
    assert task.complete().state == "success"
    assert len(tagger.starts) == 2


def test_without_the_policy_it_would_be(status_simulator: SimulatorThread) -> None:
    """What the policy changes: Airflow alone retries everything."""
    status_simulator.simulator.tagger.script.outcome = "failed"
    assert batch(retry_policy=None).complete().state == "up_for_retry"


def test_failures_inside_are_not_done_again(status_simulator: SimulatorThread) -> None:
    """Nor is a batch with failed documents, where those are not wanted."""
    documents = [*DOCUMENTS, {"file_path": "https://files.example/nonexistent.pdf"}]
    piece = batch(documents=documents, fail_on_partial=True).complete()
    assert (piece.state, type(piece.error)) == ("failed", RemoteJobPartial)


def test_an_unreachable_service_is_tried_again(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that cannot be reached is tried again, with the task's own delay."""
    monkeypatch.setattr(hooks, "PATIENCE", 0.1)
    connection = status_simulator.connections()["tagger_default"] | {"host": "http://127.0.0.1:9"}
    monkeypatch.setenv("AIRFLOW_CONN_TAGGER_DEFAULT", json.dumps(connection))
    assert batch().run().state == "up_for_retry"


def test_refused_credentials_are_not_tried_again(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password does not become right, and tries lock accounts."""
    connection = status_simulator.connections()["tagger_default"] | {"password": "wonderland-wrong"}
    monkeypatch.setenv("AIRFLOW_CONN_TAGGER_DEFAULT", json.dumps(connection))
    assert batch().run().state == "failed"


def test_a_pause_is_kept_as_asked(status_simulator: SimulatorThread) -> None:
    """A service that asks for 1000 s is tried again after 1000 s."""
    faults = status_simulator.simulator.tagger.faults
    faults.rest_fail_next, faults.retry_after = [429], "1000"
    piece = batch().run()
    assert piece.state == "up_for_retry"
    assert piece.error is not None
    decision = RemoteJobRetryPolicy().evaluate(piece.error, 1, 3)
    assert decision.retry_delay == timedelta(seconds=1000)


RETRIED = {"RemoteUnavailable", "NotSent", "RateLimited", "NoSocketLeft"}
LEFT_TO_AIRFLOW = {
    "StatusProviderError",
    "RemoteJobError",
    "RemoteJobCancelled",
    "RemoteJobLost",
    "WaitTimeout",
    "WaitStalled",
    "ExecutionTimeout",
    "StartUncertain",
}


@pytest.mark.parametrize(
    "kind",
    [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, StatusProviderError)
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_error_has_its_place(kind: type[StatusProviderError]) -> None:
    """Each error is retried, left to Airflow, or final; what Airflow decides needs no reason of ours."""
    decision = RemoteJobRetryPolicy().evaluate(kind("x"), 1, 3)
    expected = RetryAction.FAIL
    if kind.__name__ in RETRIED:
        expected = RetryAction.RETRY
    elif kind.__name__ in LEFT_TO_AIRFLOW:
        expected = RetryAction.DEFAULT
    assert decision.action is expected
    assert decision.retry_delay is None
    assert RemoteJobRetryPolicy().evaluate(KeyError("x"), 1, 3).action is RetryAction.DEFAULT


def test_a_pause_without_an_end_is_airflows() -> None:
    """Where the service says "later" and not when, the task's own delay holds."""
    assert RemoteJobRetryPolicy().evaluate(RateLimited("x"), 1, 3).retry_delay is None
    assert RemoteJobRetryPolicy().evaluate(RateLimited("x", 7.0), 1, 3).retry_delay == timedelta(seconds=7)


# -- a service that is away takes no try (Airflow 3.4)

NEEDS_RESCHEDULE = needs_airflow("3.4", "retry policies that reschedule")


@pytest.fixture
def rescheduling(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow whose retry policies can reschedule, as far as a policy sees it."""
    if compat.RESCHEDULES:
        return
    monkeypatch.setattr(compat, "RESCHEDULES", True)

    def reschedule(delay: timedelta | None, within: timedelta, reason: str) -> Any:
        action = SimpleNamespace(value="reschedule")
        return SimpleNamespace(action=action, retry_delay=delay, reschedule_timeout=within, reason=reason)

    monkeypatch.setattr(compat, "reschedule", reschedule)


def test_before_airflow_3_4_waiting_for_a_service_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Dag that counts on it says so when it is read, rather than use its tries up."""
    monkeypatch.setattr(compat, "RESCHEDULES", False)
    with pytest.raises(InvalidInput, match="wait_for_service needs Airflow 3.4 or newer"):
        RemoteJobRetryPolicy(wait_for_service=timedelta(hours=1))


@pytest.mark.usefixtures("rescheduling")
@pytest.mark.parametrize("odd", [0, -1, timedelta(), True, "1h", float("nan"), 1e300])
def test_a_time_that_cannot_be_right_is_refused(odd: Any) -> None:
    """When the Dag is read."""
    with pytest.raises(InvalidInput, match="wait_for_service must be a positive timedelta or seconds"):
        RemoteJobRetryPolicy(wait_for_service=odd)


@pytest.mark.usefixtures("rescheduling")
@pytest.mark.parametrize("kind", [errors.RemoteUnavailable, errors.NotSent, errors.RateLimited])
@pytest.mark.parametrize("wait", [timedelta(hours=1), 3600, 3600.0])
def test_a_service_that_is_away_is_rescheduled(kind: type[StatusProviderError], wait: Any) -> None:
    """For as long as the policy says, with the task's own delay or the service's, and a short reason."""
    policy = RemoteJobRetryPolicy(wait_for_service=wait)
    decision: Any = policy.evaluate(kind("x"), 1, 0)
    assert decision.action.value == "reschedule"
    assert (decision.retry_delay, decision.reschedule_timeout) == (None, timedelta(hours=1))
    assert decision.reason
    assert len(decision.reason) < 100
    asked = policy.evaluate(RateLimited("x", 7.0), 1, 0)
    assert (asked.action.value, asked.retry_delay) == ("reschedule", timedelta(seconds=7))


@pytest.mark.usefixtures("rescheduling")
def test_nothing_else_is_rescheduled() -> None:
    """Least of all a start that may have happened: everything else is decided as without the wait."""
    patient, plain = RemoteJobRetryPolicy(wait_for_service=60), RemoteJobRetryPolicy()
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)
    ]
    assert errors.StartUncertain in kinds
    for kind in kinds:
        if not issubclass(kind, errors.RemoteUnavailable):
            assert patient.evaluate(kind("x"), 1, 3) == plain.evaluate(kind("x"), 1, 3)


@pytest.mark.usefixtures("rescheduling")
@pytest.mark.parametrize("chained", [False, True])
def test_a_worker_is_not_held_meanwhile(chained: bool) -> None:
    """Every hook of such a task gives up within seconds, where others try on for two minutes."""
    policy: Any = RemoteJobRetryPolicy(wait_for_service=60)
    if chained:  # Airflow's ChainRetryPolicy has them so
        policy = SimpleNamespace(policies=[RemoteJobRetryPolicy(), policy])
    task = TaggerBatchOperator(task_id="t", documents=DOCUMENTS)
    assert task.hook().patience >= hooks.PATIENCE
    task.retry_policy = policy
    assert task.hook().patience == task.hook_of(TaggerHook).patience == 5.0


@NEEDS_RESCHEDULE
def test_a_service_that_comes_back_has_cost_no_try(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's own runner reschedules; when the service is there again, the same try starts the one job."""
    monkeypatch.setattr(tasks, "RESCHEDULE_PATIENCE", 0.1)
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = 1
    tagger.faults.down = True
    task = batch(retry_policy=RemoteJobRetryPolicy(wait_for_service=60))
    for _ in range(2):
        assert task.run().state == "up_for_reschedule"
    tagger.faults.down = False
    assert task.complete().state == "success"
    assert (task.try_number, len(tagger.starts)) == (1, 1)
