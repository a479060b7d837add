"""What sensors and operators share: check before deferring, defer, and end in the same ``finish``.

A task ends from its trigger whenever nothing of it needs a worker (``workers.py``); before Airflow 3.3.1 a
retry does. A task that resumes is safe too (its trigger holds the event), but slower and dearer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, TypeVar

from airflow.sdk import BaseOperator, get_current_context

from airflow_status_provider import compat, instances, workers, xcoms
from airflow_status_provider.compat import (
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)
from airflow_status_provider.errors import (
    AWAY,
    GOES_ON,
    ExecutionTimeout,
    InvalidInput,
    NotFound,
    RemoteJobError,
    RemoteJobFailed,
    RemoteUnavailable,
    StatusProviderError,
    WaitStalled,
    WaitTimeout,
)
from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.outcomes import ENDED, ending_error, error_of, naming, wait_record, with_wait
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.triggers import progress
from airflow_status_provider.triggers.base import CANCEL_PATIENCE, ERROR, FAILURE, LONGEST, StatusTrigger
from airflow_status_provider.waiting.wait import wait
from airflow_status_provider.waiting.waiter import Outcome, news

if TYPE_CHECKING:
    from airflow.sdk import Context

#: the framework's own deferral timeout comes so many seconds after ours, which reads once more before
BACKSTOP = 120.0

#: seconds for a look at whether a start has happened that was given up because the task's time was over
LAST_LOOK = 3.0

#: seconds for which a worker tries to reach a service where the retry policy reschedules the task then
RESCHEDULE_PATIENCE = 5.0

H = TypeVar("H", bound=StatusHook)


def positive(name: str, value: object) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST:
        raise InvalidInput(
            f"{name} must be a positive number of seconds, at most {LONGEST:.0e}, not {value!r}"
        )
    return float(value)


def reschedules(policy: object) -> bool:
    """Whether a task with this retry policy is run again later, for free, when its service is away."""
    if (several := getattr(policy, "policies", None)) is not None:  # Airflow's ChainRetryPolicy
        return any(map(reschedules, several))
    return getattr(policy, "wait_for_service", None) is not None


def stalling(kind: JobKind, value: object) -> float | None:
    """A task's ``stall_timeout``."""
    if value is None:
        return None
    if not kind.readable:
        raise InvalidInput(
            f"only the socket reports a {kind.noun}'s end, so nothing can confirm that it has stalled; "
            "leave stall_timeout out"
        )
    return positive("stall_timeout", value)


def failed_share(value: object, fail_on_partial: bool) -> float | None:
    """A task's ``max_failed``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidInput(f"max_failed must be a share from 0 to 1, not {value!r}")
    if fail_on_partial:
        raise InvalidInput("fail_on_partial=True allows no failure; leave it out to set max_failed")
    return float(value)


class Deadline(NamedTuple):
    """When a wait is over, in Unix seconds, and whether that is its task's ``execution_timeout``."""

    at: float
    of_execution: bool = False


class WaitingTask(BaseOperator):
    """The waiting half of a task; ``StatusSensor`` and ``StatusOperator`` are the public ones."""

    kind: ClassVar[JobKind]
    hook_class: ClassVar[type[StatusHook]]
    trigger_class: ClassVar[type[StatusTrigger]]
    #: whether the XCom is the job's result, or only how it ended
    with_result: ClassVar[bool] = False

    #: the parameter that names the connection
    conn_field: ClassVar[str]

    poll_interval: float
    stall_timeout: float | None
    deferrable: bool
    end_from_trigger: bool | None
    fail_on_partial: bool
    max_failed: float | None

    #: whether the task keeps a record in Airflow's task state store
    remembers: ClassVar[bool] = False

    #: whether what the service says of a failed job, of which the error tells only a code, is kept as an XCom
    failure_details: bool = False

    #: what becomes of the remote job when its time is over: "leave" or "cancel"
    on_timeout: str = "leave"

    #: while a job is started: monotonic seconds at which the task's time for that is over
    start_until: float | None = None

    #: while this worker waits itself: over which hook, and for which job
    waiting_here_for: tuple[StatusHook, str] | None = None

    @property
    def conn_id(self) -> str:
        return str(getattr(self, self.conn_field))

    def hook(self) -> StatusHook:
        return self.hook_of(self.hook_class)

    def hook_of(self, hook_class: type[H]) -> H:
        """The task's hook, as its own class: it tries to reach the service for as long as this task may."""
        hook = hook_class(self.conn_id)
        hook.patience = self.seconds_to_wait()
        hook.waits = self.start_until is None
        if self.start_until is not None:
            hook.latest = max(self.start_until, time.monotonic() + LAST_LOOK)
        if reschedules(getattr(self, "retry_policy", None)):
            hook.patience = min(hook.patience, RESCHEDULE_PATIENCE)
        return hook

    def seconds_to_wait(self) -> float:
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """What this kind of job takes beside its id."""
        return {}

    def deadline(self, context: Context, began: float) -> Deadline:
        """The earlier of ``timeout``, from where the wait began, and ``execution_timeout``, which Airflow
        counts from the try's start and does not watch while a task is deferred."""
        started: datetime | None = getattr(context["ti"], "start_date", None)
        return self.earlier(began + self.seconds_to_wait(), started.timestamp() if started else began)

    def earlier(self, end: float, started: float) -> Deadline:
        """``end``, or ``execution_timeout`` after ``started`` if that comes first."""
        if not self.execution_timeout:  # Airflow, too, takes zero for none
            return Deadline(end)
        limit = started + self.execution_timeout.total_seconds()
        return Deadline(limit, True) if limit < end else Deadline(end)

    def render_template(self, content: Any, *more: Any, **named: Any) -> Any:
        if not compat.RENDERS_PATHS and type(content).__module__.startswith("pathlib"):
            return content
        return super().render_template(content, *more, **named)

    # -- waiting

    def wait_for(
        self, context: Context, job_id: str, *, seen: bool, options: Mapping[str, Any] | None = None
    ) -> Any:
        """Check, and if the job has not ended, defer (or, not deferrable, wait here)."""
        began = time.time()
        deadline = self.deadline(context, began)
        options = dict(self.options() if options is None else options)
        hook = self.hook()
        update = self._first_check(hook, job_id, seen, options)
        if update is not None and update.final:
            self.log.info("%s: it has ended already: %s", hook.describe(job_id, self.kind), news(update))
            return self.finish(context, update, wait_record("first check", time.time() - began))
        seen = seen or (update is not None and bool(update.status))
        if self.deferrable:
            self._defer(
                context, job_id, seen=seen, options=options, began=began, deadline=deadline, update=update
            )
        try:
            outcome = self.wait_here(hook, job_id, seen=seen, options=options, deadline=deadline)
        except WaitTimeout as error:
            outcome = Outcome(self._timed_out(job_id, error), "poll", time.monotonic())
        return self.finish(context, outcome.update, wait_record(outcome.how, time.time() - began))

    def wait_here(
        self, hook: StatusHook, job_id: str, *, seen: bool, options: Mapping[str, Any], deadline: Deadline
    ) -> Outcome:
        """Wait on this worker."""
        self.waiting_here_for = (hook, job_id)
        try:
            outcome = self.run_until(
                deadline,
                wait(
                    hook.endpoint(),
                    self.kind,
                    job_id,
                    deadline=deadline.at,
                    poll_interval=self.poll_interval,
                    stall_timeout=self.stall_timeout,
                    seen=seen,
                    options=options,
                ),
            )
        except StatusProviderError:
            self.waiting_here_for = None
            raise
        # what else breaks the wait off leaves the job to on_kill, which Airflow calls at execution_timeout
        self.waiting_here_for = None
        return outcome

    def run_until(self, deadline: Deadline, waiting: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Run a wait on this worker; at ``execution_timeout`` it ends as Airflow itself would end it."""
        try:
            return asyncio.run(waiting)
        except WaitTimeout as error:
            if deadline.of_execution and not isinstance(error, WaitStalled):
                raise AirflowTaskTimeout(str(error.because("execution_timeout has passed"))) from None
            raise

    def _timed_out(self, job_id: str, error: WaitTimeout) -> Update:
        """Cancel the job where that is wanted, and say what came of it; what ended meanwhile has ended."""
        if self.on_timeout != "cancel":
            self.give_up(error)
        stopped = self.hook().stop(job_id, patience=CANCEL_PATIENCE)
        if stopped.update is None or not stopped.ended_itself:
            self.give_up(error.but(stopped.words))
        return stopped.update

    def _first_check(
        self, hook: StatusHook, job_id: str, seen: bool, options: Mapping[str, Any]
    ) -> Update | None:
        try:
            return hook.check(job_id, self.kind, options)
        except NotFound as error:
            if seen or self.kind.missing_grace:
                return None  # it may only be too early: the trigger looks again
            raise error.at(hook.describe(job_id, self.kind)) from None

    def _defer(
        self,
        context: Context,
        job_id: str,
        *,
        seen: bool,
        options: dict[str, Any],
        began: float,
        deadline: Deadline,
        update: Update | None = None,
    ) -> None:
        if self.do_xcom_push and xcoms.kept_by_airflow():
            context["ti"].xcom_push(
                progress.KEY,
                progress.record(
                    update,
                    "first check",
                    at=time.time(),
                    job_id=job_id,
                    service=self.kind.service,
                    conn_id=self.conn_id,
                    started_at=began,
                    deadline=deadline.at,
                ),
            )
        end, why = self.ends_from_trigger()
        trigger = self.trigger_class(
            conn_id=self.conn_id,
            job_id=job_id,
            deadline=deadline.at,
            of_execution=deadline.of_execution,
            options=options or None,
            seen=seen,
            started_at=began,
            deferred_at=time.time(),
            end_from_trigger=end,
            **self._trigger_kwargs(),
        )
        name = self.hook().describe(job_id, self.kind)
        until = f"until {datetime.fromtimestamp(deadline.at, tz=UTC):%Y-%m-%d %H:%M:%S} UTC at the latest"
        if deadline.at <= time.time():
            until = "for one last read, since its time is over"
        ends = f"; it ends on a worker: {why}" if why else ""
        self.log.info("%s: waiting in the triggerer, %s%s", name, until, ends)
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={"job_id": job_id},
            timeout=timedelta(seconds=max(0.0, deadline.at - time.time()) + BACKSTOP),
        )

    def _trigger_kwargs(self) -> dict[str, Any]:
        """A trigger's arguments for this task, on a worker or with ``start_from_trigger``."""
        return {
            "poll_interval": self.poll_interval,
            "stall_timeout": self.stall_timeout,
            "resume_on_timeout": self._timeout_needs_worker(),
            "soft_fail": bool(getattr(self, "soft_fail", False) or getattr(self, "never_fail", False)),
            "fail_on_partial": self.fail_on_partial,
            "max_failed": self.max_failed,
            "with_result": self.with_result and self.do_xcom_push,
            "xcom": self.do_xcom_push,
            "cancel_on_kill": self._cancels_on_kill(),
            "cancel_on_timeout": self.on_timeout == "cancel",
            "failure_details": self.failure_details and self.do_xcom_push,
        }

    def _timeout_needs_worker(self) -> bool:
        return False

    def _cancels_on_kill(self) -> bool:
        return False

    def ends_from_trigger(self) -> tuple[bool, str]:
        """Whether the trigger ends this task, and if it does not although nobody forbade it, why."""
        if self.retries and not compat.RETRIES_FROM_TRIGGER:
            return False, "this Airflow retries no task that fails from its trigger"
        if self.end_from_trigger is not None:
            return self.end_from_trigger, ""
        why = workers.to_end(self)
        return not why, why

    # -- the end

    def execute_complete(
        self, context: Context, event: Any = None, job_id: str | None = None, **unknown: Any
    ) -> Any:
        """Where Airflow resumes the task: the event is as ``StatusTrigger`` documents it, ``unknown`` what
        another release of this package has handed over as well."""
        job_id = job_id or self.remembered_job_id(context)
        if not isinstance(event, dict):
            return self._end_by_name(context, job_id, event)
        record: dict[str, Any] = event.get("wait") or wait_record("-", 0.0)
        error = error_of(event, self.kind.name)
        if error is not None:
            if isinstance(error, RemoteJobError) and error.update and error.update.phase.good:
                if not event.get("stored"):
                    self._keep_partial(context, error.update, record)
            elif not event.get("failure_stored"):
                self._keep_failure(context, error, job_id)
            self.give_up(error)
        if event.get("stored"):
            return instances.own_xcom(context["ti"], self.task_id)
        if "xcom" in event:
            return with_wait(event["xcom"], record)
        if str(event.get("phase")) not in ENDED:
            # the event of another release: what it does not tell is asked
            return self._finish_looked(context, job_id, self._look(context, job_id))
        return self.finish(context, Update.from_summary(self.kind.name, event), record)

    def _end_by_name(self, context: Context, job_id: str, name: object) -> Any:
        """dag.test hands over only the name of the state that an end from the trigger would have set."""
        what = self.hook().describe(job_id, self.kind)
        if name == "skipped":
            raise AirflowSkipException(f"{what}: skipped, for the reason that the trigger has logged")
        if name == "failed":
            update = None
            with contextlib.suppress(StatusProviderError):
                update = self._look(context, job_id, patience=0.0)
            error = self.ending_error(what, update) if update and update.final else None
            if error and update and update.phase.good:
                return self.finish(context, update, wait_record("poll", self._waited(context)))
            state = f"; the job is {update.status!r}" if update and update.status else ""
            told = StatusProviderError(f"{what}: the wait failed, as the trigger has logged{state}")
            self.give_up(error or told)
        update = None
        with contextlib.suppress(NotFound):
            update = self._look(context, job_id)
        if name == "success" and (update is None or not update.phase.good):
            update = Update(kind=self.kind.name, job_id=job_id, phase=Phase.SUCCEEDED, status="succeeded")
        return self._finish_looked(context, job_id, update)

    def _finish_looked(self, context: Context, job_id: str, update: Update | None) -> Any:
        if update is None or not update.final:
            what = self.hook().describe(job_id, self.kind)
            state = f"is {update.status!r}" if update else "cannot be asked about"
            self.give_up(
                StatusProviderError(f"{what}: the trigger did not say how it ended, and the job {state}")
            )
        return self.finish(context, update, wait_record("poll", self._waited(context)))

    def _look(self, context: Context, job_id: str, patience: float | None = None) -> Update | None:
        """What the service says of the job now; None where it says nothing."""
        if not self.kind.readable:
            return None
        hook = self.hook()
        if patience is not None:
            hook.patience = patience
        return hook.get_status(job_id, kind=self.kind, **self.known_options(context))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        # BaseSensorOperator's own would skip, under soft_fail, for mistakes too
        with contextlib.suppress(TaskDeferralTimeout):
            try:
                return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
            except TaskDeferralError as error:  # the trigger broke, which says nothing of the job
                if getattr(self, "never_fail", False):
                    raise AirflowSkipException(str(error)) from None
                raise
        # our own deadline comes first; only a triggerer that was away for long lets it come to this
        job_id = self.remembered_job_id(context)
        update = None
        with contextlib.suppress(RemoteUnavailable, NotFound):
            update = self._look(context, job_id)
        if update is None or not update.final:
            what = self.hook().describe(job_id, self.kind)
            kind = ExecutionTimeout if self.earlier(self.seconds_to_wait(), 0.0).of_execution else WaitTimeout
            late = kind(f"{what}: no triggerer ended the wait in time; {GOES_ON if update else AWAY}")
            update = self._timed_out(job_id, late)
        return self.finish(context, update, wait_record("poll", self._waited(context)))

    def known_options(self, context: Context) -> dict[str, Any]:
        """What a look at the job needs beside its id, when the wait is over."""
        return {**self.options(), **self.look_back_options()}

    def look_back_options(self) -> dict[str, Any]:
        return {}

    def remembered_job_id(self, context: Context) -> str:
        raise NotImplementedError

    def _waited(self, context: Context) -> float:
        began: datetime | None = getattr(context["ti"], "start_date", None)
        return max(0.0, (datetime.now(tz=UTC) - began).total_seconds()) if began else 0.0

    def finish(self, context: Context, update: Update, record: dict[str, Any]) -> Any:
        """The one end of every wait: the XCom, or the error."""
        hook = self.hook()
        error = self.ending_error(hook.describe(update.job_id, self.kind), update)
        if error is not None:
            if isinstance(error, RemoteJobError) and update.phase.good:
                error = naming(error, self.kind.failures(self._keep_partial(context, update, record)))
            else:
                self._keep_failure(context, error, update.job_id, update)
            self.give_up(error)
        if not self.with_result:
            told = self.kind.summary(update)
        elif not self.do_xcom_push:
            return None  # nobody would see it, so it is not fetched
        else:
            told = self._result(context, update)
        return with_wait(told, record)

    def ending_error(self, what: str, update: Update) -> RemoteJobError | NotFound | None:
        """What the end of its job is to this task; None if it ended well enough."""
        return ending_error(what, update, self.fail_on_partial, self.max_failed)

    def _result(self, context: Context, update: Update) -> Any:
        if update.result is not None:
            return self.kind.xcom(update)
        options = {**self.known_options(context), **self.kind.where_result(update)}
        return self.hook().get_result(update.job_id, kind=self.kind, **options)

    def _keep_partial(self, context: Context, update: Update, record: dict[str, Any]) -> Any:
        """Push the result of a job of which too much failed, as far as it can be had, and return it."""
        result = self.kind.xcom(update)
        if self.kind.readable:
            with contextlib.suppress(StatusProviderError):
                result = self._result(context, update)
        if self.do_xcom_push:
            told = with_wait(result if self.with_result else self.kind.summary(update), record)
            if self.multiple_outputs and isinstance(told, dict):
                for key, value in told.items():
                    context["ti"].xcom_push(key, value)
            context["ti"].xcom_push("return_value", told)
        return result

    def _keep_failure(
        self, context: Context, error: StatusProviderError, job_id: str, update: Update | None = None
    ) -> None:
        """Push what the service says of a failed job, for who asks for it, if it can still be had."""
        if not (self.failure_details and self.do_xcom_push and isinstance(error, RemoteJobFailed)):
            return
        with contextlib.suppress(StatusProviderError):
            if update is None or update.result is None:
                update = self._look(context, job_id, patience=0.0)
        if update is not None and update.result is not None:
            context["ti"].xcom_push(FAILURE, self.kind.xcom(update))

    def give_up(self, error: StatusProviderError) -> NoReturn:
        """Fail with this error, which is an XCom as well, as where a trigger ends the task.

        A task that is over and has neither that nor a result was ended from outside.
        """
        if self.do_xcom_push:
            with contextlib.suppress(Exception):
                get_current_context()["ti"].xcom_push(ERROR, str(error))
        raise self.failure(error) from None

    def failure(self, error: StatusProviderError) -> BaseException:
        """As what a task fails with this error."""
        return AirflowTaskTimeout(str(error)) if isinstance(error, ExecutionTimeout) else error
