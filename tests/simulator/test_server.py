"""The server itself: its log, its connections, its thread, its fixture, its command line."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest

from airflow_status_provider.simulator import Simulator, SimulatorThread
from airflow_status_provider.simulator.fixture import status_simulator  # noqa: F401 (pytest finds it here)


async def test_every_request_is_logged(client: Any) -> None:
    """Requests and upgrades are logged with headers, query, body and status."""
    auth = await client.areal()
    await client.post(
        "/api/v2/processing/presigned_url/?upload_session_id=x", auth, json={"file_names": ["a"]}
    )
    seen = client.sim.requests[-1]
    assert (seen.service, seen.method, seen.status) == ("areal", "POST", 404)
    assert (seen.path, seen.query) == ("/api/v2/processing/presigned_url/", {"upload_session_id": "x"})
    assert seen.headers["Authorization"] == seen.headers.get("authorization") == auth["Authorization"]
    assert "AUTHORIZATION" in seen.headers
    assert "Cookie" not in seen.headers
    assert json.loads(seen.body) == {"file_names": ["a"]}
    await client.connect("/status/", auth)
    assert client.sim.requests[-1].status == 101
    assert client.sim.count("areal", "/status/") == 1
    assert client.sim.count("areal", "presigned", "POST") == 1
    assert client.sim.count("areal", "presigned", "GET") == client.sim.count("tagger", "presigned") == 0


async def test_each_path_has_its_service(client: Any) -> None:
    """An unknown path is answered in the manner of the service it belongs to."""
    for path, service, key in (
        ("/api/v2/none/", "areal", "message"),
        ("/api/none", "tagger", "detail"),
        ("/api/v1/none", "organizer", "detail"),
        ("/v2/none", "haidy", "detail"),
    ):
        status, answer = await client.get(path)
        assert (status, list(answer)) == (404, [key])
        assert client.sim.requests[-1].service == service


async def test_connections(client: Any) -> None:
    """The connections carry what each service signs in with."""
    login, key = client.sim.connections(), client.sim.connections(auth="key")
    assert {row["conn_type"] for row in login.values()} == {"areal", "tagger", "organizer", "haidy"}
    assert all(row["host"] == client.sim.url for row in [*login.values(), *key.values()])
    assert all("login" in login[f"{name}_default"] for name in ("areal", "tagger", "organizer"))
    assert not any("login" in row for row in key.values())
    assert login["tagger_default"]["extra"]["model_api_key"]
    secret = key["organizer_default"]["extra"].get("ws_token")
    assert (secret is None) == (client.sim.organizer.socket_accepts_key)
    token = key["tagger_default"]["password"]
    assert (await client.get("/api/auth/me", {"Authorization": f"Bearer {token}"}))[0] == 200


@pytest.mark.parametrize(
    "options", [{"dialect": "klingon"}, {"generation": "v9"}, {"speed": 0}, {"speed": -1.0}]
)
def test_bad_options(options: dict[str, Any]) -> None:
    """A wrong option is refused at once."""
    with pytest.raises(ValueError, match="must be"):
        Simulator(**options)


async def test_stop_leaves_nothing_behind() -> None:
    """After stop no task is left, however many jobs, sockets and slow answers there were."""
    before = asyncio.all_tasks()
    async with Simulator(dialect="observed") as simulator, httpx.AsyncClient() as http:
        for service in (simulator.areal, simulator.tagger, simulator.organizer, simulator.haidy):
            service.add(seconds=600)
        simulator.haidy.faults.slow = 600
        slow = asyncio.create_task(http.post(f"{simulator.url}/v2/tasks", json={}))
        await asyncio.sleep(0.05)
    with pytest.raises(httpx.HTTPError):
        await slow
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before


def test_thread() -> None:
    """A synchronous test can drive the simulator from outside its loop."""
    with SimulatorThread(dialect="observed", speed=100) as simulated:
        job_id = simulated.call(simulated.simulator.tagger.add, seconds=600)
        token = simulated.connections(auth="key")["tagger_default"]["password"]
        auth = {"Authorization": f"Bearer {token}"}
        answer = httpx.get(f"{simulated.url}/api/batch/jobs/{job_id}/status", headers=auth)
        assert answer.json()["status"] == "processing"
        simulated.call(simulated.simulator.tagger.end, job_id, "cancelled")
        simulated.call(simulated.simulator.tagger.send, "raw")
        answer = httpx.get(f"{simulated.url}/api/batch/jobs/{job_id}/status", headers=auth)
        assert answer.json()["status"] == "cancelled"
    with pytest.raises(httpx.ConnectError):
        httpx.get(simulated.url)


def test_thread_reports_a_port_in_use() -> None:
    """A start that fails raises in the caller and leaves no thread behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"), SimulatorThread(port=taken.getsockname()[1]):
            pass


def test_fixture(status_simulator: SimulatorThread) -> None:  # noqa: F811
    """The published fixture starts a simulator and sets the four connections."""
    for name in ("AREAL", "TAGGER", "ORGANIZER", "HAIDY"):
        connection = json.loads(os.environ[f"AIRFLOW_CONN_{name}_DEFAULT"])
        assert connection["host"] == status_simulator.url
    assert httpx.get(f"{status_simulator.url}/api/health").status_code == 200


# -- the command line ----------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "airflow_status_provider.simulator"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_command_line(stop: signal.Signals) -> None:
    """It prints where it listens and what to export, serves, and exits cleanly when told to."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--dialect", "observed", "--seconds", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        exports = [shlex.split(process.stdout.readline()) for _ in range(4)]
        assert [words[0] for words in exports] == ["export"] * 4
        connections = dict(words[1].split("=", 1) for words in exports)
        assert json.loads(connections["AIRFLOW_CONN_HAIDY_DEFAULT"])["host"] == url
        assert httpx.get(f"{url}/api/health").status_code == 200
        process.send_signal(stop)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (0, "", "")


def test_command_line_refusals() -> None:
    """A port in use and an address that is not loopback are one clear line each."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refusals = {
            ("--port", str(taken.getsockname()[1])): "in use",
            ("--host", "0.0.0.0"): "loopback",
            ("--host", "example.com"): "loopback",
        }
        # All at once: most of the time goes into starting the interpreter.
        running = {
            subprocess.Popen([*COMMAND, *options], stderr=subprocess.PIPE, text=True): word
            for options, word in refusals.items()
        }
        for process, word in running.items():
            _, errors = process.communicate(timeout=20)
            assert process.returncode == 1
            assert word in errors
            assert errors.count("\n") == 1
