# SPDX-License-Identifier: Apache-2.0
"""What a deferred task tells of its job, and the page that shows it, on a real Airflow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_status_provider.page.plugin import HEADERS
from airflow_status_provider.simulator import SimulatorThread
from tests.browser import browser
from tools.stack import AirflowStack

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def run_id(airflow_stack: AirflowStack, airflow_simulator: SimulatorThread) -> Iterator[str]:
    """A run whose tasks are deferred; the batch has come some way, and goes on slowly."""
    services, call = airflow_simulator.simulator, airflow_simulator.call
    conf = {
        "batch": call(services.tagger.add, seconds=90.0, documents=30),
        "haidy": call(services.haidy.add, seconds=900.0),
    }
    api = airflow_stack.api
    api.wait_for_dag("watched")
    run = api.trigger("watched", conf)
    deadline = time.monotonic() + 120
    while not told(airflow_stack, run).get("progress") or told(airflow_stack, run)["how"] == "first check":
        assert time.monotonic() < deadline, api.log("watched", run, "batch")
        time.sleep(0.5)
    yield run
    call(services.tagger.end, conf["batch"])
    call(services.haidy.end, conf["haidy"])
    assert api.wait("watched", run) == "success"


def told(stack: AirflowStack, run_id: str, task_id: str = "batch", map_index: int = -1) -> dict[str, Any]:
    return dict(stack.api.xcom("watched", run_id, task_id, "progress", map_index) or {})


def test_the_log_and_the_xcom_tell_while_the_task_is_deferred(
    airflow_stack: AirflowStack, run_id: str
) -> None:
    """Live, from the triggerer: status and progress, as XCom and as lines of the task's log."""
    assert airflow_stack.api.task_instance("watched", run_id, "batch")["state"] == "deferred"
    seen = told(airflow_stack, run_id)
    assert (seen["service"], seen["conn_id"]) == ("tagger", "tagger_default")
    assert seen["how"] in ("push", "poll")
    assert seen["started_at"] < seen["seen_at"] < seen["deadline"]
    log = airflow_stack.api.log("watched", run_id, "batch")
    assert f"batch '{seen['job_id']}': processing" in log
    assert "%" in log
    assert told(airflow_stack, run_id, "haidy", 0)["service"] == "haidy"


def test_airflow_offers_and_serves_the_page(airflow_stack: AirflowStack) -> None:
    """In the menu, and where the menu leads to; an older Airflow knows no other way either."""
    (plugin,) = [
        each for each in airflow_stack.api.get("/plugins")["plugins"] if each["name"] == "remote_jobs"
    ]
    (view,) = plugin["external_views"]
    assert (view["name"], view["category"]) == ("Remote jobs", "browse")
    answer = httpx.get(f"{airflow_stack.url}/{view['href']}", trust_env=False)
    assert answer.status_code == 200
    assert "<title>Remote jobs</title>" in answer.text
    for name, value in HEADERS:
        assert answer.headers[name.decode()] == value.decode()


def test_what_the_page_asks_is_answered(airflow_stack: AirflowStack, run_id: str) -> None:
    """The three questions of page.js: who is deferred, whose progress is new, and what it is."""
    api = airflow_stack.api
    query = {"state": "deferred", "order_by": "id", "limit": 1000, "offset": 0}
    tasks = api.get("/dags/~/dagRuns/~/taskInstances", **query)["task_instances"]
    ours = {task["task_id"]: task for task in tasks if task["dag_run_id"] == run_id}
    assert ours["batch"]["trigger"]["classpath"].startswith("airflow_status_provider.triggers.tagger.")
    assert ours["haidy"]["map_index"] == 0
    assert ours["haidy"]["triggerer_job"]["latest_heartbeat"]
    query = {"xcom_key": "progress", "order_by": "-timestamp", "limit": 1000, "offset": 0}
    listed = api.get("/dags/~/dagRuns/~/taskInstances/~/xcomEntries", **query)["xcom_entries"]
    assert {each["key"] for each in listed} == {"progress"}
    assert [each["timestamp"] for each in listed] == sorted((x["timestamp"] for x in listed), reverse=True)
    assert {"batch", "haidy"} <= {each["task_id"] for each in listed if each["run_id"] == run_id}
    path = f"/dags/watched/dagRuns/{run_id}/taskInstances/batch/xcomEntries/progress"
    entry = api.get(path, map_index=-1, deserialize=True)
    assert entry["timestamp"]
    assert entry["value"]["status"] == "processing"


def test_the_page_shows_it(airflow_stack: AirflowStack, run_id: str, tmp_path: Path) -> None:
    """In a browser, inside Airflow's own frame: the tasks, how far they are, and the way to them."""
    frame = "document.querySelector('iframe').contentDocument"
    rows = f"[...{frame}.querySelectorAll('tbody tr')].map((row) => row.innerText).join('\\n')"
    with browser(tmp_path) as page:
        page.open(f"{airflow_stack.url}/plugin/remote-jobs")
        page.until(f"document.querySelector('iframe') && {rows}.includes('haidy_default')")
        page.until(f"/Tagger.*watched.*batch.*processing.*%/s.test({rows})")
        page.run("document.documentElement.className = 'dark'")
        page.until(f"{frame}.documentElement.className === 'dark'")
        page.run(f"[...{frame}.querySelectorAll('a')].find((link) => link.textContent === 'batch').click()")
        page.until("location.pathname.endsWith('/tasks/batch')")
