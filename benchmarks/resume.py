# SPDX-License-Identifier: Apache-2.0
"""Whether a task may resume as soon as it has deferred: `python -m benchmarks.resume [N]`.

N tasks defer with a trigger that fires at once, on a real Airflow with its default configuration, and need no
service. Before Airflow 3.4 the scheduler fails some of them: their worker's report of the deferral arrives when they
are queued or run again, which they do for up to 6 s. With ``--celery`` they run on two Celery workers and two triggerers, with PostgreSQL and Redis
(`tools.cluster`). The exit code is 0 only if none failed.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from airflow import __version__

from tools.cluster import WORKER_SLOTS, celery, components
from tools.stack import AirflowStack

DAGS = Path(__file__).parent / "dags_resume"
REPOSITORY = Path(__file__).parent.parent
DAG_ID = "resume"
#: tasks a second at the very least
SLOWEST = 0.3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=1000)
    parser.add_argument("--celery", action="store_true")
    options = parser.parse_args()
    with airflow(options.n, options.celery) as stack:
        stack.api.wait_for_dag(DAG_ID)
        began = time.monotonic()
        run_id = stack.api.trigger(DAG_ID)
        stack.api.wait(DAG_ID, run_id, timeout=60 + options.n / SLOWEST)
        took = time.monotonic() - began
        states = Counter(str(each["state"]) for each in stack.api.task_instances(DAG_ID, run_id))
        mismatches = len(stack.api.get("/eventLogs", event="state mismatch", limit=100)["event_logs"])
    failed = options.n - states["success"]
    where = "Celery, PostgreSQL" if options.celery else "LocalExecutor, SQLite"
    print(
        f"Airflow {__version__}, {where}: {failed} of {options.n} tasks failed, in {took:.0f} s: {dict(states)}"
    )
    print(f"the scheduler noted {mismatches} of them as state mismatches")
    return 1 if failed else 0


@contextlib.contextmanager
def airflow(n: int, on_celery: bool) -> Iterator[AirflowStack]:
    env = {"MANY": str(n), "PYTHONPATH": str(REPOSITORY), "AIRFLOW__CORE__MAX_MAP_LENGTH": str(n)}
    if not on_celery:
        with AirflowStack(DAGS, env=env) as stack:
            yield stack
        return
    with contextlib.ExitStack() as running:
        settings, _, _ = celery(running)
        made = AirflowStack(DAGS, env=settings | env, parallelism=2 * WORKER_SLOTS, components=components())
        made.start(timeout=300)
        running.callback(made.stop)
        yield made


if __name__ == "__main__":
    raise SystemExit(main())
