# SPDX-License-Identifier: Apache-2.0
"""Thousands of deferred tasks in a real triggerer: `python -m benchmarks.many [N]`.

Ours, and ours with ``do_xcom_push=False`` (quiet), beside triggers that do nothing, by turns, each time on a fresh
Airflow: memory and CPU of the triggerer while all wait, how often its loop was reported blocked, and how fast a burst
of N ends becomes N successes; if one of them does not, there is no figure. Workers defer the first tasks; the others'
rows are copies of theirs (`benchmarks.deferred`), for workers would need ten minutes to write them. With
``--beside PYTHON``, the interpreter of another environment, two Airflows are measured in one run, by turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from tools.stack import AirflowStack

DAGS = Path(__file__).parent / "dags_many"
REPOSITORY = Path(__file__).parent.parent
#: waits that are there before memory is measured
FIRST = 40
#: seconds for which a triggerer that only waits keeps its CPU below this part of one core
CALM = 10.0
WHO = ("idle", "ours", "quiet")
CALM_CPU = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30, help="how long the CPU of waiting is watched")
    parser.add_argument("--beside", metavar="PYTHON", action="append", default=[], help="another Airflow's")
    parser.add_argument("--only", choices=WHO, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.n, options.seconds)))
        return 0
    print(f"{options.n} deferred tasks in one triggerer")
    print(f"{'':14} {'KiB/wait':>9} {'CPU %':>6} {'blocked':>8} {'ends/s':>7} {'p50 s':>6} {'last s':>7}")
    pythons = {airflow_of(python): python for python in (sys.executable, *options.beside)}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        release: {who: [] for who in WHO} for release in pythons
    }
    for _ in range(options.rounds):
        for who in WHO:
            for release, python in pythons.items():
                found[release][who].append(measured(python, who, options.n, options.seconds))
                show(release, who, found[release][who][-1])
    print("medians")
    for release, kinds in found.items():
        middle = {
            who: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            for who, rows in kinds.items()
        }
        for who, row in middle.items():
            show(release, who, row)
        for who in ("ours", "quiet"):
            share = middle[who]["rate"] / middle["idle"]["rate"]
            print(f"{release} {who}: {share:.0%} of the ends a second of triggers that do nothing")
    print(json.dumps(found))
    return 0


def airflow_of(python: str) -> str:
    code = "import airflow; print(airflow.__version__)"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return told.stdout.split()[-1]


def measured(python: str, who: str, n: int, seconds: float) -> dict[str, Any]:
    command = [python, "-m", "benchmarks.many", str(n), "--only", who, "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(release: str, who: str, row: dict[str, Any]) -> None:
    print(
        f"{release:8} {who:5} {row['kib_per_wait']:>9.1f} {row['cpu']:>6.2f} {row['blocked']:>8.0f} {row['rate']:>7.0f} "
        f"{row['p50']:>6.1f} {row['last']:>7.1f}",
        flush=True,
    )


def measure(who: str, n: int, seconds: float) -> dict[str, Any]:
    service = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.service"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert service.stdout is not None
        rest, push = json.loads(service.stdout.readline())
        described = {
            "conn_type": "areal",
            "host": f"http://127.0.0.1:{rest}",
            "password": "a-key",
            "extra": {"ws_url": f"ws://127.0.0.1:{push}/"},
        }
        over = DAGS / "over.tmp"
        over.unlink(missing_ok=True)
        env = {
            "MANY": str(n),
            "FIRST": str(FIRST),
            "OVER": str(over),
            "PYTHONPATH": str(REPOSITORY),
            "AIRFLOW__TRIGGERER__CAPACITY": "20000",
        }
        with AirflowStack(DAGS, connections={"bench": described}, env=env) as stack:
            stack.api.wait_for_dag(who)
            triggerer = psutil.Process(stack._processes["triggerer"].pid)
            wait_for(stack, f"{who}_first", stack.api.trigger(f"{who}_first"), "deferred", FIRST, 120)
            calm_down(triggerer)
            stack.airflow("pools", "set", "default_pool", "0", "no task may run")
            stack.api.set_paused(who, False)
            run_id = stack.api.trigger(who)
            wait_for(stack, who, run_id, "scheduled", n, 300)
            before = resident(triggerer)
            copying = [sys.executable, "-m", "benchmarks.deferred", f"{who}_first", who]
            subprocess.run(copying, env=stack.env, check=True, capture_output=True)
            wait_for(stack, who, run_id, "deferred", n, 300)
            calm_down(triggerer)
            found = {"kib_per_wait": (resident(triggerer) - before) / n / 1024}
            cpu = busy(triggerer)
            time.sleep(seconds)
            found["cpu"] = (busy(triggerer) - cpu) / seconds * 100
            ended_at = time.time()
            over.touch()
            url = f"http://127.0.0.1:{rest}/bench/end?n={n}&rate=1000000"
            urllib.request.urlopen(urllib.request.Request(url, method="POST")).read()
            wait_for(stack, who, run_id, "success", n, 300)
            ends = sorted(
                datetime.fromisoformat(instance["end_date"]).timestamp() - ended_at
                for instance in stack.api.task_instances(who, run_id)
            )
            found |= {"p50": ends[len(ends) // 2], "last": ends[-1], "rate": n / ends[-1]}
            found["blocked"] = stack.log_path("triggerer").read_text().count("async thread was blocked")
            return found
    finally:
        service.kill()
        service.wait()
        over.unlink(missing_ok=True)


def wait_for(stack: AirflowStack, dag_id: str, run_id: str, state: str, count: int, within: float) -> None:
    path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
    deadline = time.monotonic() + within
    while (there := stack.api.get(path, state=state, limit=1)["total_entries"]) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {there} of {count} tasks came to be {state}")
        print(f"\r  {dag_id}: {there} of {count} {state}  ", end="", file=sys.stderr, flush=True)
        time.sleep(1)
    print(file=sys.stderr)


def calm_down(triggerer: psutil.Process) -> None:
    """Until all that begins with the waits is done: their first reads, and the XComs of their progress."""
    before, deadline = float("-inf"), time.monotonic() + 600
    while busy(triggerer) - before > CALM * CALM_CPU:
        if time.monotonic() > deadline:
            raise SystemExit("the triggerer does not come to rest")
        before = busy(triggerer)
        time.sleep(CALM)


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def resident(process: psutil.Process) -> int:
    return sum(each.memory_info().rss for each in family(process))


def busy(process: psutil.Process) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in family(process))


if __name__ == "__main__":
    raise SystemExit(main())
