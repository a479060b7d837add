"""What every sensor does."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.triggers.base import StartTriggerArgs

from airflow_status_provider import workers
from airflow_status_provider.compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow_status_provider.errors import (
    GOES_ON,
    ExecutionTimeout,
    InvalidInput,
    NotFound,
    RemoteJobError,
    RemoteUnavailable,
    StatusProviderError,
    WaitStalled,
    WaitTimeout,
)
from airflow_status_provider.outcomes import wait_record
from airflow_status_provider.protocols import jobs
from airflow_status_provider.tasks import BACKSTOP, Deadline, WaitingTask, failed_share, positive, stalling
from airflow_status_provider.triggers.base import DEFAULT_POLL_INTERVAL
from airflow_status_provider.waiting.waiter import news

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_status_provider.protocols.model import Update


class _StartTriggerArgs:
    """A sensor's ``start_trigger_args``, found when its DAG is serialized: its fields, its DAG and the tasks
    behind it are all set by then."""

    def __get__(self, sensor: StatusSensor | None, cls: type[StatusSensor]) -> StartTriggerArgs | None:
        return None if sensor is None else sensor._start_trigger_args()


class StatusSensor(WaitingTask, BaseSensorOperator):
    """Waits for a job and succeeds when it has ended well.

    The XCom (``return_value``) is a JSON object: ``job_id``, ``phase``, ``status`` and, where known,
    ``message``, ``progress`` (0..1), ``processed``, ``failed``, ``total``; ``wait`` says how the end was
    learned (``how``: push, poll or first check) and after how many ``seconds``.

    Beside the following, whatever ``BaseSensorOperator`` takes: ``timeout`` (seconds from the start of the
    wait; one last read decides), ``soft_fail`` (skip when the job ended badly or the time ran out; mistakes
    in the DAG or the connection still fail), ``mode`` (only with ``deferrable=False``).

    :param poll_interval: seconds between status reads while no socket is open.
    :param stall_timeout: seconds without any change in the job's status, progress or counts, after which the
        wait ends. By default never.
    :param deferrable: wait in the triggerer (default) instead of holding a worker.
    :param end_from_trigger: end without a worker; by default whenever nothing of the task needs one. Before
        Airflow 3.3, a task with an XCom to return always ends on a worker, and before 3.3.1 one with
        retries.
    :param fail_on_partial: fail when the job succeeded with failures inside. The XCom is pushed all the same,
        and the error names the first few parts that failed.
    :param max_failed: fail so only when more than this share (0..1) of its parts failed; 1 allows all to
        fail. By default the task fails when all of them did.
    :param start_from_trigger: begin in the triggerer, too, so that no worker is needed at all. Nothing is
        checked before. Mapped tasks, and those of which that would leave something out (``workers.py``),
        begin on a worker all the same.
    :raises RemoteJobFailed: the job failed, or all of its parts did; with the service's own text.
    :raises RemoteJobPartial: more of its parts failed than ``fail_on_partial`` or ``max_failed`` allows.
    :raises RemoteJobCancelled: somebody cancelled or deleted it.
    :raises RemoteJobLost: the service no longer knows it.
    :raises NotFound: the service does not know it.
    :raises AirflowSensorTimeout: it had not ended within ``timeout``; not retried by Airflow.
    :raises AirflowTaskTimeout: it had not ended within ``execution_timeout`` of the try's start; retried.
    :raises WaitStalled: nothing changed for ``stall_timeout``; unlike a time-out this is retried.
    """

    #: the field that holds the job's id, in the service's own word
    id_field: ClassVar[str]
    #: the fields that go with it, by the names of the options that they are
    option_fields: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        *,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        stall_timeout: float | timedelta | None = None,
        deferrable: bool = True,
        end_from_trigger: bool | None = None,
        fail_on_partial: bool = False,
        max_failed: float | None = None,
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if start_from_trigger and not deferrable:
            raise InvalidInput("start_from_trigger needs deferrable=True")
        self.start_from_trigger = start_from_trigger
        positive("timeout", self.timeout)
        self.poll_interval = positive("poll_interval", poll_interval)
        self.stall_timeout = stalling(self.kind, stall_timeout)
        if self.stall_timeout is not None and self.mode == "reschedule" and not deferrable:
            raise InvalidInput("stall_timeout needs a wait in one piece, not mode='reschedule'")
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger
        self.fail_on_partial = fail_on_partial
        self.max_failed = failed_share(max_failed, fail_on_partial)

    start_trigger_args = _StartTriggerArgs()

    def _start_trigger_args(self) -> StartTriggerArgs | None:
        """For the scheduler, which begins the wait without a worker; the triggerer renders the fields."""
        fields = {"conn_id": self.conn_field, "job_id": self.id_field, **self.option_fields}
        if not self.start_from_trigger or not all(hasattr(self, field) for field in fields.values()):
            return None  # or asked for by Airflow before its constructor is through
        if workers.to_begin(self, [getattr(self, field) for field in fields.values()]):
            return None
        within = self.earlier(self.seconds_to_wait(), 0.0)
        cls = self.trigger_class
        return StartTriggerArgs(
            trigger_cls=f"{cls.__module__}.{cls.__qualname__}",
            trigger_kwargs={
                **{field: getattr(self, field) for field in fields.values()},
                "fields": fields,
                "within": within.at,
                "of_execution": within.of_execution,
                "end_from_trigger": self.ends_from_trigger()[0],
                **self._trigger_kwargs(),
            },
            next_method="execute_complete",
            timeout=timedelta(seconds=within.at + BACKSTOP),
        )

    def seconds_to_wait(self) -> float:
        return float(self.timeout)

    def remembered_job_id(self, context: Context) -> str:
        return str(getattr(self, self.id_field))

    def _timeout_needs_worker(self) -> bool:
        # a sensor's time-out is final: only AirflowSensorTimeout, raised on a worker, is not retried
        return bool(self.retries)

    def execute(self, context: Context) -> Any:
        try:
            job_id = self._valid_id()
            if self.mode == "reschedule" and not self.deferrable:
                return self._poke_by_poke(context)
            return self.wait_for(context, job_id, seen=False)
        except StatusProviderError as error:
            self.give_up(error)
        except AirflowTaskTimeout as error:  # Airflow's, or that of a wait on this worker
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from None
            raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except StatusProviderError as error:
            self.give_up(error)

    def _valid_id(self) -> str:
        where = self.hook().where
        try:
            job_id = self.kind.validate(getattr(self, self.id_field))
        except InvalidInput as error:
            raise error.at(f"{where}, {self.id_field}") from None
        try:
            self.options()
        except InvalidInput as error:
            raise error.at(where) from None
        return job_id

    def failure(self, error: StatusProviderError) -> BaseException:
        passing = isinstance(error, RemoteJobError | WaitTimeout | RemoteUnavailable)
        if (self.soft_fail and passing) or self.never_fail:
            return AirflowSkipException(str(error))
        if isinstance(error, WaitTimeout) and not isinstance(error, WaitStalled | ExecutionTimeout):
            return AirflowSensorTimeout(str(error))
        return super().failure(error)

    # -- mode="reschedule"

    def _poke_by_poke(self, context: Context) -> Any:
        if not self.kind.readable:
            raise InvalidInput(
                f"{self.hook().where}: only the socket reports a {self.kind.noun}'s end, so it cannot be "
                "waited for in mode='reschedule'; use deferrable=True or mode='poke'"
            )
        try:
            return BaseSensorOperator.execute(self, context)
        except AirflowSensorTimeout as error:
            name = self.hook().describe(self._valid_id(), self.kind)
            raise WaitTimeout(f"{name}: not ended in time ({error}); {GOES_ON}") from None

    def poke(self, context: Context) -> PokeReturnValue:
        """One read, for ``mode="reschedule"``."""
        began = context["ti"].get_first_reschedule_date(context)
        try:
            update = self._read(first=began is None)
            if update is None or not update.phase.ended:
                name = self.hook().describe(self.remembered_job_id(context), self.kind)
                self.log.info("%s: %s", name, news(update) if update else "no status for now")
                return PokeReturnValue(is_done=False)
            seconds = (datetime.now(tz=UTC) - began).total_seconds() if began else 0.0
            record = wait_record("poll" if began else "first check", seconds)
            return PokeReturnValue(is_done=True, xcom_value=self.finish(context, update, record))
        except StatusProviderError as error:
            self.give_up(error)

    def _read(self, *, first: bool) -> Update | None:
        hook, job_id, options = self.hook(), self._valid_id(), {**self.options(), **self.look_back_options()}
        if first:
            return self._first_check(hook, job_id, False, options)
        try:
            return hook.check(job_id, self.kind, options)
        except NotFound:
            # an earlier poke found it, or found it too early to tell: a short wait tells which
            seen = not self.kind.missing_grace
            deadline = Deadline(time.time() + 2 * (jobs.LOST_GRACE + self.kind.missing_grace))
            with contextlib.suppress(WaitTimeout):
                return self.wait_here(hook, job_id, seen=seen, options=options, deadline=deadline).update
        return None
