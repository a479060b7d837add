"""The page in a real browser, over an Airflow that is made up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from airflow_status_provider.page import plugin
from tests.browser import Page, browser

STATIC = Path(plugin.__file__).parent / "static"
MANY = 1000
#: what a page that trusts its texts would run
HOSTILE = "<img src=x onerror=\"document.title='run'\">"
NOW = "2026-01-02T03:04:05Z"


def task(number: int) -> dict[str, Any]:
    service = ("areal", "haidy", "organizer", "tagger")[number % 4]
    return {
        "id": f"{number:08}",
        "dag_id": "a dag/ü",
        "dag_run_id": "run+1",
        "task_id": f"task_{number}",
        "map_index": number if number % 2 else -1,
        "rendered_map_index": None,
        "trigger": {"classpath": f"airflow_status_provider.triggers.{service}.T", "created_date": NOW},
        "triggerer_job": None,
        **(REGION if number == LOOPED else {}),
    }


#: as Airflow 3.4 lists a task in a loop, and what it then must be asked with
LOOPED = 2
REGION = {
    "region_id": "0199-region",
    "region_index": 1,
    "loop_iteration": {"loop_id": "again", "iteration": 1},
}
TASKS = [task(number) for number in range(MANY)]
OTHERS = {**task(MANY), "trigger": {"classpath": "others.Trigger", "created_date": NOW}}


class Deferred:
    """The tasks that the made-up Airflow lists, and how."""

    def __init__(self) -> None:
        self.tasks = [*TASKS, OTHERS]
        self.limit = 100
        #: tasks that it counts and does not list
        self.hidden = 0
        #: where the page's next look at the list waits, if the test wants to see each
        self.gate: threading.Semaphore | None = None
        self.looks = 0


class Airflow(BaseHTTPRequestHandler):
    """As much of Airflow's REST API as the page reads, in pages of 100 as by default."""

    asked: ClassVar[list[str]] = []
    deferred: ClassVar[Deferred]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.asked.append(url.path)
        if not url.path.startswith("/api/"):
            path = STATIC / (url.path.removeprefix("/remote-jobs/") or "index.html")
            kind = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}[path.suffix]
            self._answer(path.read_bytes(), kind)
            return
        query = parse_qs(url.query)
        if url.path.endswith(f"/task_{LOOPED}/xcomEntries/progress") and query.get("region_index") != ["1"]:
            self.send_error(400, "Select a region and index for this task instance")
            return
        offset = int(query.get("offset", ["0"])[0])
        self._answer(json.dumps(self._json(url.path, offset)).encode(), "application/json")

    def _json(self, path: str, offset: int) -> Any:
        if path.endswith("/taskInstances"):
            if offset == 0:
                self.deferred.looks += 1
                if self.deferred.gate is not None:
                    self.deferred.gate.acquire(timeout=30)
            listed, end = self.deferred.tasks, offset + self.deferred.limit
            total = len(listed) + self.deferred.hidden
            return {"task_instances": listed[offset:end], "total_entries": total}
        if path.endswith("/xcomEntries"):
            return {"xcom_entries": [], "total_entries": 0}
        name = unquote(path.split("/")[-3])
        number = int(name.removeprefix("task_"))
        value = {"status": HOSTILE, "progress": number / MANY, "conn_id": "here", "job_id": f"job {number}"}
        return {"timestamp": NOW, "value": {**value, "started_at": 1e9, "how": "push", "total": None}}

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def deferred() -> Deferred:
    Airflow.deferred = Deferred()
    return Airflow.deferred


@pytest.fixture
def airflow(deferred: Deferred) -> Iterator[str]:
    Airflow.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Airflow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/remote-jobs/"
    server.shutdown()
    thread.join()
    server.server_close()


SEEN = "[...document.querySelectorAll('tbody tr:not([hidden])')]"


@pytest.fixture
def page(airflow: str, tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path) as opened:
        yield opened


def names(page: Page) -> list[str]:
    """The tasks in sight, in their order."""
    found = page.run(SEEN + ".map((row) => row.querySelector('a').textContent)")
    return [str(name) for name in found]


def test_a_thousand_tasks(page: Page, airflow: str) -> None:
    """All are shown, each progress is read once, and what a service says is text, whatever it says."""
    page.open(airflow)
    page.until(f"{SEEN}.length === {MANY} && {SEEN}.every((row) => row.textContent.includes('onerror'))")
    text = page.run("document.body.textContent")
    assert f"{MANY} waiting: Areal 250, Haidy 250, Organizer 250, Tagger 250" in text
    assert text.count(HOSTILE) == MANY
    assert page.run("document.images.length") == 0
    assert page.run("document.title") == "Remote jobs"
    progress = [path for path in Airflow.asked if path.endswith("/progress")]
    assert len(progress) == len(set(progress)) == MANY
    links = page.run("[...document.querySelectorAll('tbody a')].map((link) => link.href)")
    assert (
        airflow.replace("remote-jobs/", "dags/a%20dag%2F%C3%BC/runs/run%2B1/tasks/task_1/mapped/1") in links
    )


@pytest.mark.parametrize(("others", "limit"), [(5000, 100), (0, 20)])
def test_lists_are_read_to_their_end(
    page: Page, airflow: str, deferred: Deferred, others: int, limit: int
) -> None:
    """However many tasks of other providers stand before them, and however small Airflow's pages are."""
    deferred.tasks = [{**OTHERS, "id": f"0-{number}"} for number in range(others)] + TASKS[:60]
    deferred.limit = limit
    page.open(airflow)
    page.until(f"{SEEN}.length === 60")
    assert page.run("document.querySelector('#trouble').textContent") == ""


def test_what_was_not_read_is_said(page: Page, airflow: str, deferred: Deferred) -> None:
    """Nobody is assured then that no task waits."""
    deferred.tasks, deferred.hidden = [OTHERS], 7
    page.open(airflow)
    page.until(
        "document.querySelector('#trouble')?.textContent.startsWith('7 more deferred tasks were not read')"
    )
    empty = page.run("document.querySelector('#empty').textContent")
    assert empty == "Of the tasks that were read, none waits for a remote job."


def test_a_row_goes_when_two_looks_in_a_row_have_missed_it(
    page: Page, airflow: str, deferred: Deferred
) -> None:
    """A task that ends while pages are read moves those behind it, so one look may miss a task that waits."""
    deferred.gate = threading.Semaphore(0)
    page.call("Page.enable")
    hurry = "const later = setTimeout; window.setTimeout = (work, pause) => later(work, Math.min(pause, 20));"
    page.call("Page.addScriptToEvaluateOnNewDocument", source=hurry)
    page.open(airflow)
    lengths = []
    for look, listed in enumerate((TASKS[:3], TASKS[:2], TASKS[:3], TASKS[:2], TASKS[:2]), 1):
        deferred.tasks = listed
        deferred.gate.release()
        while deferred.looks <= look:  # the next look comes when this one is shown
            time.sleep(0.01)
        lengths.append(page.run(f"{SEEN}.length"))
    deferred.gate.release(100)
    assert lengths == [3, 3, 3, 3, 2]


def test_an_iteration_of_a_loop_is_shown_and_linked_to(page: Page, airflow: str) -> None:
    """Airflow 3.4 knows it by its region: the page asks with it, links with it, and says which iteration it is."""
    page.open(f"{airflow}#words=task_{LOOPED}+iteration")
    page.until(f"{SEEN}.length === 1 && {SEEN}[0].textContent.includes('onerror')")
    assert names(page) == [f"task_{LOOPED} iteration 1"]
    link = page.run(SEEN + "[0].querySelector('a').href")
    assert link.endswith(f"/tasks/task_{LOOPED}?region_id=0199-region&region_index=1")
    assert page.run("document.querySelector('#trouble').hidden")


def test_a_task_that_cannot_be_read_spoils_no_other(
    page: Page, airflow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Airflow refuses to say of one task, a page still says of all others."""
    monkeypatch.setitem(TASKS[LOOPED], "region_index", 9)
    page.open(airflow)
    page.until(f"{SEEN}.length === {MANY}")
    page.until(f"{SEEN}.filter((row) => row.textContent.includes('onerror')).length === {MANY - 1}")
    assert page.run("document.querySelector('#trouble').hidden")


def test_a_view_can_be_linked_to(page: Page, airflow: str) -> None:
    """Filter and order stand in the address."""
    page.open(f"{airflow}#words=haidy+task_9&sort=-Progress")
    page.until(f"{SEEN}.length === 28 && {SEEN}[0].textContent.includes('task_997 ')")
    assert names(page)[-1] == "task_9 [9]"


def test_the_keyboard_is_enough(page: Page, airflow: str) -> None:
    """A slash goes to the filter, the arrows from there to the tasks, and headings are buttons that sort."""
    page.open(airflow)
    page.until(f"{SEEN}.length === {MANY} && {SEEN}.every((row) => row.textContent.includes('onerror'))")
    page.press("/", "/")
    for letter in "task_50":
        page.press(letter, letter)
    page.until(f"{SEEN}.length === 11")
    first, second = names(page)[:2]
    for expected, key in ((first, "ArrowDown"), (second, "ArrowDown"), (first, "ArrowUp")):
        page.press(key)
        assert page.run("document.activeElement.textContent") == expected
    page.run(
        "[...document.querySelectorAll('th button')].find((each) => each.textContent === 'Task').click()"
    )
    assert names(page) == sorted(names(page), key=lambda name: int(name.split()[0].removeprefix("task_")))
    assert page.run("document.querySelector('th[aria-sort]').textContent") == "Task"
    page.press("/", "/")
    page.press("Escape")
    page.until(f"{SEEN}.length === {MANY}")
