# SPDX-License-Identifier: Apache-2.0
"""What losing a part of a cluster costs: `python -m tools.cluster --failover`.

Under many waits a triggerer is killed, then a worker, then Redis and PostgreSQL are restarted, each while
more waits begin. A loss is over when all wait, with triggerers that live. What died is started again at once,
as a service manager does. At the end all jobs end: every wait ends once, and no job was started twice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tools.cluster import Cluster, Waits, cluster
from tools.demo import Clock, table

PATIENCE = 1500.0
"""Seconds within which each loss must be over; Airflow itself gives a lost worker's queue up after 600."""


def failover(
    waits: int, *, more: int = 20, home: Path | None = None, env: Mapping[str, str] | None = None
) -> int:
    """Break one part after the other under so many waits, while ``more`` begin each time.

    0 if every wait ended once and well.
    """
    say = Clock()
    # either triggerer must be able to carry all
    roomy = {"AIRFLOW__TRIGGERER__CAPACITY": str(2 * waits + 10 * more)}
    with cluster(say, home=home, env=roomy | dict(env or {})) as running:
        stack = running.stack
        stack.api.wait_for_dag("waits", timeout=180)
        held = Waits(running, say)
        held.begin(waits)
        held.until(lambda: held.all_are("deferred"), 120 + 5 * waits)
        say(f"{waits} waits wait")
        felt = [("lost", "seconds until all went on", "Airflow's own threshold, seconds")]
        for lost, lose, options in _losses(running, held):
            held.begin(more)
            held.until(held.is_beginning, 120, every=0.05)
            since, began = datetime.now(UTC), time.monotonic()
            lose()
            held.until(lambda since=since: held.all_carried(since), PATIENCE)  # type: ignore[misc]
            seconds = f"{time.monotonic() - began:.0f}"
            say(f"{lost}: all went on after {seconds} s")
            felt.append((lost, seconds, _thresholds(running, options)))
        held.end()
        held.until(lambda: held.all_are("success"), PATIENCE)
        say(f"all {held.wanted} waits have ended")
        print("", *table(felt), "", sep="\n")
        tries = Counter(each["try_number"] for each in held.instances())
        print(f"tries that a task needed: {dict(tries)}; started again: {dict(running.restarted)}")
        wrongs = list(held.wrongs())
        for wrong in wrongs:
            print(wrong)
    return 1 if wrongs else 0


def _losses(running: Cluster, held: Waits) -> list[tuple[str, Callable[[], None], list[tuple[str, str]]]]:
    """What is lost, how, and the settings that say when Airflow notices."""

    def triggerer() -> None:
        carriers = Counter(job["hostname"] for each in held.instances() if (job := each["triggerer_job"]))
        running.stack.kill(carriers.most_common(1)[0][0])

    losses: list[tuple[str, Callable[[], None], list[tuple[str, str]]]] = [
        ("nothing, for comparison", lambda: None, []),
        (
            "the triggerer with most waits, kill -9",
            triggerer,
            [("triggerer", "triggerer_health_check_threshold")],
        ),
        (
            "a worker, kill -9",
            lambda: running.stack.kill("worker-1"),
            [("scheduler", "task_instance_heartbeat_timeout"), ("scheduler", "task_queued_timeout")],
        ),
    ]
    if running.broker is not None:
        losses.append(("Redis, restarted", running.broker.restart, []))
    if running.database is not None:
        # if the scheduler dies of it, when its queued tasks are taken over
        orphans = [
            ("scheduler", "scheduler_health_check_threshold"),
            ("scheduler", "orphaned_tasks_check_interval"),
        ]
        losses.append(("PostgreSQL, restarted", running.database.restart, orphans))
    return losses


def _thresholds(running: Cluster, options: list[tuple[str, str]]) -> str:
    values = (running.stack.airflow("config", "get-value", *option).split()[-1] for option in options)
    return " and ".join(f"{float(value):g}" for value in values) or "-"
