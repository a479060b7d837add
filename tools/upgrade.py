# SPDX-License-Identifier: Apache-2.0
"""An upgrade of Airflow under deferred tasks: `python -m tools.upgrade`, or `make test-upgrade`.

Tasks of every kind defer on an older Airflow, which is then stopped. A newer one migrates the same database,
takes the waits over, and ends them when their jobs end. The exit code is 0 only if each task succeeded in its
first try, with the result of the one job that was started for it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.demo import Clock
from tools.matrix import PRE_RELEASE, Wrong, checked, interpreter, newest, requirements
from tools.stack import AirflowStack, region

OLD = "3.3.2"
ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "upgrade"
DAGS = Path(__file__).parent / "dags_upgrade"
DAG_ID = "upgraded"
#: task instances of the DAG, by map index where they have one
EXPECTED = 7
PATIENCE = 240.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.upgrade", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--old", default=OLD, help=f"where tasks defer ({OLD})")
    parser.add_argument("--new", default=PRE_RELEASE, help="where they end (the newest, be it a pre-release)")
    parser.add_argument("--phase", choices=("defer", "end"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.phase:
        return {"defer": defer, "end": end}[options.phase]()
    say = Clock()
    try:
        return upgrade(options.old, options.new, say)
    except Wrong as error:
        say(f"FAILED: {error}")
        return 1


def upgrade(old: str, new: str, say: Callable[[str], None]) -> int:
    from airflow_status_provider.simulator import SimulatorThread

    new = newest() if new == PRE_RELEASE else new
    shutil.rmtree(WORK, ignore_errors=True)
    pythons = {}
    for version in (old, new):
        pythons[version] = _environment(version)
        say(f"Airflow {version} is installed")
    with SimulatorThread() as simulator:
        services = simulator.simulator
        for service in (services.tagger, services.areal, services.organizer, services.haidy):
            service.script.seconds = 1e6
        conf = {
            "document": simulator.call(services.areal.add),
            "jobs": [simulator.call(services.organizer.add) for _ in range(2)],
            "task": simulator.call(services.haidy.add),
        }
        given = {"connections": simulator.connections(), "conf": conf, "home": str(WORK / "home")}
        with _phase("defer", pythons[old], given) as (said, _):
            say(f"{said()['deferred']} tasks are deferred on Airflow {old}")
        started = {name: len(getattr(services, name).starts) for name in ("tagger", "organizer")}
        with _phase("end", pythons[new], given) as (said, go_on):
            say(f"{said()['deferred']} tasks are deferred on Airflow {new}, with the same database")
            for service in (services.tagger, services.areal, services.organizer, services.haidy):
                for job_id in list(service.jobs):
                    simulator.call(service.end, job_id)
            go_on()
            tasks: list[dict[str, Any]] = said()["tasks"]
        for task in tasks:
            say(f"{task['name']}: {task['state']} in try {task['try']}, {task['result']}")
        wrong = [task["name"] for task in tasks if not _right(task)]
        if {name: len(getattr(services, name).starts) for name in started} != started:
            wrong.append("a job was started a second time")
        if len(tasks) != EXPECTED or wrong:
            raise Wrong(f"{len(tasks)} of {EXPECTED} tasks; not as they should be: {wrong}")
    say(f"all {len(tasks)} tasks that were deferred on Airflow {old} ended on {new}")
    return 0


def _right(task: Mapping[str, Any]) -> bool:
    result = task["result"]
    good = isinstance(result, dict) and result.get("phase") in ("succeeded", "partial") and "wait" in result
    return task["state"] == "success" and task["try"] == 1 and good


def _environment(version: str) -> str:
    home = WORK / version
    uv = [sys.executable, "-m", "uv"]
    checked([*uv, "venv", "--quiet", "--python", interpreter("3.11"), str(home)])
    python = str(home / "bin" / "python")
    checked([*uv, "pip", "install", "--quiet", "--python", python, *requirements(version), str(ROOT)])
    return python


class _phase:  # noqa: N801 - used as a function
    """A process of another environment: it reads what is given, says lines of JSON, and waits for a line."""

    def __init__(self, name: str, python: str, given: Mapping[str, Any]) -> None:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW"))
        }
        self._name = name
        self._process = subprocess.Popen(
            [python, "-m", "tools.upgrade", "--phase", name],
            cwd=ROOT,
            env=kept | {"AIRFLOW_HOME": str(given["home"]), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._given = given

    def __enter__(self) -> tuple[Callable[[], dict[str, Any]], Callable[[], None]]:
        self._write(json.dumps(self._given))
        return self._read, lambda: self._write("")

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise Wrong(f"the phase {self._name!r} ended with {self._process.wait()}")


# -- inside an environment


def defer() -> int:
    given = json.loads(sys.stdin.readline())
    with _stack(given) as stack:
        stack.api.wait_for_dag(DAG_ID)
        stack.api.trigger(DAG_ID, given["conf"])
        print(json.dumps({"deferred": _all_deferred(stack)}), flush=True)
    return 0


def end() -> int:
    given = json.loads(sys.stdin.readline())
    with _stack(given) as stack:
        run_id = stack.api.get(f"/dags/{DAG_ID}/dagRuns")["dag_runs"][0]["dag_run_id"]
        print(json.dumps({"deferred": _all_deferred(stack)}), flush=True)
        sys.stdin.readline()
        stack.api.wait(DAG_ID, run_id, timeout=PATIENCE)
        tasks = [
            {
                "name": each["task_id"] + (f" [{each['map_index']}]" if each["map_index"] >= 0 else ""),
                "state": each["state"],
                "try": each["try_number"],
                "result": stack.api.xcom(
                    DAG_ID, run_id, each["task_id"], map_index=each["map_index"], **region(each)
                ),
            }
            for each in stack.api.task_instances(DAG_ID, run_id)
        ]
        print(json.dumps({"tasks": tasks}), flush=True)
    return 0


def _stack(given: Mapping[str, Any]) -> AirflowStack:
    env = {"PYTHONPATH": str(ROOT)}
    return AirflowStack(DAGS, connections=given["connections"], home=given["home"], env=env)


def _all_deferred(stack: AirflowStack) -> int:
    """Until a triggerer of this Airflow carries all waits."""
    deadline = time.monotonic() + PATIENCE
    while True:
        waiting = stack.api.get("/dags/~/dagRuns/~/taskInstances", state="deferred")["task_instances"]
        carried = [each for each in waiting if (each["triggerer_job"] or {}).get("state") == "running"]
        if len(carried) == EXPECTED:
            return EXPECTED
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(carried)} of {EXPECTED} waits are carried")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
