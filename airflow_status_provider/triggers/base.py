"""What every trigger does: wait in the triggerer's loop, then say once how the job ended.

1. ``__init__`` only assigns and cannot fail, whatever kwargs a stored deferral brings; what is wrong with
   them is said by ``run`` as an event.
2. Before Airflow 3.4, a trigger that resumes its task holds the event until the worker that deferred is
   surely gone: the scheduler there marks a task failed whose worker reports its deferral only after the task
   was resumed.
3. Results never stand in an event (events are logged): they go straight to XCom, where there is a task.
4. What becomes known meanwhile is the XCom ``progress`` (``triggers/progress.py``).
5. ``run`` returns right after its one event; an event that lingers is taken for a user's kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

import jinja2
from airflow.triggers.base import (
    BaseTrigger,
    TaskFailedEvent,
    TaskSkippedEvent,
    TaskSuccessEvent,
    TriggerEvent,
)

from airflow_status_provider import compat, instances, metrics, xcoms
from airflow_status_provider.compat import conf
from airflow_status_provider.errors import (
    AuthenticationFailed,
    ExecutionTimeout,
    InvalidInput,
    RemoteJobError,
    RemoteJobFailed,
    RemoteUnavailable,
    StartUncertain,
    StatusProviderError,
    WaitTimeout,
)
from airflow_status_provider.hooks.base import StatusHook, Stopped
from airflow_status_provider.outcomes import (
    VERSION,
    ending_error,
    failure_payload,
    naming,
    wait_record,
    with_wait,
)
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Update, clean_id, plain
from airflow_status_provider.protocols.sending import digits
from airflow_status_provider.transport.backoff import full_jitter
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.triggers import first_call, kill, progress
from airflow_status_provider.waiting.wait import wait
from airflow_status_provider.waiting.waiter import ConnectionChanged, Outcome

if TYPE_CHECKING:
    from airflow.sdk import Context

#: the XCom with what a service says of a failed job
FAILURE = "failure"
#: the XCom with why a wait failed
ERROR = "error"
#: a larger result is fetched by the worker instead of going through the triggerer
SMALL_RESULT = 64 * 1024
#: a result that a service tells only once is stored by the trigger, whatever its size
RESULT_TRIES = 3
#: seconds for it to be fetched; Airflow's own time-out comes 120 s after the deadline
RESULT_PATIENCE = 45.0
#: seconds for which a trigger tries to cancel its job and to see that confirmed
CANCEL_PATIENCE = 15.0
#: seconds for which a killed trigger finds out who wants its job; the framework gives it 30 in all
DECIDE_WITHIN = 8.0
DECIDE_EVERY = 0.5
#: connections whose credentials are refused one after the other, each other than the one before
MOST_CREDENTIALS = 5
#: seconds for Airflow to give a connection before it is asked again
FETCH_TIME = 60.0
#: the same where the deadline is near or has passed, for one last read needs a connection
LAST_FETCH_TIME = 10.0
#: states of a task that is not over, or not for good
_ALIVE = ("deferred", "running", "queued", "scheduled", "up_for_retry")
DEFAULT_POLL_INTERVAL = 5.0
#: more than this (31 years) is no interval and no time-out, and not far from what a date cannot hold
LONGEST = 1e9
#: seconds for a worker's last report to reach the scheduler's books. On an idle machine 1 s is enough; on one
#: with twice as many tasks as it has cores for, 1 of 104 tasks that were resumed after that failed
REPORT_TIME = 5.0


class StatusTrigger(BaseTrigger):
    """Waits for one remote job and yields one event.

    The event's payload is a JSON object: ``version``, ``job_id``, ``phase`` (pending, running, succeeded,
    partial, failed, cancelled, lost), ``status`` (the service's own word), where known ``message``,
    ``progress`` (0..1), ``processed``, ``failed``, ``total``; ``wait`` (how the end was learned, and after
    how many seconds); ``error`` (``type`` and ``message``) if the wait itself failed. With
    ``end_from_trigger`` it is one of Airflow's task-end events instead, and no worker is needed.

    :param conn_id: the Airflow connection; secrets never stand in a trigger's kwargs.
    :param job_id: what to wait for, as the service calls it.
    :param poll_interval: seconds between status reads while no socket is open.
    :param deadline: Unix seconds at which one last read decides; None for no deadline.
    :param of_execution: ``deadline`` is the task's ``execution_timeout``: a task that ends there is retried.
    :param stall_timeout: seconds without any change of the job, from the start of the wait or of this
        trigger, after which it ends with ``WaitStalled`` if a read finds none either; None for patience.
    :param options: what this kind of job takes beside its id.
    :param seen: the service has known the job before: a later "404" means lost, not unknown.
    :param started_at: Unix seconds at which the wait began, for the wait's record.
    :param deferred_at: Unix seconds of the deferral, for rule 2.
    :param end_from_trigger: end the task here instead of resuming it.
    :param resume_on_timeout: resume all the same when the deadline passes (a sensor's is not retried).
    :param soft_fail: with ``end_from_trigger``, skip instead of failing when the job ended badly.
    :param fail_on_partial: a partial success is a failure.
    :param max_failed: it is one only where more than this share (0..1) failed; None: where all did.
    :param with_result: fetch the ended job's result for the task's XCom.
    :param xcom: store the result, and meanwhile the progress, as the task's XComs (its ``do_xcom_push``).
    :param cancel_on_kill: cancel the remote job when a user kills or clears the task.
    :param cancel_on_timeout: cancel the remote job at the deadline, or when it stalls.
    :param failure_details: store what the service says of a failed job, which the event does not, as XCom.
    :param within: in place of ``deadline``, if the scheduler began the wait: seconds from the task's start.
    :param fields: likewise, which field of the task is ``conn_id``, ``job_id`` or an option; the fields
        themselves are kwargs too, for the triggerer to render.
    """

    kind: ClassVar[JobKind]
    hook_class: ClassVar[type[StatusHook]]

    def __init__(
        self,
        /,
        *,
        conn_id: str = "",
        job_id: str = "",
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        deadline: float | None = None,
        stall_timeout: float | None = None,
        options: dict[str, Any] | None = None,
        seen: bool = False,
        started_at: float | None = None,
        deferred_at: float | None = None,
        end_from_trigger: bool = False,
        resume_on_timeout: bool = False,
        soft_fail: bool = False,
        fail_on_partial: bool = False,
        max_failed: float | None = None,
        with_result: bool = False,
        xcom: bool = True,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
        failure_details: bool = False,
        within: float | None = None,
        of_execution: bool = False,
        fields: dict[str, str] | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Any: what a stored deferral brings need not be what is written above
        self.conn_id: Any = conn_id
        self.job_id: Any = job_id
        self.poll_interval: Any = poll_interval
        self.deadline: Any = deadline
        self.stall_timeout: Any = stall_timeout
        self.options: Any = options
        self.seen = seen
        self.started_at: Any = started_at
        self.deferred_at: Any = deferred_at
        self.end_from_trigger = end_from_trigger
        self.resume_on_timeout = resume_on_timeout
        self.soft_fail = soft_fail
        self.fail_on_partial = fail_on_partial
        self.max_failed: Any = max_failed
        self.with_result = with_result
        self.xcom = xcom
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.failure_details = failure_details
        self.within: Any = within
        self.of_execution = of_execution
        self.fields: Any = fields
        # the task's fields, or kwargs of another release of this package: nothing is lost over a restart
        self.unknown = unknown
        if isinstance(fields, dict):
            # the triggerer renders attributes
            self.__dict__ |= {name: value for name, value in unknown.items() if not hasattr(self, name)}
        self._unrendered = ""
        self._begun = 0.0
        # from here on a kill has nothing to cancel
        self._ended = False
        self._report: progress.Report | None = None
        self._kill: asyncio.Task[None] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        mine = {name: getattr(self, name) for name in DEFAULTS}
        told = {name: value for name, value in mine.items() if value is not DEFAULTS[name]}
        return f"{cls.__module__}.{cls.__qualname__}", told | self.unknown

    async def run(self) -> AsyncIterator[TriggerEvent]:
        self._begun = time.time()
        outcome: Outcome | None = None
        try:
            self._take_fields()
            self._validate()
            if (task := self._task()) is not None:
                first_call.make(task)
            if self.xcom and task is not None and xcoms.kept_by_airflow():
                self._report = progress.Report(self._task, self._facts)
            outcome = await self._end()
        except StatusProviderError as error:
            event = await self._failed(error, {"how": "-", "seconds": self._waited()})
        else:
            self._ended = True
            record = wait_record(outcome.how, self._waited())
            event = await self._event(outcome.update, record)
        finally:
            if self._report is not None:
                self._report.close()
        if type(event) is TriggerEvent:
            await self._hold()
        self._ended = True
        if outcome is not None:
            metrics.ended(self.kind.service, outcome)
        yield event

    async def on_kill(self) -> None:
        """Cancel the remote job, if this kill is really a user's and not the framework's own business.

        What came of it stands in the task's log. The work outlives this method, which Airflow cancels again
        with each of its syncs (see triggers/kill.py).
        """
        if self._ended:
            return
        if self._kill is None:
            self._kill = kill.start(self._killed())
        await asyncio.wait({self._kill})

    async def cleanup(self) -> None:
        """Wait for what a kill still does: the task's log is closed after this."""
        if self._kill is not None:
            await kill.outlast(self._kill)

    async def _killed(self) -> None:
        give_up = time.monotonic() + kill.patience()
        where = f"{self._hook().where}, {self.kind.describe(str(self.job_id))}"
        try:
            async with asyncio.timeout(kill.patience()):
                wanted = self.cancel_on_kill and await self._still_wanted()
            if not self.cancel_on_kill:
                self.log.info("%s: the task was killed; the remote job is left as it is", where)
            elif wanted:
                self.log.info("%s: the remote job is left as it is: its task goes on", where)
            else:
                await self._stop("the task was killed", give_up - time.monotonic(), known=True)
        except asyncio.CancelledError:
            words = "the triggerer stops; whether the remote job was cancelled is unknown"
            self.log.warning("%s: the task was killed, and %s", where, words)
            raise
        except TimeoutError:
            self.log.warning("%s: the task was killed; nobody says whether its job is still wanted", where)
        except Exception as error:  # noqa: BLE001 - the task is over; what is left to do is to say so
            words = f"the remote job may go on: it could not be cancelled ({type(error).__name__})"
            self.log.warning("%s: the task was killed; %s", where, words)

    async def _stop(self, why: str, patience: float, *, known: bool = False) -> Stopped:
        hook = self._hook()
        stopped = await hook.astop(self.job_id, patience=patience, known=known)
        say = self.log.info if stopped.sure else self.log.warning
        say("%s: %s; %s", hook.describe(self.job_id, self.kind), why, stopped.words)
        return stopped

    # -- waiting

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """As a worker does: Airflow's own would render what is unknown to nothing, and another job be waited
        for. What cannot be rendered is said by ``run``."""
        strict = (jinja_env or self.get_template_env()).overlay(undefined=jinja2.StrictUndefined)
        try:
            super().render_template_fields(context, strict)
        except Exception as error:  # noqa: BLE001 - whatever a template may do
            said = plain(str(error)) or type(error).__name__
            self._unrendered = f"a field cannot be rendered ({said})"

    def _take_fields(self) -> None:
        """A wait that the scheduler began: by now the task's fields are rendered."""
        if self.fields is None:
            return
        if self._unrendered:
            raise InvalidInput(self._unrendered)
        within = reading.number(self.within)
        if not isinstance(self.fields, dict) or within is None:
            raise InvalidInput("the trigger's fields must be an object, and within a number of seconds")
        told = {name: getattr(self, str(field), None) for name, field in self.fields.items()}
        self.conn_id, self.job_id = told.pop("conn_id", None), told.pop("job_id", None)
        self.options = {name: digits(value) for name, value in told.items() if value} or None
        began = getattr(self.task_instance, "start_date", None)
        self.started_at = began.timestamp() if isinstance(began, datetime) else time.time()
        self.deadline = self.started_at + within
        # a triggerer that starts again counts from there, Airflow's own time-out does not
        if isinstance(until := getattr(self, "timeout_after", None), datetime):
            aware = until if until.tzinfo else until.replace(tzinfo=UTC)
            self.deadline = min(self.deadline, aware.timestamp())

    def _validate(self) -> None:
        self.conn_id = clean_id(self.conn_id, "connection")
        self._validate_job()
        interval, deadline = reading.number(self.poll_interval), reading.number(self.deadline)
        stall = reading.number(self.stall_timeout)
        if interval is None or not 0 < interval <= LONGEST:
            raise InvalidInput(
                f"the trigger's poll_interval must be a positive number, not {self.poll_interval!r}"
            )
        if deadline is None and self.deadline is not None:
            raise InvalidInput(f"the trigger's deadline must be Unix seconds or None, not {self.deadline!r}")
        if self.stall_timeout is not None and (stall is None or stall <= 0):
            raise InvalidInput(
                f"the trigger's stall_timeout must be a positive number or None, not {self.stall_timeout!r}"
            )
        share = reading.number(self.max_failed)
        if self.max_failed is not None and (share is None or not 0 <= share <= 1):
            raise InvalidInput(
                f"the trigger's max_failed must be a share from 0 to 1 or None, not {self.max_failed!r}"
            )
        self.poll_interval, self.deadline, self.stall_timeout = interval, deadline, stall
        self.max_failed = share
        options = {} if self.options is None else self.options
        if not isinstance(options, Mapping) or not all(map(_plain, options.values())):
            raise InvalidInput("the trigger's options must be an object of texts and lists of texts")

    def _validate_job(self) -> None:
        try:
            self.job_id = self.kind.validate(self.job_id)
        except InvalidInput as error:
            raise error.at(self._hook().where) from None

    async def _end(self) -> Outcome:
        """How the wait ended; refused credentials begin it again with the connection as it is now."""
        try:
            endpoint = await self._endpoint()
            for attempt in itertools.count(1):
                try:
                    return await self._wait(endpoint)
                except TypeError as error:
                    words = f"the trigger's options do not fit a {self.kind.noun}: {error}"
                    raise InvalidInput(words) from None
                except ConnectionChanged as changed:
                    endpoint = changed.endpoint
                except AuthenticationFailed as error:
                    fresh = await self._endpoint(stale=endpoint)
                    # a secrets backend may issue other credentials at each read
                    if fresh.digest == endpoint.digest or attempt >= MOST_CREDENTIALS:
                        raise
                    endpoint = fresh
                    if attempt > 1:  # the first change is a connection that was corrected
                        await self._pause(attempt, error)
            raise AssertionError
        except WaitTimeout as error:
            if self.of_execution and type(error) is WaitTimeout:
                error = ExecutionTimeout(str(error.because("execution_timeout has passed")))
            if not self.cancel_on_timeout:
                raise error from None
            return await self._cancelled(error)

    async def _cancelled(self, error: WaitTimeout) -> Outcome:
        """At the deadline the job is cancelled, and may turn out to have ended itself."""
        stopped = await self._stop("its time is over", CANCEL_PATIENCE)
        if stopped.update is not None and stopped.ended_itself:
            return Outcome(stopped.update, "poll", time.monotonic())
        raise error.but(stopped.words) from None

    async def _endpoint(self, stale: Endpoint | None = None) -> Endpoint:
        """The connection; Airflow's own trouble in giving it is waited out like the service's."""
        for attempt in itertools.count(1):
            left = math.inf if self.deadline is None else self.deadline - time.time()
            try:
                async with asyncio.timeout(min(FETCH_TIME, max(LAST_FETCH_TIME, left))):
                    return await self._hook().aendpoint(stale)
            except TimeoutError:
                trouble = RemoteUnavailable(
                    f"{self._hook().describe(self.job_id, self.kind)}: Airflow does not give the connection"
                )
                if left > FETCH_TIME:
                    continue
            except RemoteUnavailable as error:
                trouble = error
            await self._pause(attempt, WaitTimeout(f"{trouble}, until the deadline"))
        raise AssertionError

    async def _pause(self, attempt: int, error: StatusProviderError) -> None:
        """Before the next attempt; if that is past the deadline, ``error`` is raised."""
        pause = full_jitter(attempt)
        if self.deadline is not None and time.time() + pause > self.deadline:
            raise error from None
        await asyncio.sleep(pause)

    def _wait(self, endpoint: Endpoint) -> Awaitable[Outcome]:
        return wait(
            endpoint,
            self.kind,
            self.job_id,
            deadline=self.deadline,
            poll_interval=self.poll_interval,
            stall_timeout=self.stall_timeout,
            seen=bool(self.seen),
            options=self.options,
            on_progress=self._report,
        )

    def _facts(self) -> dict[str, Any]:
        started_at = reading.number(self.started_at)
        return {
            "job_id": self.job_id,
            "service": self.kind.service,
            "conn_id": self.conn_id,
            "started_at": self._begun if started_at is None else started_at,
            "deadline": self.deadline,
        }

    def _hook(self) -> StatusHook:
        return self.hook_class(self.conn_id)

    def _waited(self) -> float:
        since = reading.number(self.started_at)
        return round(max(0.0, time.time() - (self._begun if since is None else since)), 3)

    # -- the event

    async def _event(self, update: Update, record: dict[str, Any]) -> TriggerEvent:
        what = self._hook().describe(self.job_id, self.kind)
        error = ending_error(what, update, bool(self.fail_on_partial), self.max_failed)
        if isinstance(error, RemoteJobError) and update.phase.good:
            return await self._failed_in_part(error, record, update)
        if error is not None:
            return await self._failed(error, record, update)
        if self.end_from_trigger and not self.xcom:
            return TaskSuccessEvent()
        payload: dict[str, Any] = {"version": VERSION, **self.kind.summary(update), "wait": record}
        result = await self._told(update)
        if result is None:
            return TriggerEvent(payload)
        if self._event_can_bring_it():
            return TaskSuccessEvent(xcoms={"return_value": with_wait(result, record)})
        stored = await self._store(with_wait(result, record))
        if stored is None:
            return TriggerEvent(payload)
        if not stored:
            return TriggerEvent({**payload, "xcom": result})
        return TaskSuccessEvent() if self.end_from_trigger else TriggerEvent({**payload, "stored": True})

    def _event_can_bring_it(self) -> bool:
        """Whether the end's event can store what the task returns: it needs no request of its own then. Never
        a result, for events are logged; and never past another XCom backend."""
        if not self.end_from_trigger or self.with_result or self._task() is None:
            return False
        return xcoms.kept_by_airflow() and compat.events_keep_xcoms()

    async def _told(self, update: Update) -> dict[str, Any] | None:
        """What goes to XCom from here; None if a worker says it."""
        if self.with_result:
            return await self._result(update)
        return self.kind.summary(update) if self.end_from_trigger else None

    async def _result(self, update: Update) -> dict[str, Any] | None:
        """The XCom; None if the worker should rather fetch it."""
        if self.task_instance is not None and not compat.trigger_xcoms():
            return None  # nothing can be stored from here, and an event is logged
        result = await self._fetched(update)
        return result if result is not None and self._small(result) else None

    async def _fetched(self, update: Update) -> dict[str, Any] | None:
        result: dict[str, Any]
        if update.result is not None:
            result = self.kind.xcom(update)
            return result
        where = self.kind.where_result(update)
        try:
            async with asyncio.timeout(RESULT_PATIENCE):
                result = await self._hook().aget_result(self.job_id, kind=self.kind, **where)
        except (StatusProviderError, TimeoutError) as error:
            why = str(error) or "the answer took too long"
            self.log.warning("the result will be fetched by the worker: %s", why)
            return None
        return result

    def _small(self, result: dict[str, Any]) -> bool:
        return self.kind.told_once or len(json.dumps(result, default=str)) <= SMALL_RESULT

    async def _store(self, result: dict[str, Any]) -> bool | None:
        """Whether it went straight to XCom; None if it could not, and a worker should rather see to it.

        In dag.test there is no task instance to store it for, but then nobody keeps the event either.
        """
        for attempt in range(1, RESULT_TRIES + 1):
            try:
                return await self._push("return_value", result)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                self.log.warning("the result could not be stored: %s", type(error).__name__)
                if attempt < RESULT_TRIES:
                    await asyncio.sleep(attempt)
                elif self.with_result and self.kind.told_once:
                    # not the error itself, whose words may quote what was to be stored
                    words = f"the result could not be stored ({type(error).__name__})"
                    raise StatusProviderError(words).at(self._hook().where) from None
        return None

    async def _push(self, key: str, value: Any) -> bool:
        task = self._task()
        if task is None:
            return False
        await xcoms.put(key, value, task)
        return True

    def _task(self) -> dict[str, Any] | None:
        """Whose XComs these are; None where they cannot be written from here."""
        ti: Any = self.task_instance
        if ti is None or not compat.trigger_xcoms():
            return None
        return instances.xcom_address(ti)

    async def _failed_in_part(
        self, error: RemoteJobError, record: dict[str, Any], update: Update
    ) -> TriggerEvent:
        """Too much of the job failed: its result is kept all the same, and the error names what failed."""
        result = await self._fetched(update) if self.kind.readable else self.kind.xcom(update)
        error = naming(error, self.kind.failures(result))
        if not self.xcom:
            return await self._failed(error, record, update)
        told = result if self.with_result else self.kind.summary(update)
        stored = None
        if told is not None and self._small(told) and (self.task_instance is None or compat.trigger_xcoms()):
            stored = await self._store(with_wait(told, record))
        if stored or (stored is False and self.end_from_trigger):
            event = await self._failed(error, record, update)
            if type(event) is not TriggerEvent:
                return event
            return TriggerEvent({**event.payload, "stored": True})
        # what could not be stored from here, a worker stores before it fails
        return TriggerEvent(failure_payload(error, str(self.job_id), update) | {"wait": record})

    async def _failed(
        self, error: StatusProviderError, record: dict[str, Any], update: Update | None = None
    ) -> TriggerEvent:
        ended = isinstance(error, RemoteJobError | WaitTimeout)
        # what must not be retried, only a worker can keep from it
        timed_out = type(error) is WaitTimeout and self.resume_on_timeout
        stored = await self._keep_failure(update) if isinstance(error, RemoteJobFailed) else False
        if timed_out or isinstance(error, StartUncertain) or not self.end_from_trigger:
            event = failure_payload(error, str(self.job_id), update) | {"wait": record}
            return TriggerEvent(event | {"failure_stored": True} if stored else event)
        self.log.error("%s", error)
        end = TaskSkippedEvent if self.soft_fail and ended else TaskFailedEvent
        if not self.xcom:
            return end()
        words = str(error)
        with contextlib.suppress(Exception):
            if await self._push(ERROR, words):
                return end()
        return end(xcoms={ERROR: words})

    async def _keep_failure(self, update: Update | None) -> bool:
        """Whether what the service says of the failed job stands in its XCom now."""
        if not self.failure_details or update is None or update.result is None:
            return False
        try:
            return await self._push(FAILURE, self.kind.xcom(update))
        except Exception as error:  # noqa: BLE001 - the task fails for its job's sake, not for this
            self.log.warning("what is known of the failure could not be stored: %s", type(error).__name__)
            return False

    async def _hold(self) -> None:
        deferred_at = reading.number(self.deferred_at)
        if compat.RESUMES_AT_ONCE or deferred_at is None or self.task_instance is None:
            return  # dag.test, which gives no task instance, has no scheduler
        lingers = conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0) + REPORT_TIME
        left = deferred_at + lingers - time.time()
        if 0 < left <= lingers:
            await asyncio.sleep(left)

    async def _still_wanted(self) -> bool:
        """``on_kill`` is also called on re-assignment to another triggerer, which may have ended the wait by
        now. The new attempt's job distinguishes a clear from that, or, while that attempt waits for a worker,
        a job that still runs although nothing can have ended the wait.

        Airflow 3.4 calls ``on_kill`` for a kill only, and refuses the XComs of an attempt that is over.
        """
        if compat.triggers_are_released():
            return self.task_instance is None
        task = self._task()
        if task is None:
            return True
        give_up = time.monotonic() + DECIDE_WITHIN
        while (state := await self._state(task)) in _ALIVE:
            current = await xcoms.get("job_id", task)
            if current is not None and current != self.job_id:
                return False
            if state == "deferred":
                return True
            if time.monotonic() > give_up:
                return state not in ("scheduled", "queued") or self._may_have_given_up()
            await asyncio.sleep(DECIDE_EVERY)
        return False

    def _may_have_given_up(self) -> bool:
        deadline = reading.number(self.deadline)
        return self.stall_timeout is not None or (deadline is not None and time.time() >= deadline)

    async def _state(self, task: dict[str, Any]) -> str | None:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        index = task["map_index"]
        states = await asyncio.to_thread(
            RuntimeTaskInstance.get_task_states,
            dag_id=task["dag_id"],
            task_ids=[task["task_id"]],
            run_ids=[task["run_id"]],
            map_index=index if index >= 0 else None,
        )
        key = task["task_id"] if index < 0 else f"{task['task_id']}_{index}"
        state: str | None = states.get(task["run_id"], {}).get(key)
        return state


#: A trigger is stored without what is as it would be anyway: in each turn of a triggerer's main loop the
#: database reads the rows of all triggers, and a crowd's ends come by turns. So no default may ever change,
#: not in a subclass either.
DEFAULTS: dict[str, Any] = {
    parameter.name: parameter.default
    for parameter in inspect.signature(StatusTrigger).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def _plain(option: object) -> bool:
    if isinstance(option, list):
        return all(isinstance(text, str) for text in option)
    return option is None or isinstance(option, str | bool)
