# SPDX-License-Identifier: Apache-2.0
"""A real Airflow on this machine, without a screen, for the tests and the demo.

    with AirflowStack("example_dags", connections=simulator.connections()) as stack:
        run_id = stack.api.trigger("example_areal")
        assert stack.api.wait("example_areal", run_id) == "success"

What holds throughout:

1. Nothing of the caller's Airflow gets in: every AIRFLOW* variable of the calling shell is dropped, and the
   home is a directory of the stack's own, removed at the end unless the caller gave it.
2. Nothing stays behind: each component has a session of its own, every process carries the stack's token in
   its environment, and tools/reaper.py kills whatever carries it when stop() is done or this process dies.
3. Airflow runs on its defaults but for the settings named in `AirflowStack._settings`, which make it quicker
   to notice work. The worker's heartbeat interval stays: how it races with short waits is under test.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import httpx

from tools import reaper

COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
"""The four services and how each is started. Without the flag, a log server would listen on all addresses."""

NAME_VARIABLE = "STACK_COMPONENT"
"""Tells a process which component it is."""

END_STATES = frozenset({"success", "failed"})
"""What a finished run's state can be."""

POLL_SECONDS = 0.5

T = TypeVar("T")


class StackError(RuntimeError):
    """Airflow did not do what it was asked: `summary` in one line, `log` the end of a log that tells why."""

    def __init__(self, summary: str, log: str = "") -> None:
        super().__init__(f"{summary}; the end of the log:\n{log}" if log else summary)
        self.summary = summary
        self.log = log


class AirflowStack:
    """Services of Airflow on loopback, with SQLite and the LocalExecutor where `env` says nothing else.

    `components` names them with their commands. Several of a kind are numbered (`triggerer-1`), and known to
    Airflow by these names where `hostname` below is its hostname_callable. `connections` maps a connection id
    to its fields (conn_type, host, ...). `env` wins over all settings made here. A `home` that the caller
    gives is kept; otherwise it is a temporary directory. `port` 0 takes a free one.
    """

    def __init__(
        self,
        dags_folder: str | Path,
        *,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        env: Mapping[str, str] | None = None,
        home: str | Path | None = None,
        parallelism: int = 8,
        port: int = 0,
        components: Mapping[str, tuple[str, ...]] = COMPONENTS,
    ) -> None:
        self.components = dict(components)
        self.dags_folder = Path(dags_folder).resolve()
        self.connections = dict(connections or {})
        self.extra_env = dict(env or {})
        self.parallelism = parallelism
        self._given_home = Path(home).resolve() if home is not None else None
        self._given_port = port
        self.token = secrets.token_hex(16)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._reaper: subprocess.Popen[bytes] | None = None

    # -- the whole stack -------------------------------------------------------------------------------------

    def start(self, timeout: float = 120) -> Self:
        """Make the database, start all components and wait until each of them says it is healthy."""
        deadline = time.monotonic() + timeout
        if self._given_port and not _is_free(self._given_port):
            raise StackError(f"port {self._given_port} is in use; choose another one")
        self.port = self._given_port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.home = self._given_home or Path(tempfile.mkdtemp(prefix="airflow-stack-"))
        self.home.mkdir(parents=True, exist_ok=True)
        self.env = self._environment()
        self.api = AirflowApi(self.url)
        atexit.register(self.stop)
        try:
            self._reaper = reaper.start(self.token, *([] if self._given_home else [str(self.home)]))
            self._migrate(deadline)  # first of all: without its tables no component starts
            since = datetime.now(UTC)
            for name in self.components:
                self.spawn(name)
            self._wait_healthy(self.components, since, deadline)
            self._warm_up()
        except BaseException:  # an interrupt too must leave nothing running
            self.stop(grace=0)
            raise
        return self

    def stop(self, grace: float = 4) -> None:
        """Ask the components to end, kill what has not ended after `grace` seconds, and remove the home."""
        if self._reaper is None:
            return
        deadline = time.monotonic() + grace
        # Not the API server: the others need it for their end, and it has nothing to lose.
        asked = self._processes.keys() - {"api-server"}
        for name in asked if grace > 0 else ():
            self._processes[name].terminate()
        while any(map(self.is_running, asked)) and time.monotonic() < deadline:
            time.sleep(0.05)
        reaper.kill_all(self.token)
        for process in self._processes.values():
            process.wait()
        self._reaper.communicate()  # closes its standard input, at which it removes the home; and waits
        self._reaper = None
        self._processes.clear()
        self.api.close()
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def airflow(self, *arguments: str, timeout: float = 120) -> str:
        """What `airflow ARGUMENTS` prints, run in the stack's environment."""
        done = subprocess.run(
            [*_AIRFLOW, *arguments],
            cwd=self.home,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise StackError(
                f"`airflow {' '.join(arguments)}` exited {done.returncode}", last_lines(done.stdout)
            )
        return done.stdout

    # -- one component ---------------------------------------------------------------------------------------

    def spawn(self, name: str) -> None:
        """Start a component, whatever becomes of it."""
        with self._log(name) as log:
            self._processes[name] = self._popen(name, self.components[name], log)

    def start_component(self, name: str, timeout: float = 60) -> None:
        """Start a component that was stopped or killed, and wait until it says it is healthy."""
        if self.is_running(name):
            raise StackError(f"the {name} runs already")
        since = datetime.now(UTC)
        self.spawn(name)
        self._wait_healthy([name], since, time.monotonic() + timeout)
        if name == "api-server":
            self._warm_up()

    def stop_component(self, name: str, timeout: float = 20) -> None:
        """Ask a component to end, as a service manager does, and kill it after `timeout` seconds."""
        process = self._processes[name]
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
        self.kill(name)

    def kill(self, name: str) -> None:
        """End a component and all its children at once with SIGKILL, as if its machine had lost power."""
        process = self._processes[name]
        # By session: each task has a process group of its own.
        reaper.kill_all(self.token, session=process.pid)
        process.wait()

    def halt(self, name: str) -> None:
        """Stop a component and all its children where they are, as if its machine were cut off."""
        for process in reaper.processes_of(self.token, session=self._processes[name].pid):
            process.suspend()

    def go_on(self, name: str) -> None:
        """Let a halted component go on, as if nothing had happened."""
        for process in reaper.processes_of(self.token, session=self._processes[name].pid):
            process.resume()

    def is_running(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def log_path(self, name: str) -> Path:
        """The file with all that a component wrote, over all its starts."""
        return self.home / f"{name}.log"

    def tail(self, name: str, lines: int = 30) -> str:
        """The end of a component's log."""
        path = self.log_path(name)
        return last_lines(path.read_text(errors="replace"), lines) if path.exists() else "(no log)"

    def health(self) -> dict[str, Any]:
        """What Airflow says of its components; empty while its API does not answer."""
        try:
            answer = self.api.get("/monitor/health")
        except (httpx.HTTPError, StackError):
            return {}
        return dict(answer)

    # -- how -------------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, str]:
        """What differs from Airflow's defaults, as environment variables of the form SECTION__OPTION."""
        return {
            # where things are
            "CORE__DAGS_FOLDER": str(self.dags_folder),
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            "LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.port),
            "API__BASE_URL": self.url,
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            # who may come in: everyone on this machine, as admin; the components know each other by secrets
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
            "API__SECRET_KEY": secrets.token_urlsafe(48),
            # how much
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": str(self.parallelism),
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "API__WORKERS": "1",
            # how soon work is noticed; what happens to it then is untouched
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "DAG_PROCESSOR__REFRESH_INTERVAL": "2",
            "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        }

    def _environment(self) -> dict[str, str]:
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW"))
        }
        no_proxy = ",".join(
            filter(None, [inherited.get("NO_PROXY"), inherited.get("no_proxy"), "127.0.0.1,localhost"])
        )
        return (
            inherited
            | {
                "AIRFLOW_HOME": str(self.home),
                "NO_PROXY": no_proxy,
                "no_proxy": no_proxy,
                "NO_COLOR": "1",
                "PYTHONUNBUFFERED": "1",
            }
            | reaper.mark(self.token)
            | {f"AIRFLOW__{key}": value for key, value in self._settings().items()}
            | {f"AIRFLOW_CONN_{key.upper()}": json.dumps(value) for key, value in self.connections.items()}
            | self.extra_env
        )

    def _migrate(self, deadline: float) -> None:
        with self._log("db-migrate") as log:
            process = self._popen("db-migrate", ("db", "migrate"), log)
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise StackError("Airflow did not make its database in time", self.tail("db-migrate")) from None
        if code != 0:
            raise StackError(f"Airflow could not make its database (exit {code})", self.tail("db-migrate"))

    def _warm_up(self) -> None:
        """Have the API for workers made now: the 5 to 8 seconds of it outlast the first task's patience."""
        # Without the header, Airflow adds an admin's token, finds that of no use here, and logs a traceback.
        headers = {"Authorization": "none"}
        url = f"{self.url}/execution/health"
        httpx.get(url, headers=headers, timeout=60, trust_env=False).raise_for_status()

    def _log(self, name: str) -> IO[bytes]:
        return self.log_path(name).open("ab")

    def _popen(self, name: str, arguments: tuple[str, ...], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*_AIRFLOW, *arguments],
            cwd=self.home,
            env=self.env | {NAME_VARIABLE: name},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _wait_healthy(self, names: Collection[str], since: datetime, deadline: float) -> None:
        """Wait until each component has given a sign of life that is newer than `since`."""
        waiting = sorted(names)
        while waiting:
            for name in waiting:
                if not self.is_running(name):
                    code = self._processes[name].returncode
                    raise StackError(
                        f"Airflow's {name} ended (exit {code}) before it was healthy", self.tail(name)
                    )
            health = self.health()
            waiting = [name for name in waiting if not health or not self._is_healthy(name, health, since)]
            if waiting and time.monotonic() > deadline:
                # A component that is not heard of may be well, and the API server ill.
                culprit = "api-server" if "api-server" in waiting else waiting[0]
                raise StackError(f"Airflow's {culprit} did not become healthy in time", self.tail(culprit))
            time.sleep(POLL_SECONDS if waiting else 0)

    def _is_healthy(self, name: str, health: Mapping[str, Any], since: datetime) -> bool:
        if name == "api-server":  # it answered
            return True
        kind = name.rstrip("-0123456789")
        if kind == "worker":  # only the broker hears of it
            return True
        if kind != name:
            jobs = self.api.jobs(f"{kind.capitalize()}Job", hostname=name)
            return any(datetime.fromisoformat(job["latest_heartbeat"]) >= since for job in jobs)
        status = health[name.replace("-", "_")]
        heartbeat = status.get(f"latest_{name.replace('-', '_')}_heartbeat")
        return (
            status["status"] == "healthy"
            and heartbeat is not None
            and datetime.fromisoformat(heartbeat) >= since
        )


class AirflowApi:
    """As much of Airflow's REST API as tests and demo need. It sends no token: on a stack, everyone is admin.

    Where Airflow allows it, `~` instead of an id means all of them.
    """

    def __init__(self, url: str) -> None:
        # No connection is kept open: the API server would wait for its end before it stops.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(base_url=f"{url}/api/v2", timeout=30, trust_env=False, limits=limits)

    def close(self) -> None:
        self._client.close()

    # -- any call --------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Any) -> Any:
        """The decoded answer of a call below /api/v2; StackError where Airflow refuses it.

        SQLite has one writer at a time. Where it was locked, nothing was written: the call is repeated.
        """
        response = self._client.request(method, path, **options)
        for pause in (0.5, 1.0, 2.0, 4.0):
            if response.status_code not in (500, 503) or "atabase" not in response.text:
                break
            time.sleep(pause)
            response = self._client.request(method, path, **options)
        if response.is_error:
            raise ApiError(method, path, response)
        return response.json() if response.content else None

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, params=params)

    def _get_all(self, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        """All pages of a listing."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(path, limit=100, offset=len(found), **params)
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def jobs(self, job_type: str, **params: Any) -> list[dict[str, Any]]:
        """The processes that Airflow knows or knew, of a type such as "TriggererJob", oldest first."""
        return self._get_all("/jobs", "jobs", job_type=job_type, **params)

    # -- DAGs ------------------------------------------------------------------------------------------------

    def dags(self) -> list[dict[str, Any]]:
        return self._get_all("/dags", "dags")

    def import_errors(self) -> list[dict[str, Any]]:
        """The DAG files that could not be read, each with its `filename` and `stack_trace`."""
        return self._get_all("/importErrors", "import_errors")

    def wait_for_dag(self, dag_id: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until the DAG can be triggered. A file that cannot be read ends the wait."""

        def look() -> dict[str, Any] | None:
            try:
                return dict(self.get(f"/dags/{dag_id}"))
            except ApiError as error:
                if error.status != httpx.codes.NOT_FOUND:
                    raise
            if errors := self.import_errors():
                raise StackError(f"no DAG {dag_id}, but import errors: {describe_import_errors(errors)}")
            return None

        return _until(look, timeout, lambda: f"no DAG {dag_id} after {timeout:g} s")

    def set_paused(self, dag_id: str, paused: bool) -> None:
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})

    def reparse(self, dag_id: str) -> None:
        """Have the DAG's file read again now: an asset's watchers begin when its DAG is read unpaused."""
        self.request("PUT", f"/parseDagFile/{self.get(f'/dags/{dag_id}')['file_token']}")

    # -- runs ------------------------------------------------------------------------------------------------

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run of the DAG, unpaused if need be, and return its id."""
        self.set_paused(dag_id, False)
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.request("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return self._get_all(f"/dags/{dag_id}/dagRuns", "dag_runs")

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def wait(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """Wait for the end of a run and return its state. Rides out restarts of the API server."""

        def look() -> str | None:
            state = self.run_state(dag_id, run_id)
            return state if state in END_STATES else None

        return _until(
            look,
            timeout,
            lambda: f"{dag_id} {run_id} did not end within {timeout:g} s: {self._states(dag_id, run_id)}",
        )

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run as success, failed or queued, as a user does."""
        self.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": state})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run with all its tasks, as a user does."""
        self.request("DELETE", f"/dags/{dag_id}/dagRuns/{run_id}")

    # -- tasks -----------------------------------------------------------------------------------------------

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return self._get_all(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")

    # ``region``: what the function of that name finds in a listed task instance

    def task_instance(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, **region: Any
    ) -> dict[str, Any]:
        return dict(self.get(_task_path(dag_id, run_id, task_id, map_index), **region))

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Collection[str],
        timeout: float = 60,
        map_index: int = -1,
    ) -> dict[str, Any]:
        """Wait until a task is in one of the states, such as {"deferred"}, and return the task instance."""

        def look() -> dict[str, Any] | None:
            instance = self.task_instance(dag_id, run_id, task_id, map_index)
            return instance if instance["state"] in states else None

        return _until(
            look,
            timeout,
            lambda: (
                f"{dag_id}.{task_id} was not {' or '.join(sorted(states))} within {timeout:g} s; "
                f"the tasks: {self._states(dag_id, run_id)}"
            ),
        )

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task as success, failed or skipped, as a user does."""
        self.request("PATCH", _task_path(dag_id, run_id, task_id, map_index), json={"new_state": state})

    def clear(self, dag_id: str, run_id: str, task_ids: Collection[str] | None = None, **more: Any) -> None:
        """Clear tasks of a run, all by default, so that they run again, as a user does."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": False,
            "task_ids": None if task_ids is None else list(task_ids),
            **more,
        }
        self.request("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def xcom(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        key: str = "return_value",
        map_index: int = -1,
        **region: Any,
    ) -> Any:
        """The value that a task pushed; None where it pushed none under this key."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        try:
            return self.get(path, map_index=map_index, stringify=False, **region)["value"]
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def log(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        try_number: int = 1,
        map_index: int = -1,
        **region: Any,
    ) -> str:
        """All that a try of a task logged, from worker and triggerer, a line an event with all its fields."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        lines = self.get(path, map_index=map_index, full_content=True, **region)["content"]
        return "\n".join(map(_log_line, lines))

    def _states(self, dag_id: str, run_id: str) -> str:
        instances = self.task_instances(dag_id, run_id)
        return ", ".join(f"{instance['task_id']}={instance['state']}" for instance in instances) or "none"


def region(instance: Mapping[str, Any]) -> dict[str, Any]:
    """What else names a listed task instance where task and map index do not: the iteration of a loop."""
    return {name: instance[name] for name in ("region_id", "region_index") if instance.get(name) is not None}


class ApiError(StackError):
    """Airflow's REST API refused a call."""

    def __init__(self, method: str, path: str, response: httpx.Response) -> None:
        super().__init__(f"{method} {path} answered {response.status_code}: {response.text[:500]}")
        self.status = response.status_code


def hostname() -> str:
    """What a component calls itself, for Airflow's setting hostname_callable."""
    return os.environ.get(NAME_VARIABLE, "stack")


_AIRFLOW = (sys.executable, "-P", "-m", "airflow")  # -P: the current directory is no place to import from


def _until(look: Callable[[], T | None], timeout: float, message: Callable[[], str]) -> T:
    """What `look` returns as soon as it is not None. An API server that is away just now is asked again."""
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(httpx.TransportError):
            if (found := look()) is not None:
                return found
        if time.monotonic() > deadline:
            raise StackError(message())
        time.sleep(POLL_SECONDS)


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
    return path if map_index < 0 else f"{path}/{map_index}"


def describe_import_errors(errors: Collection[Mapping[str, Any]]) -> str:
    """One line: each file that could not be read, with the last line of its traceback."""
    return "; ".join(
        f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}" for error in errors
    )


def _log_line(entry: Mapping[str, Any] | str) -> str:
    if isinstance(entry, str):
        return entry
    fields = dict(entry)
    head = [str(fields.pop(key)) for key in ("timestamp", "level", "event") if fields.get(key) is not None]
    return " ".join(head + [f"{key}={value!r}" for key, value in fields.items()])


def last_lines(text: str, lines: int = 30) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
