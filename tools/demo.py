# SPDX-License-Identifier: Apache-2.0
"""The example DAGs on a real Airflow against the simulator: `python -m tools.demo`, or `make demo`.

Each task's state changes are told as they happen; at the end a table says how each task waited, how long, and
what came back. Event-driven DAGs are not triggered but left to run for what the others do. The exit code is 0
only if every DAG ran and every run succeeded.
"""

from __future__ import annotations

import argparse
import errno
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.server import DIALECTS
from tools.stack import END_STATES, AirflowApi, AirflowStack, StackError, describe_import_errors, region

DAGS = Path(__file__).resolve().parent.parent / "example_dags"
SERVICES = ("Areal", "Tagger", "Organizer", "Haidy")
EXPLAINED = {"deferred": "deferred: it waits in the triggerer, on no worker"}
"""What Airflow's words for states do not say by themselves."""

POLL_SECONDS = 0.5
JOB_SECONDS = 8.0
PUSH_SECONDS = 5.0
WATCH_SECONDS = 3.0
"""How long a watcher takes to listen, about; the jobs last longer."""

RESULT_WIDTH = 50
REASON_WIDTH = 300
PARSE_SECONDS = 90.0
"""How long Airflow may take to read all DAG files."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


class DemoError(Exception):
    """The demo cannot go on; the message is one line for the user."""


@dataclass(frozen=True)
class Row:
    """A task of the demo, as the table shows it."""

    dag: str
    task: str
    service: str
    how: str
    seconds: str
    outcome: str
    result: str


HEADINGS = Row("DAG", "task", "service", "how it waited", "seconds waited", "outcome", "result")


class Clock:
    """Says a line with the seconds since its making."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._since:6.1f} s  {text}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    return guarded(lambda: _demo(options))


def guarded(work: Callable[[], int]) -> int:
    """The exit code of a command, whose errors and interruptions are told in a line."""
    # A shell that starts this in the background has it ignore Ctrl-C, and SIGTERM would skip the tidying up.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return work()
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return INTERRUPTED
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
    except StackError as error:
        said = error.log.strip().splitlines()[-1:]
        rest = f": {said[0].strip()} (--home DIR keeps Airflow's logs)" if said else ""
        print(f"error: {error.summary}{rest}", file=sys.stderr)
    except httpx.HTTPError as error:
        print(f"error: Airflow's API does not answer: {error}", file=sys.stderr)
    return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.demo", description="Run the example DAGs on a real Airflow."
    )
    parser.add_argument(
        "--dialect", choices=DIALECTS, default=DIALECTS[0], help="how the simulated services answer"
    )
    parser.add_argument("--keep", action="store_true", help="leave Airflow and the simulator up until Ctrl-C")
    parser.add_argument("--dags", type=Path, default=DAGS, metavar="DIR", help="other DAGs than example_dags")
    parser.add_argument(
        "--home", type=Path, metavar="DIR", help="Airflow's home, kept afterwards with all its logs"
    )
    parser.add_argument("--port", type=int, default=0, help="Airflow's port (default: a free one)")
    parser.add_argument("--simulator-port", type=int, default=0, metavar="PORT", help="(default: a free one)")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for all runs together")
    return parser.parse_args(arguments)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _demo(options: argparse.Namespace) -> int:
    if not list(options.dags.glob("*.py")):
        raise DemoError(f"no DAG files in {options.dags}")
    say = Clock()
    with ExitStack() as running:
        try:
            simulator = running.enter_context(
                SimulatorThread(dialect=options.dialect, port=options.simulator_port)
            )
        except (OSError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "it is in use" if in_use else error
            raise DemoError(f"the simulator cannot have port {options.simulator_port}: {reason}") from None
        for service in SERVICES:
            getattr(simulator.simulator, service.lower()).script.seconds = JOB_SECONDS
        # somebody pushes each processed document again and again: a sensor hears it whenever it listens
        simulator.simulator.areal.script.push_every = PUSH_SECONDS
        say(f"the simulator answers at {simulator.url} in the {options.dialect} dialect")
        say("starting Airflow, which takes half a minute")
        stack = running.enter_context(
            AirflowStack(
                options.dags, connections=simulator.connections(), home=options.home, port=options.port
            )
        )
        say(f"Airflow is up at {stack.url}")
        instances, succeeded = run_all(stack, wait_for_dags(stack, options.dags), options.timeout, say)
        rows = [astuple(row(stack.api, instance)) for instance in instances]
        print("", *table([astuple(HEADINGS), *rows]), "", sep="\n", flush=True)
        for reason in failures(stack.api):
            print(reason)
        if options.keep:
            print(f"Airflow    {stack.url} (no login: everyone on this machine is admin)")
            print(f"simulator  {simulator.url}")
            print("Ctrl-C stops both", flush=True)
            _wait_for_interrupt(stack)
        say("stopping")
    return 0 if succeeded else 1


def run_all(
    stack: AirflowStack, dags: Mapping[str, bool], timeout: float, say: Clock
) -> tuple[list[dict[str, Any]], bool]:
    """Trigger the DAGs, tell what happens until all runs have ended; the tasks, and whether all went well."""
    api = stack.api
    deadline = time.monotonic() + timeout
    waiting = {dag_id for dag_id, watching in dags.items() if watching}
    for dag_id in sorted(waiting):
        api.set_paused(dag_id, False)
        api.reparse(dag_id)
        say(f"{dag_id}: waits for events")
    if waiting:
        time.sleep(WATCH_SECONDS)
    for dag_id in sorted(dags.keys() - waiting):
        api.trigger(dag_id)
        say(f"{dag_id}: triggered")
    states: dict[str, str] = {}
    while True:
        check(stack)
        # The runs are read first: when all have ended, the tasks read after them have nothing more to tell.
        runs = api.runs("~")
        instances = api.task_instances("~", "~")
        for instance in instances:
            name, state = f"{instance['dag_id']}.{_task_name(instance)}", instance["state"]
            if state is not None and states.get(f"{name} {instance['dag_run_id']}") != state:
                states[f"{name} {instance['dag_run_id']}"] = state
                say(f"{name}: {EXPLAINED.get(state, state)}")
        going = {run["dag_id"] for run in runs if run["state"] not in END_STATES}
        going |= waiting - {run["dag_id"] for run in runs}
        if not going:
            break
        if time.monotonic() > deadline:
            say(f"not ended after {timeout:g} s, and left alone: {', '.join(sorted(going))}")
            break
        time.sleep(POLL_SECONDS)
    instances.sort(
        key=lambda task: (task["dag_id"], task["run_after"], task["scheduled_when"] or "~", task["map_index"])
    )
    return instances, not going and all(run["state"] == "success" for run in runs)


def wait_for_dags(stack: AirflowStack, folder: Path) -> dict[str, bool]:
    """All DAGs, and whether assets trigger them, once Airflow has read every file that it takes for one."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if _may_hold_dag(path)}
    deadline = time.monotonic() + PARSE_SECONDS
    while True:
        check(stack)
        if errors := stack.api.import_errors():
            raise DemoError(f"import errors: {describe_import_errors(errors)}")
        dags = stack.api.dags()
        missing = files - {dag["relative_fileloc"] for dag in dags}
        if dags and not missing:
            return {dag["dag_id"]: dag["timetable_summary"] == "Asset" for dag in dags}
        if time.monotonic() > deadline:
            raise DemoError(f"Airflow found no DAG in {', '.join(sorted(missing)) or folder}")
        time.sleep(POLL_SECONDS)


def _may_hold_dag(path: Path) -> bool:
    """Airflow's own rule for what to read."""
    text = path.read_bytes().lower()
    return b"airflow" in text and b"dag" in text


def check(stack: AirflowStack) -> None:
    for name in stack.components:
        if not stack.is_running(name):
            raise StackError(f"Airflow's {name} died", stack.tail(name))


def _task_name(instance: Mapping[str, Any]) -> str:
    index = instance["map_index"]
    return f"{instance['task_id']}[{index}]" if index >= 0 else str(instance["task_id"])


def row(api: AirflowApi, instance: Mapping[str, Any]) -> Row:
    where = (instance["dag_id"], instance["dag_run_id"], instance["task_id"])
    result = api.xcom(*where, map_index=instance["map_index"], **region(instance))
    service = next((name for name in SERVICES if (instance["operator"] or "").startswith(name)), None)
    wait = result.get("wait", {}) if service and isinstance(result, dict) else {}
    tries = f", try {instance['try_number']}" if instance["try_number"] > 1 else ""
    return Row(
        dag=instance["dag_id"],
        task=_task_name(instance),
        service=service or "-",
        how=wait.get("how", "-"),
        seconds=f"{wait['seconds']:.1f}" if "seconds" in wait else "-",
        outcome=f"{instance['state']}{tries}",
        result="-" if result is None else _head(json.dumps(result, ensure_ascii=False)),
    )


def _head(text: str) -> str:
    return text if len(text) <= RESULT_WIDTH else text[: RESULT_WIDTH - 1] + "…"


def table(lines: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """A table as text; its first line has the headings."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)


def failures(api: AirflowApi) -> Iterator[str]:
    """A line for each failed task, with the last error that it logged."""
    for instance in api.task_instances("~", "~"):
        if instance["state"] == "failed":
            where = (instance["dag_id"], instance["dag_run_id"], instance["task_id"])
            log = api.log(*where, instance["try_number"], instance["map_index"], **region(instance))
            errors = [line for line in log.splitlines() if " error " in line]
            last = errors[-1] if errors else "its log has no error"
            yield f"{instance['dag_id']}.{_task_name(instance)} failed: {last[:REASON_WIDTH]}"


def _wait_for_interrupt(stack: AirflowStack) -> None:
    try:
        while True:
            check(stack)
            time.sleep(1)
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    sys.exit(main())
