"""The observed dialect says what the recorded servers said, frame for frame.

Frames and bodies are compared with the order of their keys and the types of their values; the values too, but
for those that differ from run to run.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import websockets

RECORDINGS = Path(__file__).parents[1] / "transcripts"
VOLATILE = frozenset(
    {"access_token", "refresh_token", "expires_in"}
    | {"id", "user_id", "job_id", "db_job_id"}
    | {"created_at", "updated_at", "last_login", "start_time", "processing_time"}
    | {"full_name", "error"}
)
# Inside these only the shape counts: what is in them follows from the recorded documents and files.
INEXACT = frozenset({"metadata", "result", "counts"})


def shape(value: Any, key: str = "", exact: bool = True) -> Any:
    exact = exact and key not in INEXACT
    if key == "organized_structure":
        return "dict"
    if isinstance(value, dict):
        return [(name, shape(inner, name, exact)) for name, inner in value.items()]
    if isinstance(value, list):
        return [shape(inner, key, exact) for inner in value]
    kind = type(value).__name__
    return (kind, value) if exact and key not in VOLATILE else kind


class Recording:
    """One recorded run: what was said on each socket and in each request."""

    def __init__(self, name: str) -> None:
        text = (RECORDINGS / f"{name}.jsonl").read_text()
        self.events = [json.loads(line) for line in text.splitlines()]

    def frames(self, label: str, *, pings: bool = False) -> list[Any]:
        found = [
            json.loads(event["raw"])
            for event in self.events
            if event["kind"] == "ws_recv" and event["label"] == label
        ]
        return [shape(frame) for frame in found if pings or frame.get("type") != "ping"]

    def closed(self, label: str) -> int:
        return next(e["code"] for e in self.events if e["kind"] == "ws_closed" and e["label"] == label)

    def requests(self, path_end: str) -> list[Any]:
        return [e for e in self.events if e["kind"] == "http" and e["path"].endswith(path_end)]

    def answers(self, path_end: str) -> list[Any]:
        return [(event["status"], shape(event["body"])) for event in self.requests(path_end)]

    def start(self, path_end: str) -> Any:
        return self.requests(path_end)[0]["request"]


def shapes(frames: list[Any]) -> list[Any]:
    return [shape(frame) for frame in frames if frame.get("type") != "ping"]


async def start_batch(client: Any, auth: Any, recording: Recording, *, row_seconds: float) -> str:
    body = recording.start("/batch/start")
    for document in body["documents"]:
        # The recorded server could reach neither; here both are simply there.
        if document.get("title") in ("refused", "s3"):
            document["file_path"] = "https://files.example/missing.pdf"
    client.sim.tagger.script.seconds = row_seconds * len(body["documents"]) * 30
    status, answer = await client.post("/api/batch/start", auth, json=body)
    assert (status, shape(answer)) == recording.answers("/batch/start")[0]
    return str(answer["job_id"])


# -- tagger --------------------------------------------------------------------------------------------------


async def test_tagger_happy_path(observed: Any) -> None:
    """A batch with one failing document, watched from just after its start."""
    recording = Recording("tagger_01_happy_path")
    body = {"email": "alice@example.com", "password": "wonderland-12A"}
    status, answer = await observed.post("/api/auth/login", json=body)
    assert (status, shape(answer)) == recording.answers("/auth/login")[0]
    auth = {"Authorization": f"Bearer {answer['tokens']['access_token']}"}
    status, answer = await observed.get("/api/auth/me", auth)
    assert (status, shape(answer)) == recording.answers("/auth/me")[0]
    job_id = await start_batch(observed, auth, recording, row_seconds=0.25)
    status_path = f"/api/batch/jobs/{job_id}/status"
    status, answer = await observed.get(status_path, auth)
    assert (status, shape(answer)) == recording.answers("/status")[0]
    live = await observed.observe(job_id, auth)
    assert shapes(await observed.frames(live)) == recording.frames("live")
    assert live.close_code == recording.closed("live") == 1000
    status, answer = await observed.get(status_path, auth)
    assert (status, shape(answer)) == recording.answers("/status")[-1]
    status, answer = await observed.get("/api/batch/active", auth)
    assert (status, shape(answer)) == recording.answers("/active")[0]


async def test_tagger_cancel(observed: Any) -> None:
    """A cancel between two documents, a late observer, and a second cancel."""
    recording = Recording("tagger_02_cancel")
    auth = await observed.tagger()
    job_id = await start_batch(observed, auth, recording, row_seconds=0.3)
    live = await observed.observe(job_id, auth)
    frames = await observed.frames(live, 2)
    answers = [await observed.post(f"/api/batch/jobs/{job_id}/cancel", auth)]
    frames += await observed.frames(live)
    assert shapes(frames)[-1] == recording.frames("live")[-1]
    assert shapes(frames) == recording.frames("live")
    late = await observed.observe(job_id, auth)
    assert shapes(await observed.frames(late)) == recording.frames("after-cancel")
    assert late.close_code == recording.closed("after-cancel")
    answers += [await observed.post(f"/api/batch/jobs/{job_id}/cancel", auth)]
    for status, answer in answers:
        assert (status, list(answer)) == (200, ["message"])
        assert answer["message"] == f"Cancel command sent to job {job_id}"
    status, answer = await observed.get(f"/api/batch/jobs/{job_id}/status", auth)
    assert (status, shape(answer)) == recording.answers("/status")[-1]


async def test_tagger_auth(observed: Any) -> None:
    """Every credential a socket or a request can carry, good, bad, expired and of a deleted user."""
    recording = Recording("tagger_03_auth")
    auth = await observed.tagger()
    good = auth["Authorization"].removeprefix("Bearer ")
    job_id = await start_batch(observed, auth, recording, row_seconds=0.05)
    await observed.until(lambda: observed.sim.tagger.jobs[job_id].done)
    path = f"/api/batch/ws/{job_id}"
    expired = (await observed.tagger())["Authorization"].removeprefix("Bearer ")
    ghost = observed.sim.tagger.tokens.issue("nobody", 60).access
    bob = (await observed.tagger("bob@example.com"))["Authorization"].removeprefix("Bearer ")
    attempts: dict[str, tuple[str, dict[str, str]]] = {
        "bad-token": (f"{path}?token=bad", {}),
        "no-token": (path, {}),
        "bad-query-good-header": (f"{path}?token=bad", auth),
        "header-only": (path, auth),
        "ghost-user": (f"{path}?token={ghost}", {}),
        "bob": (f"{path}?token={bob}", {}),
    }
    for label, (url, headers) in attempts.items():
        socket = await observed.connect(url, headers)
        assert shapes(await observed.frames(socket)) == recording.frames(label), label
        assert socket.close_code == recording.closed(label), label
    status_path = f"/api/batch/jobs/{job_id}/status"
    answers = [await observed.get(status_path)]
    answers += [await observed.get(status_path, {"Authorization": "Bearer bad"})]
    answers += [await observed.get(status_path, {"Authorization": f"Bearer {ghost}"})]
    recorded = recording.answers("/status")
    assert [(status, shape(body)) for status, body in answers] == [recorded[4], recorded[5], recorded[6]]
    body = {"email": "alice@example.com", "password": "wrong"}
    status, answer = await observed.post("/api/auth/login", json=body)
    assert (status, shape(answer)) == recording.answers("/auth/login")[1]
    observed.sim.tagger.expire_tokens()
    socket = await observed.connect(f"{path}?token={expired}")
    assert shapes(await observed.frames(socket)) == recording.frames("expired")
    assert socket.close_code == recording.closed("expired")
    status, answer = await observed.get(status_path, {"Authorization": f"Bearer {good}"})
    assert (status, shape(answer)) == recorded[3]


async def test_tagger_reconnect(observed: Any) -> None:
    """An observer leaves and comes back between two documents."""
    recording = Recording("tagger_04_reconnect_midjob")
    auth = await observed.tagger()
    job_id = await start_batch(observed, auth, recording, row_seconds=0.3)
    first = await observed.observe(job_id, auth)
    assert shapes(await observed.frames(first, 2)) == recording.frames("first")
    await first.close()
    await observed.until(lambda: observed.sim.tagger.jobs[job_id].processed == 2)
    second = await observed.observe(job_id, auth)
    assert shapes(await observed.frames(second)) == recording.frames("second")
    assert second.close_code == recording.closed("second")


async def test_tagger_after_the_end(observed: Any) -> None:
    """A late observer of a completed job, and of one that failed as a whole."""
    recording = Recording("tagger_05_after_completion")
    auth = await observed.tagger()
    job_id = await start_batch(observed, auth, recording, row_seconds=0.05)
    job = observed.sim.tagger.jobs[job_id]
    await observed.until(lambda: job.done)
    for label, status in (("after", "completed"), ("after-failed", "failed")):
        job.status = status
        late = await observed.observe(job_id, auth)
        assert shapes(await observed.frames(late)) == recording.frames(label)
        assert late.close_code == recording.closed(label)
    status, answer = await observed.get(f"/api/batch/jobs/{job_id}/status", auth)
    assert (status, shape(answer)) == recording.answers("/status")[-1]


async def test_tagger_unknown_job(simulate: Any) -> None:
    """An unknown job gets an empty state and keepalives for ever; a stray cancel makes a ghost of it."""
    recording = Recording("tagger_06_unknown_job")
    observed = await simulate("observed", speed=300)
    auth = await observed.tagger()
    path = "/api/batch/jobs/dead74c3"
    answers = [await observed.get(f"{path}/status", auth)]
    socket = await observed.observe("dead74c3", auth)
    assert shapes(await observed.frames(socket, 3)) == recording.frames("unknown")
    await socket.close()
    status, answer = await observed.post(f"{path}/cancel", auth)
    assert (status, list(answer)) == (200, ["message"])
    answers += [await observed.get(f"{path}/status", auth)]
    assert [(status, shape(body)) for status, body in answers] == recording.answers("/status")
    socket = await observed.observe("dead74c3", auth)
    assert shapes(await observed.frames(socket, 1)) == recording.frames("unknown-after-cancel")


async def test_tagger_document_errors(observed: Any) -> None:
    """Every way a document fails, among them the one without a path, which has no entry in the results."""
    recording = Recording("tagger_08_document_errors")
    auth = await observed.tagger()
    job_id = await start_batch(observed, auth, recording, row_seconds=0.12)
    live = await observed.observe(job_id, auth)
    assert shapes(await observed.frames(live)) == recording.frames("live")
    status, answer = await observed.get(f"/api/batch/jobs/{job_id}/status", auth)
    assert (status, shape(answer)) == recording.answers("/status")[-1]
    late = await observed.observe(job_id, auth)
    assert shapes(await observed.frames(late)) == recording.frames("after")


async def test_tagger_observe_before_start(observed: Any) -> None:
    """Whoever chooses the id and connects first misses nothing."""
    recording = Recording("tagger_14_observe_before_start_client_job_id")
    auth = await observed.tagger()
    early = await observed.observe("pre-7bce8562", auth)
    frames = await observed.frames(early, 1)
    assert await start_batch(observed, auth, recording, row_seconds=0.03) == "pre-7bce8562"
    frames += await observed.frames(early)
    assert shapes(frames) == recording.frames("early")
    assert early.close_code == recording.closed("early")


# -- organizer -----------------------------------------------------------------------------------------------


async def execute(client: Any, auth: Any, recording: Recording, index: int = 0) -> str:
    body = recording.requests("/organize/execute")[index]["request"]
    status, answer = await client.post("/api/v1/organize/execute", auth, json=body)
    assert (status, shape(answer)) == recording.answers("/organize/execute")[index]
    return str(answer["job_id"])


async def test_organizer_happy_path(observed: Any) -> None:
    """A subscriber of all jobs sees one being created, running and completed."""
    recording = Recording("organizer_01_happy_path")
    body = {"username": "alice", "password": "wonderland-12A"}
    status, answer = await observed.post("/api/v1/auth/login", data=body)
    assert (status, shape(answer)) == recording.answers("/auth/login")[0]
    auth = {"Authorization": f"Bearer {answer['access_token']}"}
    status, answer = await observed.get("/api/v1/auth/me", auth)
    assert (status, shape(answer)) == recording.answers("/auth/me")[0]
    status, answer = await observed.post(
        "/api/v1/organize/scan", auth, json=recording.start("/organize/scan")
    )
    assert (status, shape(answer["counts"], "counts")) == (
        200,
        shape(recording.requests("/organize/scan")[0]["body"]["counts"], "counts"),
    )
    jobs = await observed.listen(auth, "jobs", client_id="client-1")
    frames = await observed.frames(jobs, 2)
    job_id = await execute(observed, auth, recording)
    await asyncio.sleep(0.01)
    answers = [await observed.get(f"/api/v1/organize/status/{job_id}", auth)]
    frames += await observed.frames(jobs, 3)
    assert shapes(frames) == recording.frames("jobs")
    answers += [await observed.get(f"/api/v1/organize/status/{job_id}", auth)]
    recorded = recording.answers(recording.requests("/organize/execute")[0]["body"]["job_id"])
    assert [(status, shape(body)) for status, body in answers] == [recorded[0], recorded[-1]]


async def test_organizer_without_subscription(simulate: Any) -> None:
    """Who connects as the docs say, without subscribing, gets pings and nothing else."""
    recording = Recording("organizer_02_no_subscribe_documented_way")
    observed = await simulate("observed", speed=400)
    auth = await observed.organizer()
    socket = await observed.listen(auth, client_id="client-2")
    await execute(observed, auth, recording)
    frames = await observed.frames(socket, 4)
    assert [shape(frame) for frame in frames] == recording.frames("nosub", pings=True)


async def test_organizer_auth(observed: Any) -> None:
    """Which credentials open the socket, and what REST says without."""
    recording = Recording("organizer_03_auth")
    auth = await observed.organizer()
    token = auth["Authorization"].removeprefix("Bearer ")
    key = next(iter(observed.sim.organizer.api_keys))
    path = "/api/v1/ws/c-auth"
    attempts: dict[str, tuple[str, dict[str, str]]] = {
        "bad token": (f"{path}?token=bad", {}),
        "no token": (path, {}),
        "API key as ?token= (what the docs say)": (f"{path}?token={key}", {}),
        "JWT access token": (f"{path}?token={token}", {}),
        "server's static websocket_token": (f"{path}?token={observed.sim.organizer.ws_token}", {}),
        "X-API-Key header": (path, {"X-API-Key": key}),
        "bearer header": (path, auth),
    }
    refused = {e["label"]: e["http_status"] for e in recording.events if e["kind"] == "ws_connect_failed"}
    for label, (url, headers) in attempts.items():
        if label in refused:
            with pytest.raises(websockets.InvalidStatus) as failure:
                await observed.connect(url, headers)
            assert failure.value.response.status_code == refused[label], label
        else:
            socket = await observed.connect(url, headers)
            assert shapes(await observed.frames(socket, 1)) == recording.frames(label), label
    headers_tried: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer bad"},
        {"X-API-Key": key},
        {"X-API-Key": "fo_bad"},
        {"Authorization": "Bearer bad", "X-API-Key": key},
    ]
    answers = [await observed.get("/api/v1/organize/status/x", headers) for headers in headers_tried]
    assert [(status, shape(body)) for status, body in answers] == recording.answers("/status/x")
    body = {"username": "alice", "password": "wrong"}
    status, answer = await observed.post("/api/v1/auth/login", data=body)
    assert (status, shape(answer)) == recording.answers("/auth/login")[0]
    for label in ("same-A", "same-B"):
        socket = await observed.listen(auth, client_id="same")
        assert shapes(await observed.frames(socket, 1)) == recording.frames(label)


async def test_organizer_late_subscribers(observed: Any) -> None:
    """No catchup after the start; on both channels the end comes twice; after the end nothing comes."""
    recording = Recording("organizer_04_job_channel_late_subscribe_and_reconnect")
    auth = await observed.organizer()
    observed.sim.organizer.script.seconds = 6
    job_id = await execute(observed, auth, recording)
    first = await observed.listen(auth, f"job:{job_id}", client_id="c4")
    recorded = json.dumps(recording.frames("first")).replace(
        recording.requests("/organize/execute")[0]["body"]["job_id"], job_id
    )
    assert json.loads(json.dumps(shapes(await observed.frames(first, 2)))) == json.loads(recorded)
    await first.close()
    second = await observed.listen(auth, f"job:{job_id}", "jobs", client_id="c4")
    frames = await observed.frames(second, 5)
    assert shapes(frames)[3:] == recording.frames("second")[3:]
    after = await observed.listen(auth, f"job:{job_id}", client_id="c4")
    await observed.frames(after, 2)
    assert await observed.silence(after)


async def test_organizer_two_jobs_two_observers(observed: Any) -> None:
    """Two jobs at once reach both observers, each job's events in their order."""
    recording = Recording("organizer_09_two_jobs_two_observers")
    auth = await observed.organizer()
    sockets = [await observed.listen(auth, "jobs", client_id=name) for name in ("obs1", "obs2")]
    for socket in sockets:
        await observed.frames(socket, 2)
    ids = [await execute(observed, auth, recording, index) for index in (0, 1)]
    started = recording.requests("/organize/execute")
    for socket, label in zip(sockets, ("obs1", "obs2"), strict=True):
        frames = await observed.frames(socket, 6)
        raw = [json.loads(e["raw"]) for e in recording.events if e.get("label") == label and "raw" in e]
        for job_id, event in zip(ids, started, strict=True):
            mine = [shape(frame) for frame in frames if frame["job_id"] == job_id]
            theirs = [shape(frame) for frame in raw if frame.get("job_id") == event["body"]["job_id"]]
            assert mine == theirs


async def test_organizer_execute_limit(observed: Any) -> None:
    """A start over the server's limit is refused with the seconds until there is room."""
    recording = Recording("organizer_15_execute_limit_retry_after")
    observed.sim.organizer.execute_limit = 1
    auth = await observed.organizer()
    body = recording.requests("/organize/execute")[0]["request"]
    await observed.http.post("/api/v1/organize/execute", headers=auth, json=body)
    answer = await observed.http.post("/api/v1/organize/execute", headers=auth, json=body)
    assert (answer.status_code, shape(answer.json())) == recording.answers("/organize/execute")[0]
    recorded = recording.requests("/organize/execute")[0]["headers"]
    assert answer.headers["Retry-After"].isdecimal() is recorded["Retry-After"].isdecimal() is True


async def test_organizer_login_limit(observed: Any) -> None:
    """A login over the server's limit is refused with the seconds until the next is allowed."""
    recording = Recording("organizer_14_default_login_limit")
    observed.sim.organizer.faults.login_limit = (2, 300.0)
    form = {"username": "alice", "password": "wonderland-12A"}
    answers = [await observed.http.post("/api/v1/auth/login", data=form) for _ in range(3)]
    assert [(answer.status_code, shape(answer.json())) for answer in answers] == recording.answers("/login")[
        :3
    ]
    assert 284 <= int(answers[-1].headers["Retry-After"]) <= 300


async def test_tagger_ghost(observed: Any) -> None:
    """A cancel of a batch that was never there leaves one of which nothing is known."""
    recording = Recording("tagger_25_ghost_of_a_cancelled_unknown_job")
    auth = await observed.tagger()
    await observed.post("/api/batch/jobs/ghost-1/cancel", auth)
    status, answer = await observed.get("/api/batch/jobs/ghost-1/status", auth)
    assert (status, shape(answer)) == recording.answers("/ghost-1/status")[0]


async def test_tagger_token_expires_mid_wait(observed: Any) -> None:
    """An access token that has expired is refused, a refresh brings a new pair, and the batch has its end."""
    recording = Recording("tagger_23_access_token_expires_mid_wait")
    login = {"email": "alice@example.com", "password": "wonderland-12A"}
    tokens = (await observed.post("/api/auth/login", json=login))[1]["tokens"]
    auth = {"Authorization": f"Bearer {tokens['access_token']}"}
    job_id = await start_batch(observed, auth, recording, row_seconds=0.02)
    live = await observed.observe(job_id, auth)
    await observed.frames(live)
    observed.sim.tagger.expire_tokens()
    path = f"/api/batch/jobs/{job_id}/status"
    status, answer = await observed.get(path, auth)
    assert (status, shape(answer)) == recording.answers("/status")[-2]
    status, fresh = await observed.post("/api/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert (status, shape(fresh)) == recording.answers("/auth/refresh")[0]
    status, answer = await observed.get(path, {"Authorization": f"Bearer {fresh['access_token']}"})
    assert (status, shape(answer)) == recording.answers("/status")[-1]
