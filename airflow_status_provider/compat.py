"""Everything that depends on Airflow's release, in one place.

1. A feature is found by what the running release can do or, where a process cannot see that, by the exact
   version that brought it. No other module compares versions or catches an ``ImportError`` of Airflow's.
2. Each entry names the release from which on it holds. When an older release is no longer supported, the
   entry is deleted here, and so is the branch of its callers that can no longer run.
3. A release that is neither supported nor known gets one warning with what to expect, and is otherwise taken
   for what it can do.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
import warnings
from typing import TYPE_CHECKING, Any

from airflow import __version__
from airflow import sdk as airflow_sdk
from airflow.sdk.execution_time.xcom import XCom

try:  # 3.2
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferralError,
        TaskDeferralTimeout,
    )
except ImportError:
    from airflow.configuration import conf
    from airflow.exceptions import (  # type: ignore[attr-defined, no-redef]
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferralError,
        TaskDeferralTimeout,
    )

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context, RetryDecision

__all__ = [  # what it hands on
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "conf",
]

#: the minor releases that the test matrix runs, the oldest first
SUPPORTED = ((3, 1), (3, 2), (3, 3), (3, 4))

#: where releases have their metrics, the newest first
_STATS = (
    ("airflow.sdk.observability.stats", "Stats"),  # 3.2
    ("airflow.observability.stats", "Stats"),
    ("airflow.stats", "Stats"),
)

#: the running release; a pre-release counts as the release that it precedes
RELEASE = tuple(int(part) for part in re.findall(r"\d+", __version__)[:3])


def warn_of_unknown_release(version: str = __version__, release: tuple[int, ...] = RELEASE) -> None:
    """Say once a process what to expect of a release that nobody has tested."""
    if release[:2] in SUPPORTED:
        return
    oldest, newest = (".".join(map(str, minor)) for minor in (SUPPORTED[0], SUPPORTED[-1]))
    if release[:2] > SUPPORTED[-1]:
        expect = "it is taken for the newest of them; look for a newer release of this package"
    else:
        expect = f"retries, results and kills of deferred tasks may not work; use Airflow {oldest} or newer"
    warnings.warn(
        f"airflow-status-provider is tested with Airflow {oldest} to {newest}, not with {version}: {expect}",
        RuntimeWarning,
        stacklevel=2,
    )


warn_of_unknown_release()


#: 3.3.1: Airflow retries a task that failed from its trigger; before, ``TaskFailedEvent`` was final. Who
#: applies the event, the triggerer, cannot be asked where that counts, on a worker and in a Dag file.
RETRIES_FROM_TRIGGER = RELEASE >= (3, 3, 1)

#: 3.2: a path of ``pathlib`` in a template field is left as it is; before, Airflow calls its ``resolve`` as
#: if it were a reference of its own. Which is decided inside a method.
RENDERS_PATHS = RELEASE >= (3, 2)

#: 3.3: a task's ``retry_policy``
RETRY_POLICIES = hasattr(airflow_sdk, "RetryPolicy")

#: 3.4: a retry policy can reschedule, which takes no try
RESCHEDULES = RETRY_POLICIES and hasattr(airflow_sdk.RetryAction, "RESCHEDULE")

#: 3.4: a clear discards the task state store, unless its ``keep_task_state`` asks otherwise; before, the
#: store outlives every clear, so a kept record says nothing of what the user wants
CLEARS_DISCARD_STATE = RELEASE >= (3, 4)

#: 3.4: a task may resume as soon as it has deferred. Before, the scheduler fails a task that is queued again
#: when its worker's report of the deferral arrives. It decides that in the middle of a method of its own, and
#: a triggerer, which has to know, can ask neither of them.
RESUMES_AT_ONCE = RELEASE >= (3, 4)


def reschedule(delay: timedelta | None, within: timedelta, reason: str) -> RetryDecision:
    """Where ``RESCHEDULES``: the decision to run a task again without using a try."""
    make: Any = airflow_sdk.RetryDecision
    decision: RetryDecision = make.reschedule(delay, reschedule_timeout=within, reason=reason)
    return decision


def trigger_xcoms() -> bool:
    """3.3: a trigger can read and write XComs."""
    return hasattr(XCom, "aset")


@functools.cache
def events_keep_xcoms() -> bool:
    """Whether readers get the XComs of a task-end event as they were; up to 3.4 Airflow encodes them twice,
    and they get text. Airflow's own code for such an event runs, with stand-ins for task and database. For
    triggerers: the modules are imported there already."""
    value: Any = {"a": 1}
    session: Any = _Session()
    try:
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.trigger import handle_event_submit
        from airflow.triggers.base import TaskSkippedEvent  # the one without callbacks

        task: Any = _StandIn(dag_id="d", task_id="t", run_id="r", map_index=-1)
        task.xcom_push = functools.partial(TaskInstance.xcom_push, task, session=session)
        event = TaskSkippedEvent(xcoms={"k": value})
        handle_event_submit(event, task_instance=task, session=session)
    except Exception:  # noqa: BLE001 - what cannot be asked is not relied on
        return False
    return [getattr(row, "value", None) for row in session.rows] == [value]


class _StandIn:
    """Takes every call, and does nothing."""

    def __init__(self, **known: Any) -> None:
        self.__dict__ |= known

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class _Session(_StandIn):
    """Keeps what would be stored."""

    def __init__(self) -> None:
        super().__init__(rows=[])

    def scalar(self, *_: Any) -> int:
        return 1  # the run's key

    def add(self, row: Any) -> None:
        self.rows.append(row)


def task_state_store(context: Context) -> Any:
    """3.3: the store that outlives a task instance's tries; None before."""
    return context.get("task_state_store")


def task_state_model() -> Any:
    """3.3: the table of that store; None before."""
    try:
        from airflow.models.task_state_store import TaskStateStoreModel
    except ImportError:
        return None
    return TaskStateStoreModel


def xcom_model() -> Any:
    """The table of XComs. 3.4 keeps a second one for those of before."""
    from airflow.models import xcom

    return getattr(xcom, "XComModelV2", xcom.XComModel)


def asset_state_stores(watcher: object) -> list[Any]:
    """3.3: the stores that outlive a watcher, one for each asset that it serves; none before.

    Equal watchers of several assets are one trigger, whose store asks for the name of an asset. Airflow has
    no public list of them.
    """
    stores = getattr(watcher, "asset_state_store", None)
    if stores is None:
        return []
    each = [store for name in ("_by_name", "_by_uri") for store in getattr(stores, name, {}).values()]
    return each or [stores]


def take_over_time() -> float:
    """Seconds without a sign of life after which other triggerers take over a triggerer's triggers."""
    seconds: float = conf.getfloat("triggerer", "triggerer_health_check_threshold", fallback=30.0)
    return seconds


def listeners(event: str) -> list[Any]:
    """Who is called when a worker reports an event of a task instance's; nobody where Airflow cannot load
    its listeners."""
    try:
        try:  # 3.2
            from airflow.sdk.listener import get_listener_manager
        except ImportError:
            from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment]
        called = getattr(get_listener_manager().hook, event, None)
    except Exception:  # noqa: BLE001 - Airflow logs it and goes on, too
        return []
    return [] if called is None else list(called.get_hookimpls())


def stats() -> Any:
    """Airflow's metrics, wherever this release has them; None where it has none."""
    for place, name in _STATS:
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(place), name)
    return None


@functools.cache
def triggers_are_released() -> bool:
    """3.4: a triggerer knows whether another one has taken over a trigger or its task was killed, and calls
    ``on_kill`` only for the latter. For triggerers: the module is imported there already."""
    from airflow.jobs.triggerer_job_runner import messages

    return "to_release" in messages.TriggerStateSync.model_fields


@functools.cache
def watchers_take_queue() -> bool:
    """3.4: a watcher can be given a queue of triggerers."""
    from airflow.triggers.base import BaseEventTrigger

    return "queue" in inspect.signature(BaseEventTrigger.__init__).parameters


def runs_per_event() -> bool:
    """3.4: Airflow begins a Dag run for each asset event, unless ``[scheduler] batch_asset_events`` is on."""
    return not conf.getboolean("scheduler", "batch_asset_events", fallback=True)


def region(ti: Any) -> tuple[str, int] | None:
    """3.4: where a task instance stands among those that share its Dag, run, task and map index: the
    iterations of a loop. None for a plain task, which a worker sees as a region of zeros."""
    region_id, index = getattr(ti, "region_id", None), getattr(ti, "region_index", None)
    if region_id is None or not str(region_id).strip("0-"):
        return None
    return str(region_id), -1 if index is None else int(index)
