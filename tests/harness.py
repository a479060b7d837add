# SPDX-License-Identifier: Apache-2.0
"""Airflow without an Airflow: one task instance's life, run by the real task runner over a faked supervisor.

A ``Task`` runs its operator as a worker would (a fresh object each time), runs the trigger it deferred to
as the triggerer would (rebuilt from the stored class path and JSON), applies the trigger's event as the
scheduler would, retries and clears. What Airflow would have stored is in ``Task.store``.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import json
import logging
import pkgutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import structlog
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from airflow.sdk import DAG
from airflow.sdk.api.datamodels._generated import DagRun, DagRunState, DagRunType, TIRunContext
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, task_runner
from airflow.sdk.execution_time.supervisor import set_supervisor_comms
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance, finalize, run
from airflow.triggers.base import (
    BaseTaskEndEvent,
    BaseTrigger,
    TaskFailedEvent,
    TaskSkippedEvent,
    TriggerEvent,
)
from pydantic import TypeAdapter

from airflow_status_provider import compat
from airflow_status_provider.errors import StatusProviderError
from airflow_status_provider.operators import base as operators
from airflow_status_provider.protocols import areal, haidy, jobs, organizer
from airflow_status_provider.triggers.base import DEFAULTS
from airflow_status_provider.waiting import polling

try:
    from airflow.sdk.serde import deserialize, serialize
except ImportError:  # Airflow 3.1
    from airflow.serialization.serialized_objects import BaseSerialization

    deserialize, serialize = BaseSerialization.deserialize, BaseSerialization.serialize

Json = dict[str, Any]

#: as which task instance of a loop a request of the SDK is sent, as Airflow 3.4 knows it: by its context
ACTING: contextvars.ContextVar[Region | None] = contextvars.ContextVar("ACTING", default=None)

#: a worker that deferred is gone for sure after so many seconds; the harness does not wait for that
LONG_AGO = 60.0


class Region(NamedTuple):
    """Where a task instance of Airflow 3.4 stands among those that share its map index: iterations of a loop."""

    id: uuid.UUID
    index: int


@dataclass
class Store:
    """The supervisor's end of the line: what a task asks of Airflow, answered from memory.

    ``looped``: the task is in a loop, and its XComs are those of the iteration as which a request is sent.
    """

    xcoms: dict[tuple[str, Any, str], Any] = field(default_factory=dict)
    looped: bool = False
    state: dict[tuple[uuid.UUID, str], Any] = field(default_factory=dict)
    rendered: Json = field(default_factory=dict)
    first_reschedule: datetime | None = None
    #: what the API tells of the state of this task's instances
    task_state: str = "deferred"
    sent: list[Any] = field(default_factory=list)
    #: keys in the order in which they were pushed, with who pushed them
    pushed: list[tuple[str, str]] = field(default_factory=list)
    who: str = "worker"

    def send(self, msg: Any) -> Any:
        self.sent.append(msg)
        match type(msg).__name__:
            case "GetTaskStateStore":
                if (msg.ti_id, msg.key) in self.state:
                    return comms.TaskStateStoreResult(value=self.state[msg.ti_id, msg.key])
                return comms.ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND)
            case "SetTaskStateStore":
                # a copy, as the JSON in the database would be
                self.state[msg.ti_id, msg.key] = json.loads(json.dumps(msg.value))
            case "DeleteTaskStateStore":
                self.state.pop((msg.ti_id, msg.key), None)
            case "ClearTaskStateStore":
                self.state = {key: value for key, value in self.state.items() if key[0] != msg.ti_id}
            case "SetXCom":
                self.xcoms[msg.task_id, self._place(msg), msg.key] = json.loads(json.dumps(msg.value))
                self.pushed.append((self.who, msg.key))
            case "GetXCom":
                value = self.xcoms.get((msg.task_id, self._place(msg), msg.key))
                return comms.XComResult(key=msg.key, value=copy.deepcopy(value))
            case "GetXComSequenceSlice":
                found = [
                    v for (task, _, key), v in self.xcoms.items() if (task, key) == (msg.task_id, msg.key)
                ]
                return comms.XComSequenceSliceResult(root=found)
            case "DeleteXCom":
                self.xcoms.pop((msg.task_id, self._place(msg), msg.key), None)
            case "GetConnection":
                return comms.ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND)
            case "GetTaskRescheduleStartDate":
                return comms.TaskRescheduleStartDate(start_date=self.first_reschedule)
            case "ValidateInletsAndOutlets":
                return comms.InactiveAssetsResult(inactive_assets=[])
            case "GetTaskStates":
                name = (msg.task_ids or [""])[0]
                name = name if msg.map_index is None else f"{name}_{msg.map_index}"
                return comms.TaskStatesResult(
                    task_states={run_id: {name: self.task_state} for run_id in msg.run_ids or ()}
                )
            case "SetRenderedFields":
                self.rendered = msg.rendered_fields
        return comms.OKResponse(ok=True)

    async def asend(self, msg: Any) -> Any:
        return self.send(msg)

    def _place(self, msg: Any) -> Any:
        if not self.looped:
            return _index(msg)
        if (region := ACTING.get()) is None:
            words = "A loop producer requires an explicit scope or a consumer inside the loop"
            raise AirflowRuntimeError(comms.ErrorResponse(detail={"status_code": 400, "message": words}))
        return region


def _plain(kwargs: Any) -> Json:
    """An object as it comes back from the database."""
    found: Any = deserialize(json.loads(json.dumps(serialize(kwargs))))
    assert isinstance(found, dict)
    return found


def _index(msg: Any) -> int:
    return -1 if msg.map_index is None else int(msg.map_index)


@dataclass(frozen=True)
class Slice:
    """What came of one run on a worker, or of an event that ended the task without one."""

    state: str
    error: BaseException | None = None
    #: where the task deferred
    deferral: comms.DeferTask | None = None
    #: seconds until the next poke, where it was rescheduled
    poke_in: float | None = None
    #: the task-end event that ended it in the triggerer
    event: TriggerEvent | None = None

    @property
    def deferred(self) -> comms.DeferTask:
        assert self.deferral is not None, f"not deferred but {self.state}: {self.error!r}"
        return self.deferral

    @property
    def kwargs(self) -> Json:
        """What the trigger is made with; what is not stored is as by default."""
        return DEFAULTS | _plain(self.deferred.trigger_kwargs)


class Task:
    """One task instance; ``operator`` and its arguments as a DAG file would give them.

    ``expand`` maps the task; ``map_index`` then says which of the instances this is. ``region`` says which
    iteration of a loop it is; iterations share a ``store``. ``before_3_3`` takes away what older releases do
    not have.
    """

    def __init__(
        self,
        operator: type[Any],
        *,
        expand: Json | None = None,
        map_index: int = -1,
        region: Region | None = None,
        run_id: str = "manual__2026-05-01",
        conf: Json | None = None,
        native: bool = False,
        downstream: Any = None,
        store: Store | None = None,
        before_3_3: bool = False,
        **arguments: Any,
    ) -> None:
        self.store = store or Store()
        self.try_number = 1
        self.max_tries: int = arguments.get("retries", 0)
        self.run_id = run_id
        self.map_index = map_index
        self.region = region
        self.store.looped = self.store.looped or region is not None
        self.id = uuid.uuid4()
        self.slices: list[Slice] = []
        #: what told the trigger of the end ("push" or "poll"), where its event says so
        self.how = ""
        self._operator = operator
        self._arguments = {"task_id": "task", "retries": 0, **arguments}
        self._expand = expand
        self._conf = conf or {}
        self._native = native
        self._downstream = downstream
        self._before_3_3 = before_3_3
        self._pokes = 0

    # -- what Airflow stored

    def xcom(self, key: str = "return_value") -> Any:
        return self.store.xcoms.get((*self._key[:2], key))

    @property
    def memory(self) -> Json | None:
        """What the operator remembers of its job."""
        value = self.store.state.get((self.id, "remote_job"))
        assert value is None or isinstance(value, dict)
        return value

    # -- a worker

    def operator(self) -> Any:
        """The task as the DAG file makes it."""
        with DAG("dag", schedule=None, render_template_as_native_obj=self._native):
            if self._expand is None:
                made = self._operator(**self._arguments)
            else:
                made = self._operator.partial(**self._arguments).expand(**self._expand)
            if self._downstream is not None:
                self._downstream(made)
        return made

    def run(self, next_method: str | None = None, next_kwargs: Json | None = None) -> Slice:
        """One run on a worker."""
        if next_method is None and not self._pokes:
            # a fresh try begins without XComs
            self.store.xcoms = {
                key: value for key, value in self.store.xcoms.items() if key[:2] != self._key[:2]
            }
        now = datetime.now(tz=UTC)
        dag_run = DagRun.model_construct(
            dag_id="dag",
            run_id=self.run_id,
            logical_date=None,
            data_interval_start=None,
            data_interval_end=None,
            run_after=now,
            start_date=now,
            end_date=None,
            run_type=DagRunType.MANUAL,
            state=DagRunState.RUNNING,
            conf=self._conf,
            partition_key=None,
            partition_date=None,
            consumed_asset_events=[],
            team_name=None,
            note=None,
            triggering_user_name=None,
        )
        server = TIRunContext.model_construct(
            dag_run=dag_run,
            task_reschedule_count=self._pokes,
            max_tries=self.max_tries,
            variables=[],
            connections=[],
            xcom_keys_to_clear=[],
            should_retry=self.try_number <= self.max_tries,
            next_method=next_method,
            next_kwargs=None if next_kwargs is None else serialize(next_kwargs),
        )
        ti = RuntimeTaskInstance.model_construct(
            id=self.id,
            task_id=self._arguments["task_id"],
            dag_id="dag",
            run_id=self.run_id,
            try_number=self.try_number,
            map_index=self.map_index,
            dag_version_id=uuid.uuid4(),
            queue="default",
            task=self.operator(),
            _ti_context_from_server=server,
            max_tries=self.max_tries,
            start_date=now,
            hostname="worker",
            context_carrier=None,
        )
        self._regional(ti)
        self.store.who = "worker"
        acting = ACTING.set(self.region)
        log = structlog.get_logger("task")
        with set_supervisor_comms(self.store):
            context = ti.get_template_context()
            if self._before_3_3:
                context.pop("task_state_store", None)
            state, msg, error = run(ti, context, log)
            finalize(ti, state, context, log, error)
        ACTING.reset(acting)
        deferral = msg if isinstance(msg, comms.DeferTask) else None
        poke_in = None
        if isinstance(msg, comms.RescheduleTask):
            self._pokes += 1
            self.store.first_reschedule = self.store.first_reschedule or now
            poke_in = (msg.reschedule_date - now).total_seconds()
        return self._keep(Slice(state.value, error, deferral, poke_in))

    @property
    def _key(self) -> tuple[str, Any, str]:
        return self._arguments["task_id"], self.region or self.map_index, ""

    def _regional(self, ti: Any) -> None:
        """As Airflow 3.4 has it: a worker sees zeros where a plain task has no region."""
        region = self.region or Region(uuid.UUID(int=0), -1)
        ti.__dict__ |= {"region_id": region.id, "region_index": region.index}

    def _keep(self, piece: Slice) -> Slice:
        self.slices.append(piece)
        return piece

    # -- the triggerer

    def trigger(self, **changes: Any) -> BaseTrigger:
        """The trigger, as the triggerer rebuilds it; ``changes`` of its stored kwargs."""
        deferred = self.slices[-1].deferred
        kwargs = _plain(deferred.trigger_kwargs)
        kwargs |= {"deferred_at": kwargs["deferred_at"] - LONG_AGO, **changes}
        made = pkgutil.resolve_name(deferred.classpath)(**kwargs)
        assert isinstance(made, BaseTrigger)
        made.task_instance = SimpleNamespace(  # type: ignore[assignment]
            id=self.id,
            dag_id="dag",
            task_id=self._arguments["task_id"],
            run_id=self.run_id,
            try_number=self.try_number,
            map_index=self.map_index,
        )
        return made

    def fire(self, trigger: BaseTrigger | None = None, within: float = 20.0) -> TriggerEvent:
        """Run the trigger to its one event."""
        trigger = trigger or self.trigger()

        async def events() -> list[TriggerEvent]:
            ACTING.set(self.region)
            async with asyncio.timeout(within):
                return [event async for event in trigger.run()]

        self.store.who = "trigger"
        with set_supervisor_comms(self.store):
            fired = asyncio.run(events())
        assert len(fired) == 1, fired
        if isinstance(fired[0].payload, dict):
            self.how = fired[0].payload["wait"]["how"]
        return fired[0]

    # -- the scheduler

    def resume(self, event: TriggerEvent, *, keep_kwargs: bool = True) -> Slice:
        """Apply a trigger's event: end the task, or run it again where it asked to be resumed."""
        deferred = self.slices[-1].deferred
        if isinstance(event, BaseTaskEndEvent):
            state = "success"
            if isinstance(event, TaskFailedEvent):
                state = "failed" if self.try_number > self.max_tries else "up_for_retry"
            elif isinstance(event, TaskSkippedEvent):
                state = "skipped"
            if state != "up_for_retry":
                self.store.who = "event"
                for key, value in (event.xcoms or {}).items():
                    # Airflow encodes them twice: whoever reads one gets text
                    self.store.xcoms[(*self._key[:2], key)] = json.dumps(value)
                    self.store.pushed.append(("event", key))
            return self._keep(Slice(state, event=event))
        kwargs = _plain(deferred.next_kwargs) if keep_kwargs else {}
        payload = json.loads(json.dumps(event.payload))
        return self.run(deferred.next_method, {**kwargs, "event": payload})

    def resume_with(self, payload: Any, *, keep_kwargs: bool = True) -> Slice:
        """Resume with a payload of one's own."""
        return self.resume(TriggerEvent(payload), keep_kwargs=keep_kwargs)

    def inline(self) -> Slice:
        """What ``dag.test`` does with a deferral: no task instance, no deferral kwargs, any event resumes."""
        trigger = self.trigger()
        trigger.task_instance = None
        event = self.fire(trigger)
        return self.run(self.slices[-1].deferred.next_method, {"event": event.payload})

    def fail(self, error: str = "Trigger timeout") -> Slice:
        """The framework's own end of a deferral."""
        return self.run("__fail__", {"error": error})

    # -- the rest of its life

    def complete(self, within: float = 20.0) -> Slice:
        """Run this try to its end, wherever it waits."""
        piece = self.run()
        give_up = time.monotonic() + within
        while time.monotonic() < give_up:
            if piece.deferral is not None:
                piece = self.resume(self.fire(within=within))
            elif piece.poke_in is not None:
                time.sleep(min(piece.poke_in, 0.05))
                piece = self.run()
            else:
                return piece
        raise AssertionError(f"still {piece.state} after {within} s")

    def retry(self) -> None:
        """The next try, as the scheduler would begin it."""
        assert self.slices[-1].state in ("up_for_retry", "failed"), self.slices[-1]
        self._next_try()

    def clear(self, *, keep_task_state: bool | None = None) -> None:
        """Somebody clears the task: ``max_tries`` goes up. Airflow 3.4 discards the state store unless asked to
        keep it; before, it stays."""
        if not (not compat.CLEARS_DISCARD_STATE if keep_task_state is None else keep_task_state):
            self.store.state.clear()
        self.max_tries = self.try_number + self._arguments["retries"]
        self._next_try()

    def _next_try(self) -> None:
        self.try_number += 1
        self._pokes = 0
        self.store.first_reschedule = None


def said(task: Task) -> str:
    """What a user reads about why a task failed: the exception, or the XCom that the trigger left."""
    error = task.slices[-1].error
    # before Airflow 3.3 the event brings the XCom, which then is encoded once more
    return str(task.xcom("error")).strip('"') if error is None else str(error)


#: whatever of the simulator's connections must never be seen, and how a JWT begins
SECRETS = (
    "wonderland",
    "haidy-simulated-token",
    "sk-simulated",
    "areal-simulated-api-key",
    "fo_alice",
    "eyJ",
)


def plainly(task: Task) -> str:
    """The words of the error that ended a run: one of ours or a time-out, one line, no secret, no chain."""
    error = task.slices[-1].error
    assert isinstance(error, StatusProviderError | AirflowSensorTimeout), repr(error)
    chained = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert chained is None, f"the user would see {chained!r} as well"
    words = str(error)
    assert "\n" not in words
    assert not [secret for secret in SECRETS if secret in words], words
    return words


# -- fixtures, for the conftests that import them


@pytest.fixture
def airflow_log(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """A function that tells all that was logged so far, by workers and triggers, one line each."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as entries:

        def text() -> str:
            lines = [record.getMessage() for record in caplog.records]
            for entry in entries:
                event, arguments = str(entry["event"]), entry.get("positional_args", ())
                lines.append(event % arguments if arguments else event)
                lines += [
                    str(value) for key, value in entry.items() if key not in ("event", "positional_args")
                ]
            return "\n".join(lines)

        yield text


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules with shorter times, and an Airflow that does not build the same schema over and over."""
    monkeypatch.setattr(task_runner, "TypeAdapter", functools.cache(TypeAdapter))
    monkeypatch.setattr(polling, "MIN_GAP", 0.02)
    monkeypatch.setattr(operators, "LOOK_FOR", 0.3)
    monkeypatch.setattr(jobs, "LOST_GRACE", 0.1)
    monkeypatch.setattr(haidy.TaskKind, "missing_grace", 0.2)
    monkeypatch.setattr(areal, "SETTLE", 0.05)
    monkeypatch.setattr(areal, "SETTLE_MISSING", 0.1)
    monkeypatch.setattr(organizer.ClientStream, "proof_within", 0.05)
