"""Every fault, once: off by default, on demand, and gone when switched off."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
import websockets

from airflow_status_provider.simulator import Faults, SimulatorThread


async def test_nothing_fails_by_default() -> None:
    """Every fault is off."""
    assert not any(vars(Faults()).values())


# -- sockets -------------------------------------------------------------------------------------------------


async def test_refuse_upgrade(documented: Any) -> None:
    """The upgrade is answered with an HTTP status, and with Retry-After where that makes sense."""
    auth = await documented.areal()
    documented.sim.areal.faults.refuse_upgrade = 503
    documented.sim.areal.faults.retry_after = "7"
    with pytest.raises(websockets.InvalidStatus) as failure:
        await documented.connect("/status/", auth)
    assert failure.value.response.status_code == 503
    assert failure.value.response.headers["Retry-After"] == "7"
    assert (documented.sim.areal.sockets, documented.sim.areal.socket_opens) == (0, 0)
    documented.sim.areal.faults = Faults()
    await documented.connect("/status/", auth)
    assert (documented.sim.areal.sockets, documented.sim.areal.socket_opens) == (1, 1)


async def test_close_after_open(documented: Any) -> None:
    """The upgrade succeeds, and the socket closes with a code before any frame."""
    documented.sim.tagger.faults.close_after_open = 4401
    socket = await documented.observe("any", await documented.tagger())
    assert await documented.frames(socket) == []
    assert socket.close_code == 4401
    await documented.until(lambda: documented.sim.tagger.sockets == 0)


async def test_silent_socket(documented: Any) -> None:
    """A silent socket answers pings and sends no frame, until the fault is gone."""
    documented.sim.tagger.faults.silent_socket = True
    auth = await documented.tagger()
    socket = await documented.observe("silent", auth)
    assert await documented.silence(socket)
    async with asyncio.timeout(1):
        await (await socket.ping())
    documented.sim.tagger.faults.silent_socket = False
    documented.sim.tagger.add("silent", documents=1)
    assert (await documented.frames(socket))[-1]["type"] == "completed"


async def test_silent_job(documented: Any) -> None:
    """A fault of one job leaves the others alone."""
    socket = await documented.connect("/status/", await documented.areal())
    silent = documented.sim.areal.add(seconds=1)
    documented.sim.areal.jobs[silent].faults.silent_socket = True
    other = documented.sim.areal.add(seconds=1)
    frames = await documented.frames(socket, 4)
    assert {frame["meta"]["id"] for frame in frames} == {other}


async def test_half_open(documented: Any) -> None:
    """A half-open socket sends nothing, not even pongs or the answer to a close."""
    socket = await documented.connect("/status/", await documented.areal(), close_timeout=0.1)
    documented.sim.areal.faults.half_open = True
    documented.sim.areal.add(seconds=0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await (await socket.ping())
    assert await documented.silence(socket)
    await socket.close()
    assert socket.close_code == 1006
    await documented.until(lambda: documented.sim.areal.sockets == 0)


async def test_drop_every(documented: Any) -> None:
    """Each connection is cut off without a close frame after a while."""
    documented.sim.areal.faults.drop_every = 3.0
    socket = await documented.connect("/status/", await documented.areal())
    assert await documented.frames(socket) == []
    assert socket.close_code == 1006
    await documented.until(lambda: documented.sim.areal.sockets == 0)


@pytest.mark.parametrize(("code", "seen"), [(None, 1006), (1012, 1012)])
async def test_drop_sockets(documented: Any, code: int | None, seen: int) -> None:
    """Open sockets are cut off, or closed with a code, on demand."""
    socket = await documented.connect("/status/", await documented.areal())
    await documented.sim.areal.drop_sockets(code)
    assert await documented.frames(socket) == []
    assert socket.close_code == seen
    await documented.until(lambda: documented.sim.areal.sockets == 0)


async def test_raw_frames(documented: Any) -> None:
    """Any text and any bytes can be pushed."""
    socket = await documented.connect("/status/", await documented.areal())
    await documented.sim.areal.send("not JSON")
    await documented.sim.areal.send(b"\x00\x01")
    assert [await socket.recv(), await socket.recv()] == ["not JSON", b"\x00\x01"]


# -- frames --------------------------------------------------------------------------------------------------


async def statuses(documented: Any, **faults: Any) -> list[str]:
    """The statuses one document's frames show under these faults, ended by another document's."""
    socket = await documented.connect("/status/", await documented.areal())
    job_id = documented.sim.areal.add(seconds=1)
    for name, value in faults.items():
        setattr(documented.sim.areal.jobs[job_id].faults, name, value)
    await documented.until(lambda: documented.sim.areal.jobs[job_id].done)
    await documented.sim.areal.send('{"meta":{"id":"end"}}')
    found = []
    while (frame := json.loads(await socket.recv()))["meta"]["id"] != "end":
        assert frame["meta"]["id"] == job_id
        found.append(frame["data"]["status"])
    return found


async def test_lose_terminal(documented: Any) -> None:
    """The last frame of a job is lost; REST knows better."""
    assert await statuses(documented, lose_terminal=True) == ["pending", "preparing", "processing"]


async def test_duplicate(documented: Any) -> None:
    """Each frame comes twice."""
    found = await statuses(documented, duplicate=True)
    assert found[::2] == found[1::2] == ["pending", "preparing", "processing", "completed"]


async def test_reorder(documented: Any) -> None:
    """Neighbouring frames change places."""
    found = await statuses(documented, reorder=True)
    assert found == ["preparing", "pending", "completed", "processing"]


async def test_garbage(documented: Any) -> None:
    """Broken, foreign and wrongly typed frames come between the real ones, which still all come."""
    socket = await documented.connect("/status/", await documented.areal())
    documented.sim.areal.faults.garbage = True
    job_id = documented.sim.areal.add(seconds=0)
    kinds, real = set(), []
    while "completed" not in real:
        raw = await socket.recv()
        if isinstance(raw, bytes):
            kinds.add("binary")
            continue
        try:
            frame = json.loads(raw)
        except ValueError:
            kinds.add("not JSON")
            continue
        if not isinstance(frame, dict):
            kinds.add(type(frame).__name__)
        elif frame.get("type") != "FILE_STATUS_UPDATED":
            kinds.add("foreign")
        elif not isinstance(frame["data"], dict) or not isinstance(frame["data"]["status"], str):
            kinds.add("wrongly typed")
        elif frame["meta"]["id"] == job_id:
            real.append(frame["data"]["status"])
    assert real == ["pending", "preparing", "processing", "completed"]
    assert kinds == {"binary", "not JSON", "list", "str", "int", "NoneType", "foreign", "wrongly typed"}


# -- REST ----------------------------------------------------------------------------------------------------


async def test_rest_status(documented: Any) -> None:
    """Every status read fails; starts, commands and logins do not."""
    documented.sim.tagger.faults.rest_status = 503
    documented.sim.tagger.faults.retry_after = "Wed, 21 Oct 2026 07:28:00 GMT"
    auth = await documented.tagger()
    job_id = await documented.start_batch(auth, "a.pdf")
    response = await documented.http.get(f"/api/batch/jobs/{job_id}/status", headers=auth)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "Wed, 21 Oct 2026 07:28:00 GMT"
    documented.sim.tagger.faults = Faults()
    assert (await documented.get(f"/api/batch/jobs/{job_id}/status", auth))[0] == 200


async def test_rest_fail_next(documented: Any) -> None:
    """The next requests fail, one status each, whether or not a login comes between."""
    documented.sim.haidy.faults.rest_fail_next = [500, 429]
    task_id = documented.sim.haidy.add()
    assert [(await documented.task(task_id))[0] for _ in range(3)] == [500, 429, 200]
    documented.sim.tagger.faults.rest_fail_next = [503]
    assert (await documented.get("/api/batch/active", await documented.tagger()))[0] == 503


async def test_faults_of_one_job(documented: Any) -> None:
    """A job's own REST faults hit only reads of that job."""
    sick, well = documented.sim.haidy.add(), documented.sim.haidy.add()
    documented.sim.haidy.jobs[sick].faults.rest_fail_next = [502]
    assert [(await documented.task(job))[0] for job in (well, sick, sick)] == [200, 502, 200]


async def test_rate_limit(documented: Any) -> None:
    """Above the rate there is 429 with Retry-After; later requests pass again."""
    documented.sim.haidy.faults.rate_limit = 4
    task_id = documented.sim.haidy.add()
    answers = [await documented.http.post("/v2/tasks", json={}, headers=documented.haidy) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [422] * 4 + [429] * 2
    assert answers[-1].headers["Retry-After"] == "1"
    await asyncio.sleep(0.3)
    assert (await documented.task(task_id))[0] == 200


async def test_slow(documented: Any) -> None:
    """Answers come late, by the simulated clock."""
    documented.sim.haidy.faults.slow = 6.0
    began = time.monotonic()
    await documented.task("none")
    assert 0.2 <= time.monotonic() - began < 2


async def test_truncate(documented: Any) -> None:
    """The connection ends in the middle of the body."""
    documented.sim.haidy.faults.truncate = True
    with pytest.raises(httpx.RemoteProtocolError):
        await documented.task(documented.sim.haidy.add())
    assert documented.sim.requests[-1].status == 200


async def test_wrong_content_type(documented: Any) -> None:
    """An HTML page arrives where JSON should."""
    documented.sim.haidy.faults.wrong_content_type = True
    response = await documented.http.post("/v2/tasks", json={"task_id": "x"}, headers=documented.haidy)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")


async def test_redirect(documented: Any) -> None:
    """A redirect leads away."""
    documented.sim.haidy.faults.redirect = "https://login.example/"
    response = await documented.http.post("/v2/tasks", json={"task_id": "x"}, headers=documented.haidy)
    assert (response.status_code, response.headers["Location"]) == (302, "https://login.example/")


async def test_down(documented: Any) -> None:
    """Requests and upgrades meet a closed connection; open sockets break at their next frame."""
    auth = await documented.areal()
    socket = await documented.connect("/status/", auth)
    documented.sim.areal.faults.down = True
    with pytest.raises(httpx.RemoteProtocolError):
        await documented.get("/api/v2/sessions/", auth)
    assert documented.sim.requests[-1].status == 0
    with pytest.raises((websockets.InvalidMessage, ConnectionError)):
        await documented.connect("/status/", auth)
    documented.sim.areal.add(seconds=0)
    assert await documented.frames(socket) == []
    assert socket.close_code == 1006
    documented.sim.areal.faults.down = False
    assert (await documented.get("/api/v2/sessions/", auth))[0] == 200


# -- as slow as real servers -------------------------------------------------------------------------------


async def test_a_document_blocks_the_whole_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is answered while one is worked on."""
    with SimulatorThread(speed=100) as simulated:
        simulated.simulator.tagger.faults.block = 40.0
        async with httpx.AsyncClient(base_url=simulated.url, timeout=5) as client:
            await client.get("/api/health")
            simulated.call(simulated.simulator.tagger.add, "j", seconds=0.1, documents=1)
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await client.get("/api/health")
    assert 0.2 < time.monotonic() - began < 5


async def test_logins_and_starts_are_limited(documented: Any) -> None:
    """What is more than so many in so many seconds is answered with 429 and when to come back."""
    auth = await documented.tagger()
    faults = documented.sim.tagger.faults
    faults.login_limit = faults.start_limit = (1, 60.0)
    logins, starts = [], []
    async with httpx.AsyncClient(base_url=documented.sim.url) as client:
        for _ in range(2):
            body = {"email": "alice@example.com", "password": "wonderland-12A"}
            logins.append(await client.post("/api/auth/login", json=body))
            starts.append(await client.post("/api/batch/start", json={}, headers=auth))
    assert [answer.status_code for answer in logins] == [200, 429]
    assert starts[0].status_code != 429
    assert starts[1].status_code == 429
    assert 0 < int(starts[1].headers["Retry-After"]) <= 60
