"""Organizer beyond the recordings: the documented dialect, the lifecycle generation, limits, bad frames."""

from __future__ import annotations

import json
from typing import Any

import pytest
import websockets

EXECUTE = "/api/v1/organize/execute"
BODY = {"input_dir": "/in", "output_dir": "/out"}


async def test_documented_flow(documented: Any) -> None:
    """Scan, preview, execute; events without subscription; enveloped answers [seed][docs]."""
    key = {"X-API-Key": next(iter(documented.sim.organizer.api_keys))}
    socket = await documented.connect(f"/api/v1/ws/c?token={key['X-API-Key']}")
    status, answer = await documented.post("/api/v1/organize/scan", key, json={"path": "/in"})
    assert (status, answer["success"], answer["data"]["status"]) == (200, True, "pending")
    job = {"job_id": answer["data"]["job_id"]}
    assert len((await documented.post("/api/v1/organize/preview", key, json=job))[1]["data"]["changes"]) == 6
    answer = (await documented.post(EXECUTE, key, json=job))[1]["data"]
    assert (answer["job_id"], answer["status"]) == (job["job_id"], "in_progress")
    status, answer = await documented.get(f"/api/v1/organize/status/{job['job_id']}", key)
    assert set(answer["data"]) == {
        "job_id",
        "status",
        "methodology",
        "progress",
        "file_count",
        "processed_count",
        "error_count",
        "started_at",
        "estimated_completion",
    }
    *progress, last = await documented.frames(socket, 7)
    assert [frame["progress"] for frame in progress] == [16, 33, 50, 66, 83, 100]
    assert list(progress[0]) == [
        "type",
        "jobId",
        "progress",
        "processedCount",
        "totalCount",
        "currentFile",
    ]
    assert last == {
        "type": "job_complete",
        "jobId": job["job_id"],
        "status": "completed",
        "organized": 6,
        "failed": 0,
    }
    assert documented.sim.organizer.starts == [job["job_id"]]


async def test_documented_execute_also_takes_directories(documented: Any) -> None:
    """The plain execute body starts a job too."""
    auth = await documented.organizer()
    status, answer = await documented.post(EXECUTE, auth, json=BODY)
    assert (status, answer["data"]["status"]) == (200, "in_progress")


@pytest.mark.parametrize(
    ("failure_frame", "types"),
    [("error", ["error"]), ("job_complete", ["job_complete"]), ("both", ["error", "job_complete"])],
)
async def test_documented_failure(documented: Any, failure_frame: str, types: list[str]) -> None:
    """The vendor's page leaves open how a failure ends; all readings can be had [infer]."""
    auth = await documented.organizer()
    socket = await documented.listen(auth)
    job_id = documented.sim.organizer.add(outcome="failed", seconds=1, failure_frame=failure_frame)
    frames = [f for f in await documented.frames(socket, 3 + len(types)) if f["type"] != "job_progress"]
    assert [frame["type"] for frame in frames] == types
    assert all(frame["jobId"] == job_id for frame in frames)
    if failure_frame == "error":
        assert frames[0]["error"] == "Permission denied"
        assert frames[0]["code"] == "PERMISSION_ERROR"
    answer = (await documented.get(f"/api/v1/organize/status/{job_id}", auth))[1]
    assert answer["data"]["status"] == "failed"


async def test_upload(documented: Any, observed: Any) -> None:
    """An upload is announced as documented; the real server announces nothing [code]."""
    files = {"file": ("newfile.pdf", b"12345")}
    auth = await documented.organizer()
    socket = await documented.listen(auth)
    answer = (await documented.post("/api/v1/files/upload", auth, files=files))[1]["data"]
    assert await documented.frames(socket, 1) == [
        {"type": "file_uploaded", "fileId": answer["file_id"], "name": "newfile.pdf", "size": 5}
    ]
    auth = await observed.organizer()
    socket = await observed.listen(auth, "jobs")
    await observed.frames(socket, 2)
    status, answer = await observed.post("/api/v1/files/upload", auth, files=files)
    assert (status, answer["filename"], answer["size"]) == (200, "newfile.pdf", 5)
    assert await observed.silence(socket)


async def test_observed_failure_and_partial_success(observed: Any) -> None:
    """a3 says "completed" even with failed files, and "failed" with an error text [code]."""
    auth = await observed.organizer()
    organizer = observed.sim.organizer
    partly = organizer.add(seconds=0, failed=2)
    failed = organizer.add(seconds=0, outcome="failed", error="Disk full")
    await observed.until(lambda: organizer.jobs[partly].done and organizer.jobs[failed].done)
    answer = (await observed.get(f"/api/v1/organize/status/{partly}", auth))[1]
    assert (answer["status"], answer["result"]["failed_files"]) == ("completed", 2)
    assert len(answer["result"]["errors"]) == 2
    answer = (await observed.get(f"/api/v1/organize/status/{failed}", auth))[1]
    assert (answer["status"], answer["result"], answer["error"]) == ("failed", None, "Disk full")


async def test_client_frames(observed: Any) -> None:
    """Each message of a client gets its answer [code]."""
    socket = await observed.listen(await observed.organizer())
    await observed.frames(socket, 1)
    exchanges = [
        ({"type": "ping"}, {"type": "pong"}),
        ({"type": "subscribe", "channel": "x"}, {"type": "subscribed", "channel": "x"}),
        ({"type": "unsubscribe", "channel": "x"}, {"type": "unsubscribed", "channel": "x"}),
        ({"type": "subscribe"}, "error"),
        ({"type": "subscribe", "channel": ""}, "error"),
        ({"channel": "x"}, "error"),
        ({"type": "nonsense"}, "error"),
        ([], "error"),
    ]
    for message, reply in exchanges:
        await socket.send(json.dumps(message))
        frame = (await observed.frames(socket, 1))[0]
        assert frame == reply if isinstance(reply, dict) else list(frame) == ["type", "message"]
    await socket.send('{"type":"pong"}')
    assert await observed.silence(socket)


@pytest.mark.parametrize("raw", ["{not JSON", b"\x00"])
async def test_malformed_client_frame_ends_the_socket(observed: Any, raw: str | bytes) -> None:
    """Invalid JSON and binary frames break the handler: the connection ends without a close frame [lab]."""
    socket = await observed.listen(await observed.organizer())
    await observed.frames(socket, 1)
    await socket.send(raw)
    expected = [{"type": "error", "message": "Invalid JSON payload"}] if isinstance(raw, str) else []
    assert await observed.frames(socket) == expected
    assert socket.close_code == 1006


async def test_documented_server_ignores_subscriptions(documented: Any) -> None:
    """A subscription gets no answer, or an error without a job, and changes nothing [infer]."""
    socket = await documented.listen(await documented.organizer(), "jobs")
    assert await documented.silence(socket, 0.05)
    documented.sim.organizer.subscribe_reply = "error"
    await socket.send('{"type":"subscribe","channel":"jobs"}')
    assert "jobId" not in (await documented.frames(socket, 1))[0]


async def test_socket_credentials(documented: Any, observed: Any) -> None:
    """The API key opens the documented socket only; a rejection can also be 1008 [seed][lab]."""
    key = next(iter(documented.sim.organizer.api_keys))
    await documented.connect(f"/api/v1/ws/c?token={key}")
    with pytest.raises(websockets.InvalidStatus):
        await observed.connect(f"/api/v1/ws/c?token={key}")
    documented.sim.organizer.socket_reject = "close"
    socket = await documented.connect("/api/v1/ws/c?token=bad")
    assert await documented.frames(socket) == []
    assert socket.close_code == 1008
    with pytest.raises(websockets.InvalidStatus) as failure:
        await observed.connect("/api/v1/wrong/path")
    assert failure.value.response.status_code == 403


async def test_execute_limit(client: Any) -> None:
    """The limit on starts is off by default; on, it answers 429 with its headers [code]."""
    auth = await client.organizer()
    client.sim.organizer.execute_limit = 2
    answers = [await client.http.post(EXECUTE, headers=auth, json=BODY) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json() == {"detail": "Rate limit exceeded. Try again later."}
    assert answers[2].headers["X-RateLimit-Limit"] == "2"
    assert 3590 < int(answers[2].headers["Retry-After"]) <= 3600
    assert len(client.sim.organizer.starts) == 2


async def test_login_limit(client: Any) -> None:
    """Too many wrong passwords lock the login [code]."""
    client.sim.organizer.login_limit = 2
    wrong = {"username": "alice", "password": "wrong"}
    statuses = [(await client.post("/api/v1/auth/login", data=wrong))[0] for _ in range(3)]
    assert statuses == [401, 401, 429]


async def test_tokens_rotate(client: Any) -> None:
    """A refresh gives a new pair and revokes the old refresh token; a login has no expires_in [code]."""
    login = {"username": "alice", "password": "wonderland-12A"}
    pair = (await client.post("/api/v1/auth/login", data=login))[1]
    assert set(pair) == {"access_token", "refresh_token", "token_type"}
    client.sim.organizer.expire_tokens()
    old = {"Authorization": f"Bearer {pair['access_token']}"}
    assert (await client.get("/api/v1/auth/me", old))[0] == 401
    body = {"refresh_token": pair["refresh_token"]}
    status, new = await client.post("/api/v1/auth/refresh", json=body)
    assert status == 200
    assert await client.post("/api/v1/auth/refresh", json=body) == (401, {"detail": "Refresh token revoked"})
    auth = {"Authorization": f"Bearer {new['access_token']}"}
    revoked = {"refresh_token": new["refresh_token"]}
    assert (await client.http.post("/api/v1/auth/logout", headers=auth, json=revoked)).status_code == 204
    assert (await client.post("/api/v1/auth/login", json=login))[0] == 422


async def test_restart_forgets_jobs(client: Any) -> None:
    """Jobs live in memory; after a restart they are 404 [code]."""
    auth = await client.organizer()
    job_id = client.sim.organizer.add(seconds=30)
    client.sim.organizer.restart()
    assert await client.get(f"/api/v1/organize/status/{job_id}", auth) == (
        404,
        {"error": "not_found", "message": "Job not found"},
    )


async def test_paths_are_checked(observed: Any) -> None:
    """422 for a missing field, 403 outside the allowed root, 404 for what is not there [code]."""
    auth = await observed.organizer()
    status, answer = await observed.post(EXECUTE, auth, json={"input_dir": "/in"})
    assert (status, answer["error"], answer["details"][0]["loc"]) == (
        422,
        "validation_error",
        ["body", "output_dir"],
    )
    assert (await observed.post(EXECUTE, auth, json=BODY | {"input_dir": "/missing"}))[0] == 404
    observed.sim.organizer.allowed_root = "/home/alice"
    status, answer = await observed.post(EXECUTE, auth, json=BODY)
    assert (status, answer["error"]) == (403, "path_not_allowed")


async def test_synchronous_execute(observed: Any) -> None:
    """Without a background job the answer is the result [code]."""
    auth = await observed.organizer()
    body = BODY | {"run_in_background": False}
    answer = (await observed.post(EXECUTE, auth, json=body))[1]
    assert (answer["status"], answer["job_id"], answer["result"]["total_files"]) == ("completed", None, 6)
    observed.sim.organizer.script.outcome = "failed"
    answer = (await observed.post(EXECUTE, auth, json=body))[1]
    assert (answer["status"], answer["result"]) == ("failed", None)


# -- the lifecycle generation --------------------------------------------------------------------------------


async def test_lifecycle_events(lifecycle: Any) -> None:
    """Revisions grow by one, progress comes with the last update, failed files make it partial [code]."""
    auth = await lifecycle.organizer()
    socket = await lifecycle.listen(auth, "jobs")
    await lifecycle.frames(socket, 2)
    job_id = lifecycle.sim.organizer.add(seconds=1, scheduled=1, failed=2)
    frames = await lifecycle.frames(socket, 3)
    assert [frame["status"] for frame in frames] == ["scheduled", "running", "partial"]
    assert [frame["revision"] for frame in frames] == [1, 2, 3]
    assert frames[0]["scheduled_for"].endswith("+00:00")
    assert frames[1]["progress"]["percent"] == 0.0
    assert frames[2]["progress"] == {
        "total": 6,
        "completed": 4,
        "failed": 2,
        "skipped": 0,
        "percent": 100.0,
    }
    answer = (await lifecycle.get(f"/api/v1/organize/status/{job_id}", auth))[1]
    assert answer["revision"] == 3
    assert answer["transaction_id"] == answer["result"]["transaction_id"] == frames[2]["transaction_id"]


async def test_lifecycle_cancel(lifecycle: Any) -> None:
    """Queued and scheduled jobs can be cancelled; running ones and stale revisions are 409 [code]."""
    auth = await lifecycle.organizer()
    organizer = lifecycle.sim.organizer
    queued, running = organizer.add(queued=30), organizer.add(seconds=30)
    await lifecycle.until(lambda: organizer.jobs[running].status == "running")

    async def cancel(job_id: str, body: Any) -> tuple[int, Any]:
        answer: tuple[int, Any] = await lifecycle.post(
            f"/api/v1/organize/jobs/{job_id}/cancel", auth, json=body
        )
        return answer

    assert (await cancel(queued, None))[0] == 422
    status, answer = await cancel(queued, {"expected_revision": 9})
    assert (status, answer["code"]) == (409, "stale_job_revision")
    status, answer = await cancel(queued, {"expected_revision": 1})
    assert (status, answer["status"]) == (200, "cancelled")
    status, answer = await cancel(running, {})
    assert (status, answer["error"], answer["retryable"]) == (409, "invalid_job_transition", False)


async def test_lifecycle_idempotency(lifecycle: Any) -> None:
    """The same key gives the same job, always called queued [code]."""
    auth = await lifecycle.organizer()
    body = BODY | {"idempotency_key": "k1"}
    first = (await lifecycle.post(EXECUTE, auth, json=body))[1]
    await lifecycle.until(lambda: lifecycle.sim.organizer.jobs[first["job_id"]].done)
    assert (await lifecycle.post(EXECUTE, auth, json=body))[1] == first
    assert first["status"] == "queued"
    assert lifecycle.sim.organizer.starts == [first["job_id"]]


async def test_lifecycle_rollback_and_list(lifecycle: Any) -> None:
    """A finished job becomes active again by a rollback [code]."""
    auth = await lifecycle.organizer()
    organizer = lifecycle.sim.organizer
    done, broken = organizer.add(seconds=0), organizer.add(seconds=0, outcome="recovery_required")
    await lifecycle.until(lambda: organizer.jobs[done].done and organizer.jobs[broken].done)
    path = "/api/v1/organize/jobs"
    status, answer = await lifecycle.post(f"{path}/{done}/rollback", auth, json={})
    assert (status, answer["status"]) == (200, "rolling_back")
    await lifecycle.until(lambda: organizer.jobs[done].status == "rolled_back")
    assert (await lifecycle.post(f"{path}/{broken}/rollback", auth, json={}))[0] == 400
    rows = (await lifecycle.get(path, auth))[1]
    assert [row["job_id"] for row in rows] == [broken, done]
    assert (await lifecycle.get(f"{path}?status=rolled_back&limit=1", auth))[1][0]["job_id"] == done


async def test_older_generations_have_no_cancel(client: Any) -> None:
    """Neither the docs nor a3 know cancel, rollback or a list of jobs [code]."""
    auth = await client.organizer()
    job_id = client.sim.organizer.add(queued=30)
    assert (await client.post(f"/api/v1/organize/jobs/{job_id}/cancel", auth, json={}))[0] == 404
    assert (await client.get("/api/v1/organize/jobs", auth))[0] == 404
