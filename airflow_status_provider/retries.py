"""A retry policy that knows what a failure means (Airflow 3.3 or newer)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_status_provider import compat

if not compat.RETRY_POLICIES:
    from airflow.exceptions import AirflowOptionalProviderFeatureException

    raise AirflowOptionalProviderFeatureException("retry policies need Airflow 3.3 or newer")

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryDecision, RetryRule

from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidConnection,
    InvalidInput,
    PermissionDenied,
    RateLimited,
    RemoteJobCancelled,
    RemoteJobFailed,
    RemoteUnavailable,
    RequestRejected,
)

if TYPE_CHECKING:
    from airflow.sdk import Context


ASKED_FOR_A_PAUSE = "the service has asked for a pause"


class RemoteJobRetryPolicy(ExceptionRetryPolicy):
    """Retries what a retry can fix, for ``retry_policy=`` of any task of this provider.

    Not retried, whatever ``retries`` says: a job that has failed (it would be done, and perhaps billed,
    again), refused credentials, and mistakes in the DAG or the connection. Retried: a service
    that cannot be reached, after ``retry_delay``, or after as long as it has asked for itself. All else is
    left to Airflow, as without a policy: a job that is lost or was cancelled (started again), a deadline
    (waited on), other people's errors.

    A task with a retry policy always ends on a worker, for only there its policy is asked. In Airflow's
    ``ChainRetryPolicy`` (3.4) it may stand first: it answers DEFAULT where it has no opinion.

    :param cancelled_is_final: do not retry a cancelled job either. By default Airflow decides, for
        a Tagger that is stopped, as for an upgrade, marks its running batches as cancelled, too.
    :param wait_for_service: Airflow 3.4: a service that is away takes no try. The task is rescheduled, and
        its worker let go after a few seconds, until it has waited for so long (a timedelta or seconds, from
        the try's first reschedule); it tries again after ``retry_delay``, or after as long as the service has
        asked for. A start that may have happened is never repeated so.
    :raises InvalidInput: ``wait_for_service`` is no positive time, or Airflow is older than 3.4.
    """

    def __init__(
        self, *, wait_for_service: timedelta | float | None = None, cancelled_is_final: bool = False
    ) -> None:
        self.cancelled_is_final = cancelled_is_final
        self.wait_for_service = None if wait_for_service is None else _time(wait_for_service)
        super().__init__(
            [
                RetryRule(
                    [RemoteJobFailed, RemoteJobCancelled] if cancelled_is_final else [RemoteJobFailed],
                    RetryAction.FAIL,
                    reason="the remote job has ended, and would be done once more",
                ),
                RetryRule(
                    [
                        AuthenticationFailed,
                        PermissionDenied,
                        InvalidConnection,
                        InvalidInput,
                        RequestRejected,
                    ],
                    RetryAction.FAIL,
                    reason="the same request would be refused again",
                ),
                RetryRule(
                    RemoteUnavailable,
                    RetryAction.RETRY,
                    reason="the service could not be reached or not answer",
                ),
            ]
        )

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        pause = exception.retry_after if isinstance(exception, RateLimited) else None
        delay = None if pause is None else timedelta(seconds=pause)
        if self.wait_for_service is not None and isinstance(exception, RemoteUnavailable):
            reason = "the service is away" if delay is None else ASKED_FOR_A_PAUSE
            return compat.reschedule(delay, self.wait_for_service, reason)
        if delay is not None:
            return RetryDecision.retry(delay, ASKED_FOR_A_PAUSE)
        return super().evaluate(exception, try_number, max_tries, context)


def _time(value: timedelta | float) -> timedelta:
    if not compat.RESCHEDULES:
        raise InvalidInput("wait_for_service needs Airflow 3.4 or newer, whose retry policies can reschedule")
    try:
        time = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (TypeError, ValueError, OverflowError):
        time = timedelta()
    if isinstance(value, bool) or time <= timedelta():
        raise InvalidInput(f"wait_for_service must be a positive timedelta or seconds, not {value!r}")
    return time
