# SPDX-License-Identifier: Apache-2.0
"""Requests against detection, in virtual time: `python -m benchmarks.pacing`.

A synthetic mix of jobs is polled once at a fixed interval and once as a wait really paces itself (its own
``note`` and ``next_read``, on a clock of ours): how many status reads a job costs, and how long after its end the
read comes that shows it. Lengths are log-normal around two minutes; services tell progress by items (Tagger,
Organizer), only stages (Haidy), or nothing before the end (Areal by REST); and the socket works, or not. Prints the
table; `make bench` also has it drawn, into the folder that is given then.
"""

from __future__ import annotations

import asyncio
import logging
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_status_provider.protocols import tagger
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.waiting import waiter as waiters
from airflow_status_provider.waiting.waiter import Waiter
from benchmarks import curves

JOBS = 2000
MEDIAN_LENGTH = 120.0
SPREAD = 1.0
INTERVALS = (1.0, 2.0, 5.0, 10.0, 30.0)
SHARES = {"items": 0.4, "stages": 0.2, "nothing": 0.2, "push": 0.2}


@dataclass
class Job:
    """What a read shows at a time since the start."""

    tells: str
    length: float
    marks: list[float]

    def at(self, now: float) -> tuple[str, float | None]:
        if now >= self.length:
            return "completed", 1.0
        passed = sum(mark <= now for mark in self.marks)
        if self.tells == "items":
            return "processing", passed / len(self.marks)
        return (f"stage {passed}" if self.tells == "stages" else "pending"), None


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def jobs(chance: random.Random) -> Iterator[Job]:
    kinds = chance.choices(list(SHARES), list(SHARES.values()), k=JOBS)
    for tells in kinds:
        length = chance.lognormvariate(0.0, SPREAD) * MEDIAN_LENGTH
        pieces = [chance.lognormvariate(0.0, 0.7) for _ in range({"items": 20, "stages": 8}.get(tells, 1))]
        total, at, marks = sum(pieces), 0.0, []
        for piece in pieces:
            at += piece / total * length
            marks.append(at)
        yield Job(tells, length, marks)


def fixed(job: Job, interval: float, chance: random.Random) -> tuple[int, float]:
    """The first read at once, then one each interval."""
    reads = int(job.length / interval) + 2
    return reads, (reads - 1) * interval - job.length


def adaptive(clock: Clock) -> Callable[[Job, float, random.Random], tuple[int, float]]:
    def run(job: Job, interval: float, chance: random.Random) -> tuple[int, float]:
        wait = Waiter(tagger.BATCH.tracker("j"), where="", interval=interval, deadline=None)
        push = job.tells == "push"
        clock.now, reads = 0.0, 0
        while True:
            reads += 1
            status, progress = job.at(clock.now)
            ended = clock.now >= job.length
            if ended:
                return reads, clock.now - job.length
            update = Update(
                kind="batch",
                job_id="j",
                phase=Phase.RUNNING,
                status=status,
                progress=progress,
                known_status=True,
            )
            wait.tracker.latest = update
            wait.note(update, "poll")
            pause = wait.next_read(push=push)
            if push and clock.now + pause >= job.length:
                return reads, 0.0  # the socket told
            clock.now += pause

    return run


async def measure() -> list[dict[str, Any]]:
    logging.getLogger("airflow_status_provider").setLevel(logging.WARNING)
    random.seed(1)
    clock = Clock()
    waiters.time = clock  # type: ignore[assignment, attr-defined]
    rows: list[dict[str, Any]] = []
    for interval in INTERVALS:
        results: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for name, way in (("fixed", fixed), ("ours", adaptive(clock))):
            chance = random.Random(1)
            for job in list(jobs(random.Random(2))):
                outcome = way(job, interval, chance)
                for group in (job.tells, "all"):
                    results.setdefault(group, {}).setdefault(name, []).append(outcome)
        for group, both in sorted(results.items()):
            reads = {name: statistics.fmean(one[0] for one in ones) for name, ones in both.items()}
            late = {name: statistics.median(one[1] for one in ones) for name, ones in both.items()}
            rows.append({"interval": interval, "tells": group, "reads": reads, "late": late})
    return rows


def table(rows: list[dict[str, Any]]) -> None:
    print(
        f"{JOBS} jobs, median {MEDIAN_LENGTH:.0f} s: {', '.join(f'{s:.0%} {k}' for k, s in SHARES.items())}"
    )
    print(f"{'interval':>8} {'tells':>8} {'reads/job':>18} {'ratio':>6} {'median late s':>18} {'ratio':>6}")
    for row in rows:
        reads, late = row["reads"], row["late"]
        print(
            f"{row['interval']:>8.0f} {row['tells']:>8} "
            f"{reads['fixed']:>8.1f} {reads['ours']:>9.1f} {reads['ours'] / reads['fixed']:>6.2f} "
            f"{late['fixed']:>8.2f} {late['ours']:>9.2f} {late['ours'] / late['fixed']:>6.2f}"
        )


if __name__ == "__main__":
    found = asyncio.run(measure())
    table(found)
    for folder in sys.argv[1:]:
        curves.draw_pacing(found, Path(folder))
