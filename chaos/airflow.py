# SPDX-License-Identifier: Apache-2.0
"""``python -m chaos.airflow``: what Airflow itself can do to 200 waits, on a real Airflow.

Two triggerers carry waits for jobs of all four services. One is killed and started again, one is stopped and
started again, one is halted until the other has taken its triggers over, and then goes on; the scheduler is
killed; the API server is away for a minute, in which half of the jobs end. Then the other half ends. The exit
code is 0 only if each task succeeded in its first try, each job was started once and none was cancelled, and
if no credential stands in any file that Airflow wrote, its database included, or in a process's arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.tokens import Pair, Tokens
from tools import reaper
from tools.demo import Clock, table
from tools.stack import COMPONENTS, AirflowStack, ApiError, hostname

REPOSITORY = Path(__file__).resolve().parent.parent
DAGS = Path(__file__).parent / "dags_airflow"
DAG_ID = "many"
SERVICES = ("areal", "tagger", "organizer", "haidy")
ENDLESS = 1e6
#: seconds without a sign of life after which Airflow gives a triggerer up
THRESHOLD = 15
PATIENCE = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.airflow", description=__doc__)
    parser.add_argument("--waits", type=int, default=200, help="in all (default: %(default)s)")
    parser.add_argument("--away", type=float, default=60, help="seconds without an API server")
    options = parser.parse_args()
    each = options.waits // len(SERVICES)
    secrets = _overheard()
    env = {
        "EACH": str(each),
        "PYTHONPATH": str(REPOSITORY),
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{hostname.__module__}.{hostname.__name__}",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(THRESHOLD),
    }
    components = {name: command for name, command in COMPONENTS.items() if name != "triggerer"}
    components |= {f"triggerer-{number}": COMPONENTS["triggerer"] for number in (1, 2)}
    say = Clock()
    with SimulatorThread() as simulated:
        connections = simulated.connections(auth="login")
        secrets |= {str(each["password"]) for each in connections.values()}
        stack = AirflowStack(DAGS, connections=connections, env=env, components=components)
        with stack:
            say(f"Airflow is up at {stack.url}")
            run = Run(stack, simulated, each)
            felt = [("what happened", "seconds until all went on")]
            for what, lose in run.losses(options.away):
                began, since = time.monotonic(), datetime.now(UTC)
                lose()
                run.until(lambda since=since: run.all_go_on(since), PATIENCE, what)  # type: ignore[misc]
                felt.append((what, f"{time.monotonic() - began:.0f}"))
                say(f"{what}: all went on after {felt[-1][1]} s")
            run.end(everything=True)
            run.until(lambda: stack.api.run_state(DAG_ID, run.run_id) != "running", PATIENCE, "the end")
            wrongs = [*run.wrongs(), *_seen(stack, secrets)]
    print("", *table(felt), "", sep="\n")
    print(
        *wrongs or [f"{4 * each} waits: each ended once and well; {len(secrets)} secrets, seen nowhere"],
        sep="\n",
    )
    return 1 if wrongs else 0


class Run:
    """The DAG run with all waits, and what is done to it."""

    def __init__(self, stack: AirflowStack, simulated: SimulatorThread, each: int) -> None:
        self._stack = stack
        self._simulated = simulated
        self._each = each
        self._ended = 0
        self._services: dict[str, Any] = {name: getattr(simulated.simulator, name) for name in SERVICES}
        for service in self._services.values():
            simulated.call(setattr, service.script, "seconds", ENDLESS)
        stack.api.wait_for_dag(DAG_ID)
        self.run_id = stack.api.trigger(DAG_ID)

    def losses(self, away: float) -> Iterator[tuple[str, Callable[[], None]]]:
        stack = self._stack

        def killed() -> None:
            stack.kill("triggerer-1")
            stack.start_component("triggerer-1")

        def stopped() -> None:
            stack.stop_component("triggerer-2")
            stack.start_component("triggerer-2")

        def halted() -> None:
            stack.halt("triggerer-1")
            self.until(taken_over, PATIENCE, "the other triggerer to take over")
            stack.go_on("triggerer-1")

        def taken_over() -> bool:
            jobs = [each["triggerer_job"] for each in self._waiting()]
            return bool(jobs) and all(job and job["hostname"] != "triggerer-1" for job in jobs)

        def scheduler() -> None:
            stack.kill("scheduler")
            stack.start_component("scheduler")

        def api_server() -> None:
            stack.kill("api-server")
            self.end(everything=False)
            time.sleep(away)
            stack.start_component("api-server")

        yield "nothing: the tasks defer", lambda: None
        yield "a triggerer killed with -9, and started", killed
        yield "a triggerer stopped, and started", stopped
        yield "a triggerer halted, taken over from, and going on", halted
        yield "the scheduler killed with -9, and started", scheduler
        yield f"no API server for {away:.0f} s, while half of the jobs end", api_server

    def end(self, *, everything: bool) -> None:
        """End all jobs now, or half of each service's."""

        def end() -> None:
            for service in self._services.values():
                for job_id in service.starts[: None if everything else self._each // 2]:
                    if not service.jobs[job_id].done:
                        service.end(job_id)

        self._simulated.call(end)
        self._ended = self._each if everything else self._each // 2

    def all_go_on(self, since: datetime) -> bool:
        """What has ended succeeded, the rest waits, with triggerers that gave a sign of life after that."""
        waiting = self._waiting()
        jobs = [each["triggerer_job"] for each in waiting]
        return (
            len(waiting) == len(SERVICES) * (self._each - self._ended)
            and self._instances("success") == len(SERVICES) * self._ended
            and all(job and datetime.fromisoformat(job["latest_heartbeat"]) > since for job in jobs)
        )

    def _waiting(self) -> list[dict[str, Any]]:
        instances = self._stack.api.task_instances(DAG_ID, self.run_id)
        return [each for each in instances if each["state"] == "deferred"]

    def _instances(self, state: str) -> int:
        path = f"/dags/{DAG_ID}/dagRuns/{self.run_id}/taskInstances"
        return int(self._stack.api.get(path, state=state, limit=1)["total_entries"])

    def until(self, condition: Callable[[], bool], within: float, what: str) -> None:
        deadline = time.monotonic() + within
        while True:
            with contextlib.suppress(httpx.TransportError, ApiError):  # the API may be away
                if condition():
                    return
            if time.monotonic() > deadline:
                states = Counter(
                    str(each["state"]) for each in self._stack.api.task_instances(DAG_ID, self.run_id)
                )
                raise SystemExit(f"{what}: not after {within:g} s; the tasks: {dict(states)}")
            time.sleep(0.5)

    def wrongs(self) -> Iterator[str]:
        for name, service in self._services.items():
            if len(service.starts) != self._each:
                yield f"{len(service.starts)} jobs were started in {name}, not {self._each}"
        if cancels := sum("cancel" in seen.path for seen in self._simulated.simulator.requests):
            yield f"{cancels} requests to cancel something"
        for each in self._stack.api.task_instances(DAG_ID, self.run_id):
            if (each["state"], each["try_number"]) != ("success", 1):
                yield f"{each['task_id']} {each['map_index']}: {each['state']}, try {each['try_number']}"


def _overheard() -> set[str]:
    """A set to which every token is added that the simulator issues from now on."""
    heard: set[str] = set()
    issue = Tokens.issue

    def issuing(self: Tokens, user: str, seconds: float, **claims: Any) -> Pair:
        pair = issue(self, user, seconds, **claims)
        heard.update(pair)
        return pair

    Tokens.issue = issuing  # type: ignore[method-assign]
    return heard


def _seen(stack: AirflowStack, secrets: set[str]) -> Iterator[str]:
    """Where one of them stands: in a file below Airflow's home, or in an argument of a process."""
    files = (Path(folder) / name for folder, _, names in os.walk(stack.home) for name in names)
    texts = {str(path): path.read_bytes() for path in files if path.is_file()}
    for process in reaper.processes_of(stack.token):
        with contextlib.suppress(psutil.Error):
            texts[f"the arguments of {process.pid}"] = "\0".join(process.cmdline()).encode()
    if not any(DAG_ID.encode() in text for text in texts.values()):
        yield "nothing was looked through"  # what Airflow wrote names its DAG
    for secret in secrets:
        yield from (f"a secret is in {where}" for where, text in texts.items() if secret.encode() in text)


if __name__ == "__main__":
    sys.exit(main())
