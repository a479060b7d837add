"""The tree of errors: who is to blame, and what keeps with an error wherever it goes."""

from __future__ import annotations

import inspect
import pickle

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_status_provider import errors
from airflow_status_provider.errors import (
    AuthenticationFailed,
    ExecutionTimeout,
    InvalidConnection,
    InvalidInput,
    NoSocketLeft,
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
    WaitStalled,
    WaitTimeout,
)
from airflow_status_provider.protocols.model import Phase, Update

TREE: dict[type[Exception], type[Exception]] = {
    StatusProviderError: AirflowException,
    InvalidInput: StatusProviderError,
    InvalidConnection: StatusProviderError,
    AuthenticationFailed: StatusProviderError,
    PermissionDenied: StatusProviderError,
    RequestRejected: StatusProviderError,
    NotFound: RequestRejected,
    RemoteUnavailable: StatusProviderError,
    NotSent: RemoteUnavailable,
    NoSocketLeft: RemoteUnavailable,
    RateLimited: RemoteUnavailable,
    StartUncertain: StatusProviderError,
    WaitTimeout: StatusProviderError,
    WaitStalled: WaitTimeout,
    ExecutionTimeout: WaitTimeout,
    RemoteJobError: StatusProviderError,
    RemoteJobFailed: RemoteJobError,
    RemoteJobPartial: RemoteJobFailed,
    RemoteJobCancelled: RemoteJobError,
    RemoteJobLost: RemoteJobError,
}


@pytest.mark.parametrize(("error", "parent"), list(TREE.items()), ids=lambda cls: cls.__name__)
def test_the_tree(error: type[Exception], parent: type[Exception]) -> None:
    """Each error hangs where the module's docstring draws it."""
    assert error.__bases__[0] is parent
    assert error.__name__ in (errors.__doc__ or "")


def test_nothing_else_is_raised() -> None:
    """The tree is complete."""
    own = {c for c in vars(errors).values() if inspect.isclass(c) and c.__module__ == errors.__name__}
    assert own == set(TREE)


def test_an_uncertain_start_is_not_retried() -> None:
    """Airflow fails a task at once for a start that may have happened: a repeat could be billed twice."""
    assert issubclass(StartUncertain, AirflowFailException)
    assert not any(issubclass(cls, AirflowFailException) for cls in TREE if cls is not StartUncertain)


UPDATE = Update(kind="k", job_id="j", phase=Phase.FAILED, status="failed")


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (NotFound("gone", 404), {"status": 404}),
        (RateLimited("later", 7.0), {"retry_after": 7.0}),
        (RemoteJobFailed("failed", UPDATE), {"update": UPDATE}),
        (StartUncertain("perhaps"), {}),
        (InvalidInput("no id"), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_where(error: StatusProviderError, kept: dict[str, object]) -> None:
    """``at`` says where, once, and keeps class and attributes; the error itself is not changed."""
    words = str(error)
    found = error.at("Areal (connection 'c')")
    assert str(found) == f"Areal (connection 'c'): {words}"
    assert type(found) is type(error)
    assert {name: getattr(found, name) for name in kept} == kept
    assert str(found.at("Areal (connection 'c')")) == str(found)
    assert str(error) == words


def test_an_error_can_cross_processes() -> None:
    """An error survives pickling, with what it carries."""
    again = pickle.loads(pickle.dumps(RateLimited("later", 7.0)))  # noqa: S301 - our own bytes
    assert (str(again), again.retry_after) == ("later; asked to wait 7 s", 7.0)
