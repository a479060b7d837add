# SPDX-License-Identifier: Apache-2.0
"""Kills on a server that a document blocks: `python -m tools.kills`, or `make test-slow`.

A real Airflow defers eight tasks, each with a Tagger of its own, which answers nothing while it works on a
document: for 6 or for 25 seconds. In the middle of a document a user marks the task failed or success, clears
it, or deletes its run. The exit code is 0 only if each batch is cancelled after its document, was asked for
it once, and the task's log has a line about it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from airflow_status_provider.simulator import SimulatorThread
from tools.demo import Clock
from tools.stack import AirflowApi, AirflowStack, ApiError, StackError

_one_user = Lock()

DAGS = Path(__file__).parent / "dags_kills"
DAG_ID, TASK_ID = "killed", "tagger"
#: seconds of a batch in which the server answers, over all its documents
OPEN = 3.0
#: seconds from the first line of a task's trigger to its kill
BEGINS = 3.0


def _delete(api: AirflowApi, run_id: str) -> None:
    """Airflow 3.3 deletes no run that goes on."""
    try:
        api.delete_run(DAG_ID, run_id)
    except ApiError as error:
        if error.status >= 500:
            raise
        api.set_run_state(DAG_ID, run_id, "failed")
        api.delete_run(DAG_ID, run_id)


#: what a user can do to a deferred task, and with its run
KILLS: dict[str, Callable[[AirflowApi, str], None]] = {
    "marked failed": lambda api, run_id: api.set_task_state(DAG_ID, run_id, TASK_ID, "failed"),
    "marked success": lambda api, run_id: api.set_task_state(DAG_ID, run_id, TASK_ID, "success"),
    "cleared": lambda api, run_id: api.clear(DAG_ID, run_id, [TASK_ID]),
    "run deleted": _delete,
}


@dataclass
class Killed:
    """One task, what was done to it, and what came of it."""

    seconds: float
    how: str
    server: SimulatorThread
    run_id: str = ""
    job_id: str = ""
    killed_at: float = 0.0
    cancelled_after: float | None = None
    line: str = ""

    @property
    def conn_id(self) -> str:
        return f"tagger_{self.seconds:g}_{self.how.replace(' ', '_')}"

    @property
    def status(self) -> str:
        return self.server.simulator.tagger.jobs[self.job_id].status

    @property
    def asked(self) -> int:
        return self.server.simulator.count("tagger", f"/jobs/{self.job_id}/cancel", "POST")

    @property
    def good(self) -> bool:
        return bool(self.status == "cancelled" and self.asked == 1 and self.line)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.kills", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[6.0, 25.0], help="of a document")
    options = parser.parse_args(arguments)
    say = Clock()
    with contextlib.ExitStack() as servers:
        tasks = []
        for seconds in options.seconds:
            for how in KILLS:
                server = servers.enter_context(SimulatorThread(dialect="observed"))
                server.simulator.tagger.script.seconds = OPEN
                server.simulator.tagger.faults.block = seconds
                tasks.append(Killed(seconds, how, server))
        connections = {task.conn_id: task.server.connections()["tagger_default"] for task in tasks}
        with AirflowStack(DAGS, connections=connections) as stack:
            stack.api.wait_for_dag(DAG_ID)
            say(f"Airflow is up, {len(tasks)} tasks start")
            for task in tasks:
                task.run_id = stack.api.trigger(DAG_ID, {"conn_id": task.conn_id})
            with ThreadPoolExecutor(len(tasks)) as pool:
                for task in pool.map(lambda task: _kill(stack, task, say), tasks):
                    say(f"{task.seconds:g} s, {task.how}: {task.status}, {task.line or 'no line'}")
    return _report(tasks)


def _kill(stack: AirflowStack, task: Killed, say: Callable[[str], None]) -> Killed:
    """Kill the task in the middle of a document, and see for how long it takes what."""
    stack.api.wait_for_task(DAG_ID, task.run_id, TASK_ID, {"deferred"}, timeout=180)
    give_up = time.monotonic() + 60
    while not list(_logs(stack, task, ".trigger*")) and time.monotonic() < give_up:
        time.sleep(0.2)
    time.sleep(BEGINS)
    task.job_id = str(stack.api.xcom(DAG_ID, task.run_id, TASK_ID, "job_id"))
    say(f"{task.seconds:g} s: {task.how}, with {_done(task)} documents done")
    with _one_user:
        _until_taken(lambda: KILLS[task.how](stack.api, task.run_id))
    task.killed_at = time.monotonic()
    give_up = time.monotonic() + 2 * task.seconds + 45
    while time.monotonic() < give_up and not (task.cancelled_after and task.line):
        if task.status == "cancelled" and task.cancelled_after is None:
            task.cancelled_after = time.monotonic() - task.killed_at
        task.line = _line(stack, task)
        time.sleep(0.5)
    return task


def _until_taken(act: Callable[[], None]) -> None:
    """SQLite locks under eight tasks; Airflow's API then answers 500, and a user tries again."""
    for _ in range(20):
        try:
            return act()
        except ApiError as error:
            if error.status < 500:
                raise
        time.sleep(0.5)
    return act()


def _done(task: Killed) -> int:
    return len(task.server.simulator.tagger.jobs[task.job_id].results)


def _logs(stack: AirflowStack, task: Killed, more: str = "*") -> Iterable[Path]:
    folder = stack.home / "logs" / f"dag_id={DAG_ID}" / f"run_id={task.run_id}"
    return folder.rglob(f"attempt=1.log{more}")


def _line(stack: AirflowStack, task: Killed) -> str:
    """What the log's files say: Airflow gives none of a run that is deleted."""
    for path in _logs(stack, task):
        for line in path.read_text(errors="replace").splitlines():
            if "the task was killed" in line:
                return line
    return ""


def _report(tasks: Sequence[Killed]) -> int:
    print(f"\n{'document':>8}  {'what':14} {'batch':10} {'asked':>5} {'after':>7}  line in the task's log")
    for task in tasks:
        after = "-" if task.cancelled_after is None else f"{task.cancelled_after:.0f} s"
        words = task.line.partition("the task was killed")[2].partition('"')[0]
        print(
            f"{task.seconds:6g} s  {task.how:14} {task.status:10} {task.asked:5} {after:>7}  "
            f"{'the task was killed' + words if task.line else '-'}"
        )
    return 0 if all(task.good for task in tasks) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as error:
        sys.exit(f"FAILED: {error}")
