# SPDX-License-Identifier: Apache-2.0
"""A server as slow and as strict as the real ones, as its clients see it."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.__main__ import limit

START = "/api/batch/start"
SLOW = 0.3


def batch(job_id: str, documents: int = 1) -> dict[str, Any]:
    rows = [{"file_path": f"https://files.example/{n}.pdf"} for n in range(documents)]
    return {"documents": rows, "config": {"api_key": "sk"}, "job_id": job_id}


@pytest.fixture
def real_time() -> Iterator[SimulatorThread]:
    with SimulatorThread(dialect="observed") as simulated:
        simulated.simulator.tagger.script.seconds = 0.1
        yield simulated


@pytest.fixture
def signed_in(real_time: SimulatorThread) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=real_time.url, trust_env=False) as client:
        body = {"email": "alice@example.com", "password": "wonderland-12A"}
        token = client.post("/api/auth/login", json=body).json()["tokens"]["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def test_a_busy_server_answers_no_client_of_any_service(
    real_time: SimulatorThread, signed_in: httpx.Client
) -> None:
    """A request is given up while the document is worked on, and answered after that."""
    real_time.simulator.tagger.faults.block = SLOW
    signed_in.post(START, json=batch("slow", documents=2))
    time.sleep(0.1)
    with pytest.raises(httpx.ReadTimeout):
        signed_in.get("/api/v1/health", timeout=SLOW / 3)
    assert signed_in.get("/api/v1/health", timeout=5).status_code == 200


def test_a_busy_simulator_can_be_stopped() -> None:
    """The end of a test does not wait for the document."""
    with SimulatorThread(dialect="observed") as simulated:
        simulated.simulator.tagger.faults.block = 60.0
        simulated.call(simulated.simulator.tagger.add, seconds=0)
        time.sleep(0.05)
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_a_start_is_answered_late(client: Any) -> None:
    """The job runs while its client still waits for the answer."""
    client.sim.tagger.faults.late_answer = 6.0  # 0.2 s at this speed
    auth = await client.tagger()
    starting = asyncio.create_task(client.http.post(START, headers=auth, json=batch("late")))
    await client.until(lambda: client.sim.tagger.starts == ["late"])
    assert not starting.done()
    assert (await starting).status_code == 200


def test_the_command_line() -> None:
    """A cost and a limit of logins, as options."""
    options = ["--port", "0", "--login-cost", "0.2", "--login-limit", "1/60"]
    command = [sys.executable, "-m", "airflow_status_provider.simulator", *options]
    login = {"username": "alice", "password": "wonderland-12A"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[-1] + "/api/v1/auth/login"
            began = time.monotonic()
            assert httpx.post(url, data=login, trust_env=False).status_code == 200
            assert time.monotonic() - began >= 0.2
            refused = httpx.post(url, data=login, trust_env=False)
            assert (refused.status_code, 50 < int(refused.headers["Retry-After"]) <= 60) == (429, True)
        finally:
            process.terminate()


@pytest.mark.parametrize("text", ["10", "x/60", "0/60", "3/0"])
def test_a_limit_that_cannot_be_read(text: str) -> None:
    """The command line refuses it, and says what one looks like."""
    with pytest.raises(argparse.ArgumentTypeError, match="10/300 is 10 in 300 seconds"):
        limit(text)
