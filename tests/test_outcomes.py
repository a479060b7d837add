"""How a wait's end becomes an event, and an event the end of a task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_status_provider import results
from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidConnection,
    InvalidInput,
    NotFound,
    NotSent,
    PermissionDenied,
    RateLimited,
    RemoteJobCancelled,
    RemoteJobError,
    RemoteJobFailed,
    RemoteJobLost,
    RemoteJobPartial,
    RemoteUnavailable,
    RequestRejected,
    StartUncertain,
    StatusProviderError,
    WaitTimeout,
)
from airflow_status_provider.outcomes import (
    ending_error,
    error_of,
    failure_payload,
    start_error,
    uncertain,
    wait_record,
    with_wait,
)
from airflow_status_provider.protocols import tagger
from airflow_status_provider.protocols.areal import DOC_PUSH, DOCUMENT
from airflow_status_provider.protocols.model import Phase, Update


def ended(phase: Phase, status: str = "word", **more: Any) -> Update:
    return Update(kind="batch", job_id="j", phase=phase, status=status, **more)


@pytest.mark.parametrize(
    ("update", "strict", "error", "words"),
    [
        (ended(Phase.SUCCEEDED), True, None, None),
        (ended(Phase.PARTIAL, failed=2), False, None, None),
        (
            ended(Phase.PARTIAL, failed=2, message="2 rows"),
            True,
            RemoteJobPartial,
            "the batch ended with 2 failed, and fail_on_partial is set: 2 rows",
        ),
        (
            ended(Phase.PARTIAL, "n/a"),
            True,
            RemoteJobPartial,
            "the batch ended as 'n/a', and fail_on_partial is set",
        ),
        (ended(Phase.FAILED, message="disk full"), False, RemoteJobFailed, "the batch failed: disk full"),
        (ended(Phase.FAILED), False, RemoteJobFailed, "the batch failed"),
        (ended(Phase.CANCELLED), False, RemoteJobCancelled, "the batch was cancelled"),
        (
            ended(Phase.LOST, message="the batch was there and is gone"),
            False,
            RemoteJobLost,
            "the batch: the batch was there and is gone",
        ),
    ],
)
def test_what_an_end_is_to_the_task(
    update: Update, strict: bool, error: type[RemoteJobError] | None, words: str | None
) -> None:
    """Each end is no error or one, of its own class, in a sentence, with the update."""
    found = ending_error("the batch", update, strict)
    assert found is None or isinstance(found, RemoteJobError)
    if error is None:
        assert found is None
        return
    assert found is not None
    assert (type(found), str(found), found.update) == (error, words, update)


#: every error a wait can end with
ERRORS: list[StatusProviderError] = [
    InvalidInput("no id"),
    InvalidConnection("no host"),
    AuthenticationFailed("refused"),
    PermissionDenied("not yours"),
    RequestRejected("no", 409),
    NotFound("nobody knows it", 404),
    RemoteUnavailable("down"),
    NotSent("no route"),
    RateLimited("later", 7.0),
    StartUncertain("perhaps"),
    WaitTimeout("too long"),
    RemoteJobFailed("failed", ended(Phase.FAILED, message="m", processed=1, failed=2, total=3)),
    RemoteJobPartial("in part", ended(Phase.PARTIAL, failed=2)),
    RemoteJobCancelled("cancelled", ended(Phase.CANCELLED)),
    RemoteJobLost("lost", ended(Phase.LOST)),
    RemoteJobFailed("failed"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_goes_through_an_event(error: StatusProviderError) -> None:
    """What was raised in the triggerer is raised on the worker: class, sentence and update."""
    event = json.loads(json.dumps(failure_payload(error, "j")))
    assert {"version", "job_id", "phase", "status"} <= set(event)
    again = error_of(event, "batch")
    assert again is not None
    assert (type(again), str(again)) == (type(error), str(error))
    assert getattr(again, "update", None) == getattr(error, "update", None)


def test_an_error_that_is_no_end_leaves_the_job_running() -> None:
    """A wait that failed for its own reasons says that the job goes on, as far as is known."""
    assert failure_payload(WaitTimeout("too long"), "j") == {
        "version": 1,
        "job_id": "j",
        "phase": "running",
        "status": "unknown",
        "error": {"type": "WaitTimeout", "message": "too long"},
    }


@pytest.mark.parametrize("told", [{}, {"error": None}, {"error": "text"}, {"error": []}])
def test_an_event_without_an_error_has_none(told: dict[str, Any]) -> None:
    """An event of a good end carries no error."""
    assert error_of({"phase": "succeeded", **told}, "batch") is None


@pytest.mark.parametrize("name", ["Unheard", "copy", "AirflowException", "annotations", "", None, 7])
def test_an_error_of_another_release(name: object) -> None:
    """An error that is not known here is still one of ours, with its sentence."""
    found = error_of({"error": {"type": name, "message": "words"}}, "batch")
    assert (type(found), str(found)) == (StatusProviderError, "words")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RemoteUnavailable("the connection broke"), True),
        (NotSent("no route"), False),
        (RateLimited("later"), False),
        (RequestRejected("no", 422), False),
        (AuthenticationFailed("refused"), False),
        (InvalidInput("no id"), False),
    ],
)
def test_when_a_start_is_uncertain(error: StatusProviderError, expected: bool) -> None:
    """Only a start that was sent and not answered may have happened; it is then not repeated."""
    assert uncertain(error) is expected
    found = start_error(error, "task")
    assert isinstance(found, StartUncertain) is expected
    assert str(error) in str(found)
    assert (found is error) is not expected


def test_the_waits_record() -> None:
    """The record says how the end was learned and after how long, to the millisecond."""
    record = wait_record("push", 1.23456)
    assert record == {"how": "push", "seconds": 1.235}
    assert with_wait({"job_id": "j"}, record) == {"job_id": "j", "wait": record}
    assert with_wait(["a text", "of a service of one's own"], record) == [
        "a text",
        "of a service of one's own",
    ]


def test_what_is_told_is_what_is_typed() -> None:
    """The types that users write have the keys that are pushed."""
    assert set(wait_record("push", 1.0)) == set(results.WaitRecord.__annotations__)
    counted = {"message": "m", "progress": 0.5, "processed": 1, "failed": 0, "total": 2}
    update = ended(Phase.SUCCEEDED, **counted, result={})
    assert set(with_wait(DOCUMENT.summary(update), {})) == set(results.JobSummary.__annotations__)
    assert set(with_wait(DOC_PUSH.summary(update), {})) == set(results.HeardSummary.__annotations__)
    assert set(tagger.read_rows([{}])[0]) == set(results.TaggerDocument.__annotations__)
