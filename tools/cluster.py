# SPDX-License-Identifier: Apache-2.0
"""Airflow as it is on several machines: `python -m tools.cluster`, or `make demo-cluster`.

PostgreSQL, Redis as the broker of two Celery workers, two triggerers, and the other three services, each a
process of its own on loopback. It runs the example DAGs, then many waits at a time, and says which triggerer
carried what. With --failover it kills and restarts parts under many waits instead, and says how long each
loss was felt. The exit code is 0 only if all ended well, and 2 if PostgreSQL or Redis is missing.

POSTGRES_URL and REDIS_URL name servers to use, in a database and under keys that are removed at the end;
otherwise private ones are started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.areal import Areal
from tools.demo import (
    DAGS,
    HEADINGS,
    JOB_SECONDS,
    PUSH_SECONDS,
    SERVICES,
    Clock,
    DemoError,
    failures,
    guarded,
    row,
    run_all,
    table,
    wait_for_dags,
)
from tools.engines import EngineError, PostgreSQL, Redis, scratch_database, scratch_keys
from tools.stack import COMPONENTS, AirflowStack, ApiError, hostname

REPOSITORY = Path(__file__).resolve().parent.parent
WAITS_DAG = "waits"
WORKER_SLOTS = 4
WORKER = ("celery", "worker", "--skip-serve-logs")
ENDLESS = 1e6
SAY_EVERY = 30.0
SWITCHED = 101
"""The status of an accepted socket."""

MISSING = 2
"""The exit code where PostgreSQL or Redis is missing."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description="Run a cluster of Airflow.")
    parser.add_argument("--waits", type=int, metavar="N", help="waits at a time (2000; with --failover 1000)")
    parser.add_argument("--failover", action="store_true", help="kill and restart parts under the waits")
    parser.add_argument(
        "--home", type=Path, metavar="DIR", help="Airflow's home, kept afterwards with all its logs"
    )
    options = parser.parse_args(arguments)

    def work() -> int:
        if options.failover:
            from tools.failover import failover

            return failover(options.waits or 1000, home=options.home)
        return demo(options.waits or 2000, home=options.home)

    try:
        return guarded(work)
    except EngineError as error:
        print(f"error: {error}; or give POSTGRES_URL and REDIS_URL", file=sys.stderr)
        return MISSING


@dataclass
class Cluster:
    """What runs. Servers that somebody else runs are None."""

    stack: AirflowStack
    simulator: SimulatorThread
    database: PostgreSQL | None
    broker: Redis | None

    restarted: Counter[str] = field(default_factory=Counter)

    @property
    def areal(self) -> Areal:
        return self.simulator.simulator.areal

    @property
    def sockets(self) -> int:
        """How many the services have accepted so far."""
        return sum(seen.status == SWITCHED for seen in self.simulator.simulator.requests)

    def tend(self) -> None:
        """Start again what has died."""
        for name in self.stack.components:
            if not self.stack.is_running(name):
                self.restarted[name] += 1
                self.stack.spawn(name)


def celery(running: ExitStack) -> tuple[dict[str, str], PostgreSQL | None, Redis | None]:
    """The settings of an Airflow with PostgreSQL and Celery, and the servers that were started for it until
    the end of ``running``: none where somebody else's are used."""
    database_url, broker_url = os.environ.get("POSTGRES_URL", ""), os.environ.get("REDIS_URL", "")
    # both are looked for before one is started
    database = None if database_url else PostgreSQL()
    broker = None if broker_url else Redis()
    prefix = ""
    if database:
        database_url = running.enter_context(database).url
    else:
        database_url = running.enter_context(scratch_database(database_url))
    if broker:
        broker_url = running.enter_context(broker).url
    else:
        prefix = running.enter_context(scratch_keys(broker_url))
    settings = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url.replace("postgresql:", "postgresql+psycopg2:"),
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": broker_url,
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__GLOBAL_KEYPREFIX": prefix,
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(WORKER_SLOTS),
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{hostname.__module__}.{hostname.__name__}",
        "PYTHONPATH": str(REPOSITORY),
        "C_FORCE_ROOT": "1",
    }
    return settings, database, broker


@contextlib.contextmanager
def cluster(
    say: Clock, *, home: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A running cluster, with the simulator behind its connections."""
    with ExitStack() as running:
        settings, database, broker = celery(running)
        say("PostgreSQL and Redis are up")
        simulator = running.enter_context(SimulatorThread())
        bundle = "airflow.dag_processing.bundles.local.LocalDagBundle"
        folders = {"dags-folder": {}, "cluster": {"path": str(Path(__file__).parent / "dags_cluster")}}
        settings |= {
            "AIRFLOW__CORE__MAX_MAP_LENGTH": "100000",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
                [{"name": name, "classpath": bundle, "kwargs": given} for name, given in folders.items()]
            ),
        }
        stack = AirflowStack(
            DAGS,
            connections=simulator.connections(),
            env=settings | dict(env or {}),
            home=home,
            parallelism=2 * WORKER_SLOTS,
            components=components(),
        )
        say("starting Airflow, which takes a minute")
        stack.start(timeout=300)
        running.callback(stack.stop)
        say(f"Airflow is up at {stack.url}: {', '.join(stack.components)}")
        yield Cluster(stack, simulator, database, broker)
        say("stopping")


def components() -> dict[str, tuple[str, ...]]:
    """Airflow's services on several machines: two workers and two triggerers."""
    workers = {
        f"worker-{n}": (*WORKER, "--celery-hostname", f"worker-{n}", "--pid", f"worker-{n}.pid")
        for n in (1, 2)
    }
    triggerers = {f"triggerer-{n}": COMPONENTS["triggerer"] for n in (1, 2)}
    others = {name: command for name, command in COMPONENTS.items() if name != "triggerer"}
    return others | workers | triggerers


def demo(waits: int, *, home: Path | None = None) -> int:
    """The example DAGs, then so many waits at a time; 0 if all ended well."""
    say = Clock()
    # Airflow fills one triggerer before it uses the next
    capacity = {"AIRFLOW__TRIGGERER__CAPACITY": str(max(20, waits * 6 // 10))}
    with cluster(say, home=home, env=capacity) as running:
        stack, api = running.stack, running.stack.api
        for service in SERVICES:
            getattr(running.simulator.simulator, service.lower()).script.seconds = JOB_SECONDS
        running.areal.script.push_every = PUSH_SECONDS
        dags = wait_for_dags(stack, DAGS)
        del dags[WAITS_DAG]
        instances, succeeded = run_all(stack, dags, 600, say)
        carriers = carried(stack)
        rows = [(*astuple(row(api, each)), " ".join(carriers.get(place(each), ["-"]))) for each in instances]
        print("", *table([(*astuple(HEADINGS), "triggerer"), *rows]), "", sep="\n", flush=True)
        for reason in failures(api):
            print(reason)

        running.areal.script.push_every = None
        sockets = running.sockets
        held = Waits(running, say)
        held.begin(waits)
        held.until(lambda: held.all_are("deferred"), 120 + 5 * waits)
        say(f"{waits} waits wait")
        began = time.monotonic()
        held.end()
        held.until(lambda: held.all_are("success"), 120 + waits)
        took = time.monotonic() - began
        carriers = carried(stack)
        last = Counter(carriers[place(each)][-1] for each in held.instances())
        shares = [(name, str(count), f"{count / waits:.0%}") for name, count in sorted(last.items())]
        print("", *table([("triggerer", "waits", "share"), *shares]), "", sep="\n")
        opened = running.sockets - sockets
        say(f"{waits} waits over {opened} more sockets; all had ended {took:.1f} s after their jobs")
        wrongs = [*held.wrongs(), *(f"{name} died" for name in running.restarted)]
        for wrong in wrongs:
            print(wrong)
    return 0 if succeeded and len(last) == 2 and not wrongs else 1


class Waits:
    """Jobs that do not end by themselves, each started by a task that waits for it."""

    def __init__(self, running: Cluster, say: Clock) -> None:
        self._running = running
        self._say = say
        self._progress = ""
        self._api = running.stack.api
        self._known = len(running.areal.starts)
        self._before = self._known
        self.wanted = 0
        running.areal.script.seconds = ENDLESS

    def begin(self, waits: int) -> None:
        """So many more."""
        self.wanted += waits
        self._before = len(self._running.areal.starts)
        self._api.trigger(WAITS_DAG, {"waits": waits})

    def is_beginning(self) -> bool:
        """Whether a job of the newest waits has started; to see its task run takes luck on a fast machine."""
        return len(self._running.areal.starts) > self._before

    def all_are(self, state: str) -> bool:
        path = f"/dags/{WAITS_DAG}/dagRuns/~/taskInstances"
        there = self._api.get(path, state=state, task_id="wait", limit=1)["total_entries"]
        self._progress = f"{there} of {self.wanted} waits are {state}"
        return bool(there == self.wanted)

    def all_carried(self, since: datetime) -> bool:
        """All wait, and with a triggerer that gave a sign of life after that moment."""
        if not self.all_are("deferred"):
            return False
        jobs = [each["triggerer_job"] for each in self.instances()]
        return all(job and datetime.fromisoformat(job["latest_heartbeat"]) > since for job in jobs)

    def instances(self) -> list[dict[str, Any]]:
        found = self._api.task_instances(WAITS_DAG, "~")
        return [instance for instance in found if instance["task_id"] == "wait"]

    def end(self) -> None:
        """End all jobs now."""
        areal = self._running.areal

        def end() -> None:
            for job_id in areal.starts[self._known :]:
                areal.end(job_id)

        self._running.simulator.call(end)

    def until(self, condition: Callable[[], bool], within: float, *, every: float = 1.0) -> None:
        """Wait, and start again what dies meanwhile, as a service manager does; ``every`` is in seconds."""
        deadline = time.monotonic() + within
        said, said_at = "", time.monotonic()
        while True:
            self._running.tend()
            if time.monotonic() > said_at + SAY_EVERY and said != self._progress:
                said, said_at = self._progress, time.monotonic()
                self._say(said)
            # the API may be away, or its database
            with contextlib.suppress(httpx.TransportError, ApiError):
                if condition():
                    return
                if time.monotonic() > deadline:
                    states = Counter(str(each["state"]) for each in self.instances())
                    raise DemoError(f"of {self.wanted} waits after {within:g} s: {dict(states)}")
            time.sleep(every)

    def wrongs(self) -> Iterator[str]:
        """What is not as it should be: each task succeeded with a job of its own, and each job has a task."""
        known = Counter(self._running.areal.starts[self._known :])
        for job_id, starts in known.items():
            if starts > 1:
                yield f"{job_id} was started {starts} times"
        for each in self.instances():
            where = (each["dag_id"], each["dag_run_id"], each["task_id"])
            result = self._api.xcom(*where, map_index=each["map_index"]) or {"documents": []}
            if each["state"] != "success" or len(result["documents"]) != 1:
                yield f"wait {each['map_index']} is {each['state']} with {len(result['documents'])} documents"
            known -= Counter(document["id"] for document in result["documents"])
        if left := +known:
            yield f"{len(left)} jobs have no task that succeeded with them"


def place(instance: Mapping[str, Any]) -> str:
    """Where the logs of a task are, below the folder of all logs."""
    path = f"dag_id={instance['dag_id']}/run_id={instance['dag_run_id']}/task_id={instance['task_id']}"
    return path if instance["map_index"] < 0 else f"{path}/map_index={instance['map_index']}"


def carried(stack: AirflowStack) -> dict[str, list[str]]:
    """The triggerers that carried each task, in their order: each writes a log of its own."""
    names = {str(job["id"]): job["hostname"] for job in stack.api.jobs("TriggererJob")}
    logs = stack.home / "logs"
    found: dict[str, list[str]] = {}
    for path in sorted(logs.rglob("*.log.trigger.*.log"), key=lambda path: path.stat().st_mtime):
        job = re.findall(r"\.trigger\.(\d+)\.log$", path.name)[0]
        found.setdefault(path.parent.relative_to(logs).as_posix(), []).append(names[job])
    return found


if __name__ == "__main__":
    sys.exit(main())
