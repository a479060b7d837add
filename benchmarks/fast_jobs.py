# SPDX-License-Identifier: Apache-2.0
"""Short jobs on a real Airflow with its default configuration: `python -m benchmarks.fast_jobs`.

Jobs of 0.3 to 6 s, sensors and operators of all services, ended from the trigger and resumed on a worker. A
task that resumes within about 5 s of its deferral is sometimes failed by the scheduler; none of these may be.
Prints the failures, and the seconds from the remote job's end to the task's success: under load (all tasks at
once, eight workers on all cores) and calm (two tasks at a time).
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_status_provider.simulator import SimulatorThread
from tools.stack import AirflowStack

DAGS = Path(__file__).parent / "dags"
SERVICES = ("areal", "tagger", "organizer", "haidy")


class Ends(threading.Thread):
    """Notes when each simulated job ended, and lets every new job have its own length."""

    def __init__(self, simulated: SimulatorThread) -> None:
        super().__init__(daemon=True)
        self.at: dict[str, float] = {}
        self.stopped = threading.Event()
        self._services = [getattr(simulated.simulator, name) for name in SERVICES]

    def run(self) -> None:
        while not self.stopped.wait(0.01):
            for service in self._services:
                service.script.seconds = random.uniform(0.3, 6.0)
                for job_id, job in list(service.jobs.items()):
                    if job.done and job_id not in self.at:
                        self.at[job_id] = time.time()
                        if session := getattr(job, "session_id", None):
                            self.at[session] = time.time()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=13, help="tasks of each of the 16 kinds, under load")
    parser.add_argument("--calm", type=int, default=3, help="tasks of each of the 16 kinds, two at a time")
    parser.add_argument("--dialect", default="observed")
    parser.add_argument("--timeout", type=float, default=900)
    options = parser.parse_args()
    with SimulatorThread(dialect=options.dialect) as simulated:
        ends = Ends(simulated)
        ends.start()
        env = {"FAST_JOBS_EACH": str(options.each), "CALM_JOBS_EACH": str(options.calm)}
        with AirflowStack(DAGS, connections=simulated.connections(auth="login"), env=env) as stack:
            good = [run(stack, dag_id, options.timeout, ends) for dag_id in ("fast_jobs", "calm_jobs")]
        ends.stopped.set()
    return 0 if all(good) else 1


def run(stack: AirflowStack, dag_id: str, timeout: float, ends: Ends) -> bool:
    stack.api.wait_for_dag(dag_id)
    stack.api.set_paused(dag_id, False)
    began = time.monotonic()
    run_id = stack.api.trigger(dag_id)
    state = stack.api.wait(dag_id, run_id, timeout=timeout)
    print(f"\n{dag_id}: {state} after {time.monotonic() - began:.0f} s")
    report(stack, dag_id, run_id, ends)
    return state == "success"


def report(stack: AirflowStack, dag_id: str, run_id: str, ends: Ends) -> None:
    instances = stack.api.task_instances(dag_id, run_id)
    print(dict(Counter(instance["state"] for instance in instances)), "of", len(instances))
    late: dict[str, list[float]] = defaultdict(list)
    for instance in instances:
        task_id, index = instance["task_id"], instance["map_index"]
        if instance["state"] != "success":
            print("FAILED", task_id, index)
            print(stack.api.log(dag_id, run_id, task_id, map_index=index)[-2000:])
            continue
        job_id = stack.api.xcom(dag_id, run_id, task_id, "job_id", index)
        result: dict[str, Any] = stack.api.xcom(dag_id, run_id, task_id, map_index=index) or {}
        if job_id in ends.at and result.get("wait", {}).get("how") != "first check":
            ended = datetime.fromisoformat(instance["end_date"]).astimezone(UTC).timestamp()
            kind = "sensor" if "Sensor" in task_id else "operator"
            late[f"{kind}, {task_id.split('_', 1)[1].replace('_', ' ')}"].append(ended - ends.at[job_id])
    print(f"\n{'seconds from the job`s end to success':42} {'n':>4} {'median':>7} {'p95':>7}")
    for name, values in sorted(late.items()):
        values.sort()
        p95 = values[min(len(values) - 1, int(len(values) * 0.95))]
        print(f"{name:42} {len(values):>4} {statistics.median(values):>7.2f} {p95:>7.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
