# SPDX-License-Identifier: Apache-2.0
"""tools.stack and tools.reaper, tested with Airflow's own operators."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import reaper
from tools.stack import AirflowStack, StackError

DAGS = Path(__file__).parent / "dags"

OWNER = """
import functools, os, subprocess, sys, time
from tools import reaper
token, home = sys.argv[1:]
start = functools.partial(subprocess.Popen, start_new_session=True)
start([sys.executable, "-P", reaper.__file__, token, home], stdin=subprocess.PIPE)
start(["sleep", "600"], env=os.environ | {reaper.TOKEN_VARIABLE: token})
print("started", flush=True)
time.sleep(600)
"""


def test_a_killed_owner_leaves_neither_process_nor_directory(tmp_path: Path) -> None:
    """The reaper ends a process in a session of its own, although its owner could not."""
    token = secrets.token_hex(16)
    home = tmp_path / "home"
    home.mkdir()
    with subprocess.Popen([sys.executable, "-c", OWNER, token, str(home)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        owner.kill()

    deadline = time.monotonic() + 20
    while (home.exists() or list(reaper.processes_of(token))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(reaper.processes_of(token))
    assert not home.exists()


def test_a_port_in_use_is_named_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is in use"):
            AirflowStack(DAGS, port=port).start()


@pytest.mark.airflow
def test_a_component_that_ends_early_is_named_with_its_log_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_STRAY", "of the caller's own Airflow")
    stack = AirflowStack(DAGS, home=tmp_path, env={"AIRFLOW__CORE__EXECUTOR": "no.such.Executor"})
    with pytest.raises(StackError, match="scheduler ended") as failure:
        stack.start()
    assert "no.such" in failure.value.log
    assert not list(reaper.processes_of(stack.token))
    assert "AIRFLOW_CONN_STRAY" not in stack.env


@pytest.mark.side_by_side
@pytest.mark.airflow
def test_a_run_gives_its_state_its_xcom_and_its_log(airflow_stack: AirflowStack) -> None:
    api = airflow_stack.api
    api.wait_for_dag("stack_plain")
    run_id = api.trigger("stack_plain", {"colour": "green"})
    assert api.wait("stack_plain", run_id) == "success"
    assert api.xcom("stack_plain", run_id, "say") == {"host": "example.test", "conf": {"colour": "green"}}
    assert api.xcom("stack_plain", run_id, "say", key="never_pushed") is None
    assert "said by say" in api.log("stack_plain", run_id, "say")
    assert api.import_errors() == []


@pytest.mark.airflow
def test_tasks_and_runs_are_cleared_and_marked(airflow_stack: AirflowStack) -> None:
    api = airflow_stack.api
    run_id = api.trigger("stack_deferred")
    api.wait_for_task("stack_deferred", run_id, "wait", {"deferred"})
    api.set_task_state("stack_deferred", run_id, "wait", "failed")
    assert api.wait("stack_deferred", run_id) == "failed"

    api.clear("stack_deferred", run_id, ["wait"])
    again = api.wait_for_task("stack_deferred", run_id, "wait", {"deferred"})
    assert again["try_number"] == 2
    api.set_run_state("stack_deferred", run_id, "failed")
    assert api.wait("stack_deferred", run_id) == "failed"


@pytest.mark.airflow
def test_a_deferred_task_outlives_its_killed_triggerer(airflow_stack: AirflowStack) -> None:
    api = airflow_stack.api
    run_id = api.trigger("stack_deferred")
    api.wait_for_task("stack_deferred", run_id, "wait", {"deferred"})
    airflow_stack.kill("triggerer")
    assert not airflow_stack.is_running("triggerer")
    airflow_stack.start_component("triggerer")
    assert api.wait("stack_deferred", run_id) == "success"


@pytest.mark.airflow
def test_the_heartbeat_interval_that_races_with_short_waits_is_airflows_default(
    airflow_stack: AirflowStack,
) -> None:
    assert (
        airflow_stack.airflow("config", "get-value", "workers", "min_heartbeat_interval").split()[-1] == "5"
    )
