# SPDX-License-Identifier: Apache-2.0
"""How long a wait holds a worker: `python -m benchmarks.workers`.

The same sensor waits for the same kind of job in every way that there is; a worker's slot is held while Airflow
says that the task is running.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import uuid
from collections import defaultdict
from pathlib import Path

from airflow_status_provider.simulator import SimulatorThread
from benchmarks.dags_workers.workers import WAYS
from tools.demo import failures
from tools.stack import AirflowStack

DAGS = Path(__file__).parent / "dags_workers"
DAG_ID = "workers"
SAMPLE = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=6, help="waits of each way")
    parser.add_argument("--seconds", type=float, default=60, help="how long each job takes")
    options = parser.parse_args()
    with SimulatorThread() as simulated:
        jobs = {way: [str(uuid.uuid4()) for _ in range(options.each)] for way in WAYS}

        def start() -> None:
            for job_id in itertools.chain.from_iterable(jobs.values()):
                simulated.simulator.areal.add(job_id, seconds=options.seconds)

        env = {
            "JOBS": json.dumps(jobs),
            "AIRFLOW__CORE__PARALLELISM": str(2 * options.each + 4),
        }
        with AirflowStack(DAGS, connections=simulated.connections(), env=env) as stack:
            stack.api.wait_for_dag(DAG_ID)
            stack.api.set_paused(DAG_ID, False)
            simulated.call(start)
            run_id = stack.api.trigger(DAG_ID)
            held = watch(stack, run_id)
            state = stack.api.run_state(DAG_ID, run_id)
            for failure in failures(stack.api):
                print(failure)
    print(f"\n{options.each} waits of each way for jobs of {options.seconds:.0f} s: {state}")
    print(f"{'':20} {'worker-seconds a wait':>22}")
    for way in WAYS:
        print(f"{way:20} {held[way] / options.each:>22.2f}")
    return 0 if state == "success" else 1


def watch(stack: AirflowStack, run_id: str) -> dict[str, float]:
    """Worker-seconds by way, until the run has ended."""
    held: dict[str, float] = defaultdict(float)
    since = time.monotonic()
    while stack.api.run_state(DAG_ID, run_id) in ("queued", "running"):
        running = [
            instance["task_id"].partition("-")[0]
            for instance in stack.api.task_instances(DAG_ID, run_id)
            if instance["state"] == "running"
        ]
        now = time.monotonic()
        for way in running:
            held[way] += now - since
        since = now
        time.sleep(SAMPLE)
    return held


if __name__ == "__main__":
    raise SystemExit(main())
