"""The page *Remote jobs*: found by Airflow, light, served with care, and trusting nobody's text."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from airflow.plugins_manager import is_valid_plugin

from airflow_status_provider.page import plugin

STATIC = Path(plugin.__file__).parent / "static"
FILES = sorted(path.name for path in STATIC.iterdir())


async def fetch(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=plugin.serve)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow.test") as client:
        return await client.get(path)


def test_airflow_finds_it() -> None:
    """The installed distribution names the plugin, once, and its menu entry leads to what it serves."""
    (entry,) = [
        each
        for each in importlib.metadata.entry_points(group="airflow.plugins")
        if each.dist is not None and each.dist.name == "airflow-status-provider"
    ]
    assert entry.load() is plugin.RemoteJobs
    assert is_valid_plugin(plugin.RemoteJobs)
    (app,), (view,) = plugin.RemoteJobs.fastapi_apps, plugin.RemoteJobs.external_views
    assert f"/{view['href']}" == f"{app['url_prefix']}/"
    assert (view["destination"], view["category"]) == ("nav", "browse")


def test_it_costs_other_processes_nothing() -> None:
    """Workers import plugins too: none of the package's other rooms comes with it, nor does what serves files."""
    code = (
        "import sys, typing, pathlib, airflow.plugins_manager; before = set(sys.modules);"
        "import airflow_status_provider.page.plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    room = "airflow_status_provider.page"
    assert set(done.stdout.split()) - {"airflow_status_provider"} == {room, f"{room}.plugin"}


@pytest.mark.parametrize("name", ["", *FILES])
async def test_it_is_served(name: str) -> None:
    """Every file, with the headers that keep out whatever is not this page's own."""
    answer = await fetch(f"/{name}")
    assert answer.status_code == 200
    assert answer.content == (STATIC / (name or "index.html")).read_bytes()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/nothing", "/../plugin.py", "/%2e%2e/plugin.py", "/..%2fplugin.py"])
async def test_nothing_else_is_served(path: str) -> None:
    """Only what lies in the page's own folder."""
    assert (await fetch(path)).status_code == 404


def test_it_needs_no_other_server() -> None:
    """What the page refers to are its own files, and no address stands in any of them."""
    html = (STATIC / "index.html").read_text()
    referred = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert {name for name in referred if not name.startswith("data:")} == set(FILES) - {"index.html"}
    assert not re.search(r"<script>|<style|\bon\w+=|\bstyle=", html)
    for name in FILES:
        assert not re.search(r"\w+://", (STATIC / name).read_text()), name


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_texts_of_services_stay_texts(name: str) -> None:
    """No way of JavaScript's to make markup or code of a text is used."""
    ways = r"(inner|outer)HTML|insertAdjacent|document\.write|eval\(|Function\(|srcdoc|DOMParser|Fragment\("
    assert not re.search(ways, (STATIC / name).read_text())


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_progress_of_other_types_breaks_nothing() -> None:
    """Anybody who may write XComs may have written it: what has not the right type is left out of the row."""
    script = (STATIC / "page.js").read_text()
    constants = script[script.index("const TEXTS") : script.index("const rows")]
    shown = script[script.index("const byText") : script.index("// -- what Airflow says")]
    known = script[script.index("function known") : script.index("// A few at a time")]
    use = """
        const trigger = {created_date: "2026-01-01T00:00:00Z"};
        const task = {dag_id: "d", dag_run_id: "r", task_id: "t", map_index: -1, trigger};
        const odd = [5, -1, 1e300, true, {}, [], [1], "soon", "", null, {toString: 1}, {valueOf: null}];
        const cells = [];
        for (const name of [...TEXTS, ...NUMBERS, "__proto__", "constructor"]) {
          for (const value of odd) {
            const progress = known(JSON.parse(`{"${name}": ${JSON.stringify(value)}}`));
            const row = {task, service: "x", progress, lonely: false};
            const other = {...row, progress: known({conn_id: "a", progress: 0.5})};
            for (const column of COLUMNS) {
              const value = column.value ?? column.text;
              const order = (column.value ? byNumber : byText)(value(row), value(other));
              cells.push([column.name, typeof column.text(row), Number.isNaN(order)]);
            }
          }
        }
        console.log(JSON.stringify({cells, lists: known(["a"]), whole: known({status: "s", total: 1})}));
    """
    program = f"const AIRFLOW = new URL('http://a/'); let skew = 0; {constants}{shown}{known}{use}"
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert {(kind, odd) for name, kind, odd in said["cells"] if name not in ("Left", "Deadline")} == {
        ("string", False)
    }
    assert {kind for _, kind, _ in said["cells"]} == {"string"}
    assert (said["lists"], said["whole"]) == ({}, {"status": "s", "total": 1})
