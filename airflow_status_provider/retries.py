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


class RemoteJobRetryPolicy(ExceptionRetryPolicy):
    """Retries what a retry can mend, for ``retry_policy=`` of any task of this provider.

    Not retried, whatever ``retries`` says: a job that has failed or was cancelled (it would be done, and
    perhaps billed, again), refused credentials, and mistakes in the DAG or the connection. Retried: a service
    that cannot be reached, after ``retry_delay``, or after as long as it has asked for itself. All else is
    left to Airflow, as without a policy: a job that is lost (begun anew), a deadline (waited on), other
    people's errors.

    A task with a retry policy always ends on a worker, for only there its policy is asked.
    """

    def __init__(self) -> None:
        super().__init__(
            [
                RetryRule(
                    [RemoteJobFailed, RemoteJobCancelled],
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
        if isinstance(exception, RateLimited) and exception.retry_after is not None:
            pause = timedelta(seconds=exception.retry_after)
            return RetryDecision.retry(pause, "the service has asked for a pause")
        return super().evaluate(exception, try_number, max_tries, context)
