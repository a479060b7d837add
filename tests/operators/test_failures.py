# SPDX-License-Identifier: Apache-2.0
"""The table in docs/failures.md, row by row: what Airflow does to a deferred task, and what becomes of its job.

What only a whole Airflow can do (kill -9, restarts) is done to one in tests/system/test_failures.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.jobs import triggerer_job_runner
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk.execution_time.supervisor import set_supervisor_comms
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_status_provider.hooks import base as hooks
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.tagger import TaggerBatchSensor
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.triggers import base as triggers
from tests.harness import Task, said
from tests.versions import STATE_STORE, TRIGGER_KILLS

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "failures.md"
USER = "__airflow_user_action__"
#: the same for a trigger that another triggerer has taken over, before Airflow 3.4
TAKEN_OVER = getattr(triggerer_job_runner, "_REASSIGNED_CANCEL_MSG", USER)
#: can be cancelled after each of its many documents
LONG = 100.0
ROWS = [{"file_path": "https://files.example/a.pdf"}] * 50

both = pytest.mark.parametrize("started", [True, False], ids=["we started it", "we only watch it"])


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "DECIDE_WITHIN", 0.3)
    monkeypatch.setattr(triggers, "CANCEL_PATIENCE", 3.0)
    monkeypatch.setattr(hooks, "SHORTEST_PAUSE", 0.02)
    monkeypatch.setattr(hooks, "LAST_ANSWER", 0.1)
    monkeypatch.setattr(hooks, "full_jitter", lambda attempt, **more: 0.02)


class Waiting:
    """A deferred task of one's own or of somebody else's batch, and triggerers to wait in."""

    def __init__(self, simulated: SimulatorThread, started: bool) -> None:
        self.simulated = simulated
        self.tagger = simulated.simulator.tagger
        self.tagger.script.seconds = LONG
        given: dict[str, Any] = {"poll_interval": 0.05, "retries": 1}
        if started:
            self.task = Task(TaggerBatchOperator, documents=ROWS, **given)
        else:
            job_id = simulated.call(self.tagger.add, seconds=LONG, documents=len(ROWS))
            self.task = Task(TaggerBatchSensor, job_id=job_id, **given)
        self.job_id = str(self.task.run().kwargs["job_id"])

    @property
    def cancels(self) -> int:
        return self.simulated.simulator.count("tagger", "/cancel", "POST")

    @property
    def status(self) -> str:
        return str(self.tagger.jobs[self.job_id].status)

    def end(self) -> None:
        self.simulated.call(self.tagger.end, self.job_id)

    def live(self, life: Callable[[], Awaitable[None]]) -> None:
        """Live through something, with triggerers around."""

        async def main() -> None:
            async with asyncio.timeout(20):
                await life()

        with set_supervisor_comms(self.task.store):
            asyncio.run(main())


class Triggerer:
    """Airflow's own runner, with one trigger in it."""

    def __init__(self, trigger: BaseTrigger) -> None:
        trigger.trigger_id = 1
        trigger.timeout_after = None  # type: ignore[attr-defined]  # which Airflow 3.1 looks at
        trigger.task_instance.context_carrier = None  # type: ignore[union-attr]
        self.runner = TriggerRunner()
        self.runner.triggers[1] = {"task": None, "is_watcher": False, "name": "t", "events": 0}  # type: ignore[typeddict-item]
        self.task = asyncio.create_task(self.runner.run_trigger(1, trigger))

    async def cancel(self, *message: str) -> None:
        await asyncio.sleep(0.3)  # until it waits
        self.task.cancel(*message)
        with suppress(asyncio.CancelledError):
            await self.task

    async def event(self) -> TriggerEvent:
        await self.task
        (entry,) = self.runner.events
        # before 3.3 a pair with the trigger's number
        event = entry[1] if isinstance(entry, tuple) else entry.event
        assert event is not None
        return event


@both
def test_a_triggerer_that_is_stopped_leaves_the_job_to_the_next(
    started: bool, status_simulator: SimulatorThread
) -> None:
    """Stopped as a deployment does: nothing is cancelled, and another triggerer waits on."""
    waiting = Waiting(status_simulator, started)

    async def life() -> None:
        await Triggerer(waiting.task.trigger()).cancel()
        waiting.end()

    waiting.live(life)
    assert waiting.task.resume(waiting.task.fire()).state == "success", said(waiting.task)
    assert waiting.cancels == 0


@both
def test_a_triggerer_that_was_cut_off_cancels_nothing(
    started: bool, status_simulator: SimulatorThread
) -> None:
    """Two triggerers wait for the same job; the first is told that it has lost its trigger."""
    waiting = Waiting(status_simulator, started)
    waiting.task.store.task_state = "deferred"
    events: list[TriggerEvent] = []

    async def life() -> None:
        cut_off = Triggerer(waiting.task.trigger())
        taken_over = Triggerer(waiting.task.trigger())
        await cut_off.cancel(TAKEN_OVER)
        waiting.end()
        events.append(await taken_over.event())

    waiting.live(life)
    assert waiting.task.resume(events[0]).state == "success"
    assert waiting.cancels == 0


@TRIGGER_KILLS
@both
@pytest.mark.parametrize(
    "state", ["failed", "success", "skipped", None], ids=["failed", "success", "overdue", "deleted"]
)
def test_a_task_that_a_user_ends_ends_its_own_job_only(
    state: str, started: bool, status_simulator: SimulatorThread
) -> None:
    """Marked failed or success, skipped since its run is overdue, or deleted with its run: a job of our own is
    cancelled, another's is left."""
    waiting = Waiting(status_simulator, started)
    waiting.task.store.task_state = state

    async def life() -> None:
        await Triggerer(waiting.task.trigger()).cancel(USER)

    waiting.live(life)
    assert (waiting.cancels, waiting.status == "cancelled") == ((1, True) if started else (0, False))


@TRIGGER_KILLS
@both
def test_a_cleared_task_starts_afresh(started: bool, status_simulator: SimulatorThread) -> None:
    """The new attempt has begun before the old one's trigger hears of it: only the old job is cancelled."""
    waiting = Waiting(status_simulator, started)
    old = waiting.task.trigger()
    waiting.task.clear()
    waiting.task.run()
    waiting.task.store.task_state = "deferred"

    async def life() -> None:
        await Triggerer(old).cancel(USER)

    waiting.live(life)
    renewed = waiting.task.slices[-1].kwargs["job_id"]
    assert (renewed != waiting.job_id) is started
    assert waiting.cancels == started
    status_simulator.call(waiting.tagger.end, renewed)
    assert waiting.task.resume(waiting.task.fire()).state == "success", said(waiting.task)


@STATE_STORE
@both
def test_a_worker_lost_before_the_deferral_is_succeeded_by_one_that_waits_on(
    started: bool, status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with the job started and its id remembered: the retry waits for the same job."""
    made = Waiting(status_simulator, started)
    operator = TaggerBatchOperator if started else TaggerBatchSensor
    task = Task(operator, **{**made.task._arguments, "task_id": "lost"})
    before = len(made.tagger.starts)

    def die(*arguments: Any, **options: Any) -> None:
        raise SystemExit(1)

    with monkeypatch.context() as patch:
        patch.setattr(operator, "_defer", die)
        assert task.run().state == "up_for_retry"
    task.retry()
    job_id = task.run().kwargs["job_id"]
    status_simulator.call(made.tagger.end, job_id)
    assert task.resume(task.fire()).state == "success", said(task)
    assert len(made.tagger.starts) - before == started


# -- the table itself


def rows() -> Iterator[tuple[str, list[str]]]:
    """Each row's event, and the tests that show it."""
    for line in TABLE.read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| event", "| what")) and line.count("|") == 5:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            yield cells[0], re.findall(r"`(test_\w+)`", cells[-1])


def test_each_row_is_shown_by_a_test() -> None:
    """A row of the table names its tests, and they exist."""
    known = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = dict(rows())
    assert len(named) >= 12
    assert {event: names for event, names in named.items() if not names or not set(names) <= known} == {}
