"""What every operator does: start once, remember, wait, bring the result home.

1. The job's id goes to the task state store before the deferral (where the service lets the client choose the
   id, before the start), and to XCom: a retry re-attaches to a job that still runs or has succeeded.
2. A start whose outcome is unknown is not repeated, unless the service can say whether it happened.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_status_provider import instances
from airflow_status_provider.compat import conf
from airflow_status_provider.errors import (
    InvalidInput,
    NotFound,
    RemoteJobCancelled,
    RemoteUnavailable,
    StartUncertain,
    StatusProviderError,
)
from airflow_status_provider.hooks.base import LONGEST_LOOK, SHORTEST_PAUSE, no_cancel
from airflow_status_provider.operators import lineage
from airflow_status_provider.operators.lineage import Place
from airflow_status_provider.operators.memory import Memory
from airflow_status_provider.outcomes import start_error, uncertain, wait_record
from airflow_status_provider.protocols.model import Update
from airflow_status_provider.protocols.sending import sendable
from airflow_status_provider.tasks import WaitingTask, failed_share, positive, stalling
from airflow_status_provider.transport.backoff import full_jitter
from airflow_status_provider.triggers.base import CANCEL_PATIENCE, DEFAULT_POLL_INTERVAL

if TYPE_CHECKING:
    from airflow.sdk import Context

#: seconds for which a job is looked for whose start brought no answer
LOOK_FOR = 120.0
#: seconds for which a killed worker tries to cancel its job; the supervisor then kills it for good
KILL_PATIENCE = 4.0
#: seconds within which a kill has surely ended a job: Tagger finishes its document, for at most 300 s
KILL_TAKES = 600.0


@dataclass(frozen=True, slots=True)
class Started:
    """A job that was started: its id, what to push to XCom beside ``job_id``, the tracker's options, and
    the update if it had ended at once."""

    job_id: str
    xcoms: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    update: Update | None = None


def given(name: str, value: object) -> str:
    """An argument that must be text, or is a path; refused if it is what a template makes of nothing."""
    text = str(value) if isinstance(value, PurePath) else value
    if text is None or text == "None" or (isinstance(text, str) and not text.strip()):
        raise InvalidInput(f"{name} is missing ({value!r}); does its template render to nothing?")
    if not isinstance(text, str):
        raise InvalidInput(f"{name} must be text, not {type(value).__name__}")
    return str(sendable(name, text))


def _left_to_look(record: dict[str, Any]) -> float:
    """For how long the start that a lost try asked for may still be carried out."""
    asked_at = record.get("asked_at")
    return LOOK_FOR - (time.time() - asked_at) if isinstance(asked_at, float) else 0.0


class StatusOperator(WaitingTask):
    """Starts a job, waits for its end, and returns its result.

    The XCom ``job_id`` (and the service's own word for it) is there from the moment the job has started;
    ``return_value`` is the result, in which ``wait`` says how the end was learned (``how``: push, poll or
    first check) and after how many ``seconds``. With ``do_xcom_push=False`` the result is not even fetched.

    :param poll_interval: seconds between status reads while no socket is open.
    :param timeout: seconds (or timedelta) from the start of the wait, after which one last read decides and
        the task fails. By default Airflow's ``[sensors] default_timeout``.
    :param on_timeout: ``"leave"`` the remote job running when its time is over (default; a retry waits on for
        it), or ``"cancel"`` it (Tagger, and the newest Organizer; a retry starts a new job).
    :param stall_timeout: seconds without any change in the job's status, progress or counts, after which its
        time is over as well. By default never.
    :param deferrable: wait in the triggerer (default) instead of holding a worker.
    :param end_from_trigger: end without a worker; by default whenever nothing of the task needs one and the
        result is small. Before Airflow 3.3, a task with a result always ends on a worker, and before 3.3.1
        one with retries.
    :param fail_on_partial: fail when the job succeeded with failures inside. The XCom is pushed all the same,
        and the error names the first few parts that failed.
    :param max_failed: fail so only when more than this share (0..1) of its parts failed; 1 allows all to
        fail. By default the task fails when all of them did.
    :raises RemoteJobFailed: the job failed, or all of its parts did; with the service's own text.
    :raises RemoteJobPartial: more of its parts failed than ``fail_on_partial`` or ``max_failed`` allows.
    :raises RemoteJobCancelled: somebody cancelled or deleted it.
    :raises RemoteJobLost: the service no longer knows it.
    :raises WaitTimeout: it had not ended in time; a retry waits on for the same job, if that was left.
    :raises AirflowTaskTimeout: the same for ``execution_timeout``, counted from the try's start.
    :raises WaitStalled: nothing changed for ``stall_timeout``.
    :raises StartUncertain: the start may have happened and cannot be looked up; not retried by Airflow.
    """

    with_result: ClassVar[bool] = True
    remembers: ClassVar[bool] = True

    #: Unix seconds at which this worker attached to a job from before a clear, which may be about to kill it
    _kept_at: float = 0.0

    def __init__(
        self,
        *,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta | None = None,
        on_timeout: str = "leave",
        stall_timeout: float | timedelta | None = None,
        deferrable: bool = True,
        end_from_trigger: bool | None = None,
        fail_on_partial: bool = False,
        max_failed: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if timeout is None:
            timeout = conf.getfloat("sensors", "default_timeout", fallback=604800.0)
        self.timeout = positive("timeout", timeout)
        if on_timeout not in ("leave", "cancel"):
            raise InvalidInput(f"on_timeout must be 'leave' or 'cancel', not {on_timeout!r}")
        if on_timeout == "cancel" and not self.kind.cancellable:
            raise InvalidInput(f"on_timeout='cancel': {no_cancel(self.hook_class.service.title, self.kind)}")
        self.on_timeout = on_timeout
        self.stall_timeout = stalling(self.kind, stall_timeout)
        self.poll_interval = positive("poll_interval", poll_interval)
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger
        self.fail_on_partial = fail_on_partial
        self.max_failed = failed_share(max_failed, fail_on_partial)

    def seconds_to_wait(self) -> float:
        return self.timeout

    # -- what a service's operator says

    def validate(self) -> None:
        """Make of the arguments what can be sent, or raise ``InvalidInput``; nothing is remembered before."""

    def start(self, context: Context, memory: Memory) -> Started:
        """Start the job."""
        raise NotImplementedError

    def find(self, record: dict[str, Any]) -> Started | None:
        """The job that an earlier try remembered, if the record says which."""
        job_id = record.get("job_id")
        if not isinstance(job_id, str):
            return None
        return Started(job_id, dict(record.get("xcoms") or {}), dict(record.get("options") or {}))

    def happened(self, job: Started) -> bool:
        """Whether a job whose start was not confirmed was started all the same."""
        try:
            self.hook().get_status(job.job_id, kind=self.kind, **job.options)
        except NotFound:
            return False
        return True

    def reads(self) -> Iterable[Place | None]:
        """What the job reads, for OpenLineage."""
        return ()

    def writes(self, result: Any) -> Iterable[Place | None]:
        """What came of it, ``result`` being its XCom."""
        return ()

    # -- the ways to start only once

    def start_or_find(self, start: Callable[[], Started], job: Started) -> Started:
        """Where the service can find it: start the job; if no answer comes, look for the job.

        A busy server may carry out a start after its client has given up, so the look is repeated.
        """
        try:
            return start()
        except StatusProviderError as error:
            if not uncertain(error):
                raise
            trouble = error
        began = time.monotonic()
        name = self.hook().describe(job.job_id, self.kind)
        self.log.warning("%s: it may have started all the same, looking for it (%s)", name, trouble)
        with contextlib.suppress(RemoteUnavailable):
            if self._appears(job, LOOK_FOR):
                self.log.info("%s: it has started", name)
                return job
        seconds = time.monotonic() - began
        raise RemoteUnavailable(f"{trouble}; no {self.kind.noun} of this id has appeared in {seconds:.0f} s")

    def _appears(self, job: Started, seconds: float) -> bool:
        """Whether the job happened, looked for again and again for so long, and once at least."""
        give_up = min(time.monotonic() + seconds, self.start_until or 0.0)
        for attempt in itertools.count(1):
            pause = max(SHORTEST_PAUSE, full_jitter(attempt, cap=LONGEST_LOOK))
            last = time.monotonic() + pause > give_up
            try:
                if self.happened(job):
                    return True
            except RemoteUnavailable:
                if last:
                    raise
            if last:
                return False
            time.sleep(pause)
        return False

    @contextmanager
    def starting(self, memory: Memory, **record: Any) -> Iterator[None]:
        """Where it cannot: a start that may have happened is never repeated."""
        noun = self.kind.noun
        if (memory.recall() or {}).get("starting"):
            raise StartUncertain(
                f"{self.hook().where}: an earlier try was lost while it started a {noun}; whether it did is "
                "unknown, so it is not started again; clear this task to start one on purpose"
            )
        memory.keep(starting=True, **record)
        try:
            yield
        except StatusProviderError as error:
            failed = start_error(error, noun)
            if failed is error:
                memory.forget()
            raise failed from None

    # -- the run

    def execute(self, context: Context) -> Any:
        try:
            self.validate()
        except InvalidInput as error:
            raise error.at(self.hook().where) from None
        memory = Memory(context)
        self.start_until = time.monotonic() + self.seconds_to_wait()
        try:
            attached = self._attach(memory)
            if attached is None and (attached := self._attach_to_kept(memory)) and self._cancels_on_kill():
                self._kept_at = time.time()
            started = self._start_once(context, memory) if attached is None else attached
        finally:
            self.start_until = None
        memory.keep(
            job_id=started.job_id,
            xcoms=started.xcoms,
            options=started.options,
            started=True,
            until=self.deadline(context, time.time()).at,
            service=self.kind.service,
            conn_id=self.conn_id,
            ends_told=self.do_xcom_push,
            **({"kept_at": self._kept_at} if self._kept_at else {}),
        )
        self.announce(context, started)
        if attached is None:
            self.log.info("%s: started", self.hook().describe(started.job_id, self.kind))
        if started.update is not None and started.update.final:
            return self.finish(context, started.update, wait_record("first check", 0.0))
        # the service itself has named the job: unknown, it is only late
        seen = attached is not None or not self.kind.missing_grace
        try:
            return self.wait_for(context, started.job_id, seen=seen, options=started.options)
        except RemoteJobCancelled as error:
            self._forget_killed(context, error)
        return self.execute(context)

    def execute_complete(
        self, context: Context, event: Any = None, job_id: str | None = None, **unknown: Any
    ) -> Any:
        try:
            return super().execute_complete(context, event, job_id, **unknown)
        except RemoteJobCancelled as error:
            self._forget_killed(context, error)
        return self.execute(context)

    def _start_once(self, context: Context, memory: Memory) -> Started:
        try:
            return self.start(context, memory)
        except StatusProviderError as error:
            if not uncertain(error):
                memory.settle()
            raise

    def announce(self, context: Context, started: Started) -> None:
        """The job's id, for everybody to see while it runs."""
        for key, value in {"job_id": started.job_id, **started.xcoms}.items():
            context["ti"].xcom_push(key, value)

    def _attach(self, memory: Memory) -> Started | None:
        """An earlier try's job, if it is still worth waiting for."""
        record = memory.recall()
        found = self.find(record) if record else None
        if record is None or found is None:
            return None
        name = self.hook().describe(found.job_id, self.kind)
        options = {**found.options, **self.look_back_options()}
        update = None
        try:
            if record.get("started") or self._appears(found, _left_to_look(record)):
                update = self.hook().get_status(found.job_id, kind=self.kind, **options)
        except NotFound:
            pass
        except RemoteUnavailable:
            if not record.get("started"):
                raise
            return found
        if update is not None and not update.phase.ended and self._was_cancelled(record):
            stopped = self.hook().stop(found.job_id, patience=CANCEL_PATIENCE)
            self.log.info("%s: its time was over in an earlier try; %s", name, stopped.words)
            if not stopped.ended_itself:
                memory.forget()
                return None
            update = stopped.update
        if update is None:
            self.log.info("%s: no job from an earlier try; starting a new one", name)
        elif update.phase.ended and self.ending_error(name, update):
            self.log.info("%s: the job of an earlier try ended %s; starting a new one", name, update.phase)
        else:
            self.log.info("%s: started by an earlier try, waiting on for it", name)
            return found
        memory.forget()
        return None

    def _attach_to_kept(self, memory: Memory) -> Started | None:
        """The job from before a clear that kept the task's state, while it still runs."""
        record = memory.kept()
        found = self.find(record) if record else None
        if record is None or found is None:
            return None
        options = {**found.options, **self.look_back_options()}
        try:
            if not record.get("started") and not self.happened(found):
                return None
            update = self.hook().get_status(found.job_id, kind=self.kind, **options)
        except NotFound:
            return None
        if update.phase.ended:
            return None
        name = self.hook().describe(found.job_id, self.kind)
        self.log.info("%s: started before a clear that kept the task's state, waiting on for it", name)
        return found

    def _forget_killed(self, context: Context, error: RemoteJobCancelled) -> None:
        """A clear kills what it finds deferred, and a job may take long to obey: if one that was attached to
        after a clear is cancelled soon, it was by that, and the task starts another. All else is raised."""
        memory = Memory(context)
        kept_at = (memory.recall() or {}).get("kept_at")
        if not isinstance(kept_at, float) or time.time() - kept_at > KILL_TAKES:
            raise error
        self.log.info("%s: by the clear, so another one is started", error)
        memory.forget()
        self._kept_at = 0.0

    def ends_from_trigger(self) -> tuple[bool, str]:
        if self._kept_at:
            return False, "its job may be about to be cancelled by the clear"
        return super().ends_from_trigger()

    def _was_cancelled(self, record: dict[str, Any]) -> bool:
        """Whether an earlier try asked (or would have) for the job's end: it is not waited for any more."""
        until = record.get("until")
        return self.on_timeout == "cancel" and isinstance(until, float) and time.time() >= until

    def _cancels_on_kill(self) -> bool:
        return self.kind.cancellable

    def on_kill(self) -> None:
        """The worker is stopped while it waits itself (a trigger has its own ``on_kill``)."""
        if self.waiting_here_for is None or not self._cancels_on_kill():
            return
        hook, job_id = self.waiting_here_for
        stopped = hook.stop(job_id, patience=KILL_PATIENCE)
        say = self.log.info if stopped.sure else self.log.warning
        say("%s: the task was killed; %s", hook.describe(job_id, self.kind), stopped.words)

    def remembered_job_id(self, context: Context) -> str:
        return str(instances.own_xcom(context["ti"], self.task_id, "job_id") or "")

    def known_options(self, context: Context) -> dict[str, Any]:
        options = (Memory(context).recall() or {}).get("options")
        return {**self.options(), **(options or {}), **self.look_back_options()}

    # -- lineage

    def get_openlineage_facets_on_start(self) -> Any:
        return lineage.facets(self.reads(), ())

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Also asked of a task that failed, which has no XCom."""
        result = instances.own_xcom(task_instance, self.task_id)
        return lineage.facets(self.reads(), () if result is None else self.writes(result))
