"""Tagger beyond the recordings: the documented dialect, commands, history, tokens."""

from __future__ import annotations

from typing import Any


async def test_documented_frames(documented: Any) -> None:
    """Progress is typed, the state has numbers, terminal counts are strings [seed]."""
    auth = await documented.tagger()
    documented.sim.tagger.script.seconds = 15
    job_id = await documented.start_batch(auth, "a.pdf", "missing.pdf", "b.pdf?http=429")
    socket = await documented.observe(job_id, auth)
    catchup, *rows, last = await documented.frames(socket)
    assert catchup == {
        "type": "catchup",
        "job_id": job_id,
        "state": {
            "status": "processing",
            "progress": 0.0,
            "processed_count": 0,
            "failed_count": 0,
            "total": 3,
        },
        "results": [],
    }
    assert {row["type"] for row in rows} == {"progress"}
    assert [row["status"] for row in rows] == ["success", "processing", "failed", "processing", "failed"]
    assert "error" not in rows[0]
    assert set(rows[0]["metadata"]) >= {"is_scanned", "processing_time"}
    assert rows[2]["error_type"] == "network"
    assert "retry_count" not in rows[2]
    assert (rows[4]["error_type"], rows[4]["retry_after_ms"]) == ("rate-limit", 2000)
    assert last == {
        "type": "completed",
        "job_id": job_id,
        "processed_count": "1",
        "failed_count": "2",
        "message": "Job completed",
    }
    assert socket.close_code == 1000
    late = await documented.frames(await documented.observe(job_id, auth))
    assert [row["status"] for row in late[0]["results"]] == ["success", "failed", "failed"]
    assert late[1]["type"] == "completed"
    status, answer = await documented.get(f"/api/batch/jobs/{job_id}/status", auth)
    assert (status, answer["total_documents"], "total" in answer) == (200, 3, False)


async def test_missing_credentials(documented: Any, observed: Any) -> None:
    """Without a header the docs promise 401 and the server says 403 [docs][lab]."""
    for client, status in ((documented, 401), (observed, 403)):
        assert await client.get("/api/batch/active") == (status, {"detail": "Not authenticated"})
        assert (await client.get("/api/batch/active", {"Authorization": "Bearer x"}))[0] == 401


async def test_failed_job(documented: Any, observed: Any) -> None:
    """A job-level failure is "error" live, and late "error" as documented but "failed" as observed."""
    for client, late_type in ((documented, "error"), (observed, "failed")):
        auth = await client.tagger()
        early = await client.observe("j", auth)
        client.sim.tagger.add("j", outcome="failed", error="No memory left")
        live = (await client.frames(early))[-1]
        assert live["type"] == "error"
        assert live.get("message", live.get("error")) == "No memory left"
        late = await client.frames(await client.observe("j", auth))
        assert late[-1]["type"] == late_type


async def test_lost_end_is_found_by_the_idle_tick(simulate: Any) -> None:
    """When the last frame is lost, the 30 s tick tells the end, without counts [code]."""
    observed = await simulate("observed", speed=200)
    auth = await observed.tagger()
    early = await observed.observe("j", auth)
    observed.sim.tagger.add("j", seconds=0)
    observed.sim.tagger.jobs["j"].faults.lose_terminal = True
    frames = await observed.frames(early)
    assert frames[-2:] == [
        {"type": "keepalive", "job_id": "j", "status": "completed"},
        {"type": "completed", "job_id": "j", "message": "Job completed"},
    ]
    assert early.close_code == 1000


async def test_frames_in_the_catchup_gap_are_lost(client: Any) -> None:
    """What happens between snapshot and subscription reaches nobody [code]."""
    auth = await client.tagger()
    client.sim.tagger.add("j", seconds=9, documents=3, catchup_gap=7)
    frames = await client.frames(await client.observe("j", auth))
    assert frames[0]["type"] == "catchup"
    assert len(frames) < 4


async def test_pause_holds_as_documented(documented: Any) -> None:
    """Pause lasts until resume, and the job stays among the active ones [docs]."""
    auth = await documented.tagger()
    job_id = documented.sim.tagger.add(seconds=12, documents=4)
    job = documented.sim.tagger.jobs[job_id]
    command = f"/api/batch/jobs/{job_id}"
    status, answer = await documented.post(f"{command}/pause", auth)
    assert (status, answer["job_id"]) == (200, job_id)
    await documented.until(lambda: job.status == "paused")
    assert [row["status"] for row in (await documented.get("/api/batch/active", auth))[1]["jobs"]] == [
        "paused"
    ]
    assert not job.done
    await documented.post(f"{command}/resume", auth)
    await documented.until(lambda: job.status == "completed")
    assert (await documented.post("/api/batch/jobs/none/cancel", auth))[0] == 404


async def test_pause_is_broken_as_observed(observed: Any) -> None:
    """Pause ends by itself, the status keeps saying "paused", the job leaves the active ones [lab]."""
    auth = await observed.tagger()
    job_id = observed.sim.tagger.add(seconds=12, documents=3)
    job = observed.sim.tagger.jobs[job_id]
    await observed.post(f"/api/batch/jobs/{job_id}/pause", auth)
    await observed.until(lambda: job.status == "paused")
    assert (await observed.get("/api/batch/active", auth))[1] == {"jobs": []}
    await observed.until(lambda: job.processed == 2)
    assert job.status == "paused"
    await observed.until(lambda: job.status == "completed")


async def test_cancel_is_lost_to_a_later_command(observed: Any) -> None:
    """The command slot holds one command: a resume overwrites a cancel [lab]."""
    auth = await observed.tagger()
    job_id = observed.sim.tagger.add(seconds=12, documents=3)
    for command in ("cancel", "resume"):
        assert (await observed.post(f"/api/batch/jobs/{job_id}/{command}", auth))[0] == 200
    job = observed.sim.tagger.jobs[job_id]
    await observed.until(lambda: job.done)
    assert job.status == "completed"


async def test_cancel_in_the_last_document_is_too_late(client: Any) -> None:
    """With no document left the job completes despite the accepted cancel [lab]."""
    auth = await client.tagger()
    job_id = client.sim.tagger.add(seconds=9, documents=1)
    assert (await client.post(f"/api/batch/jobs/{job_id}/cancel", auth))[0] == 200
    await client.until(lambda: client.sim.tagger.jobs[job_id].done)
    assert client.sim.tagger.jobs[job_id].status == "completed"


async def test_restart_leaves_jobs_processing(simulate: Any) -> None:
    """The worker dies with the server; the status stays, the sockets break [code]."""
    client = await simulate("observed", speed=200)
    auth = await client.tagger()
    job_id = client.sim.tagger.add(seconds=3000)
    socket = await client.observe(job_id, auth)
    client.sim.tagger.restart()
    await client.frames(socket)
    assert socket.close_code == 1006
    await client.until(lambda: client.sim.tagger.sockets == 0)
    again = await client.observe(job_id, auth)
    assert (await client.frames(again, 2))[1] == {
        "type": "keepalive",
        "job_id": job_id,
        "status": "processing",
    }


async def test_reused_id_keeps_old_results(observed: Any) -> None:
    """Starting an id again mixes the results of both runs [lab]."""
    auth = await observed.tagger()
    for paths in (("a.pdf",), ("b.pdf", "c.pdf")):
        await observed.start_batch(auth, *paths, job_id="again")
        await observed.until(lambda: observed.sim.tagger.jobs["again"].done)
    catchup = (await observed.frames(await observed.observe("again", auth)))[0]
    assert [row["row_id"] for row in catchup["results"]] == [0, 0, 1]
    assert observed.sim.tagger.starts == ["again", "again"]


async def test_start_is_checked(client: Any) -> None:
    """400 for no documents or key, 422 for a bad shape; none of them starts anything [lab]."""
    auth = await client.tagger()
    good = {"documents": [{"title": "a", "file_path": "a"}], "config": {"api_key": "k"}}
    wrong = [
        ({"documents": []}, 400),
        ({"config": {"api_key": ""}}, 400),
        ({"documents": "a"}, 422),
        ({"config": None}, 422),
        ({"config": {"api_key": "k", "num_pages": 11}}, 422),
        ({"config": {"api_key": "k", "num_tags": 2}}, 422),
    ]
    for change, status in wrong:
        assert (await client.post("/api/batch/start", auth, json=good | change))[0] == status, change
    assert (await client.post("/api/batch/start", auth, content=b"{"))[0] == 422
    assert client.sim.tagger.starts == []


async def test_history_has_an_id_of_its_own(observed: Any) -> None:
    """History knows db_job_id, not job_id; others' records are 403, non-UUIDs 422 [code]."""
    auth = await observed.tagger()
    job_id = observed.sim.tagger.add("j", seconds=0, documents=2, failed=1)
    job = observed.sim.tagger.jobs[job_id]
    await observed.until(lambda: job.done)
    path = "/api/history/jobs"
    status, answer = await observed.get(f"{path}/{job.db_id}", auth)
    assert status == 200
    assert [row["status"] for row in answer["documents"]] == ["success", "failed"]
    assert (await observed.get(path, auth))[1]["total"] == 1
    assert (await observed.get(f"{path}/j", auth))[0] == 422
    bob = await observed.tagger("bob@example.com")
    assert (await observed.get(f"{path}/{job.db_id}", bob))[0] == 403
    assert (await observed.http.delete(f"{path}/{job.db_id}", headers=auth)).status_code == 200
    assert (await observed.get(f"{path}/{job.db_id}", auth))[0] == 404


async def test_tokens_rotate(client: Any) -> None:
    """A refresh token works once; expired access tokens are 401 until refreshed [code]."""
    login = {"email": "alice@example.com", "password": "wonderland-12A"}
    tokens = (await client.post("/api/auth/login", json=login))[1]["tokens"]
    client.sim.tagger.expire_tokens()
    old = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert (await client.get("/api/auth/me", old))[0] == 401
    body = {"refresh_token": tokens["refresh_token"]}
    status, pair = await client.post("/api/auth/refresh", json=body)
    assert (status, set(pair)) == (200, {"access_token", "refresh_token", "token_type", "expires_in"})
    assert (await client.get("/api/auth/me", {"Authorization": f"Bearer {pair['access_token']}"}))[0] == 200
    assert (await client.post("/api/auth/refresh", json=body))[0] == 401
    client.sim.tagger.access_seconds = 0
    assert (await client.get("/api/auth/me", await client.tagger()))[0] == 401


async def test_accounts(client: Any) -> None:
    """Register, log in, be disabled, log out."""
    body = {"email": "carol@example.com", "password": "looking-glass"}
    status, user = await client.post("/api/auth/register", json=body)
    assert (status, user["email"]) == (201, "carol@example.com")
    assert (await client.post("/api/auth/register", json=body))[0] == 400
    assert (await client.post("/api/auth/register", json=body | {"password": "short"}))[0] == 422
    tokens = (await client.post("/api/auth/login", json=body))[1]["tokens"]
    auth = {"Authorization": f"Bearer {tokens['access_token']}"}
    refresh = {"refresh_token": tokens["refresh_token"]}
    assert (await client.post("/api/auth/logout", json=refresh))[1]["success"] is True
    assert (await client.get("/api/auth/me", auth))[0] == 200
    assert (await client.post("/api/auth/refresh", json=refresh))[0] == 401
    client.sim.tagger.users["carol@example.com"].active = False
    assert (await client.get("/api/auth/me", auth))[0] == 403
    assert (await client.post("/api/auth/login", json=body))[0] == 403


async def test_internal_error_of_the_observer(client: Any) -> None:
    """A server fault is an untyped frame and close 1000, not 1008 [code]."""
    auth = await client.tagger()
    job_id = client.sim.tagger.add(seconds=30)
    socket = await client.observe(job_id, auth)
    await client.frames(socket, 1)
    client.sim.tagger.break_observers(job_id)
    assert (await client.frames(socket))[-1] == {"error": "Redis connection lost", "job_id": job_id}
    assert socket.close_code == 1000


async def test_disconnecting_cancels_nothing(client: Any) -> None:
    """The job goes on when its observer leaves [seed]."""
    auth = await client.tagger()
    job_id = client.sim.tagger.add(seconds=1)
    await (await client.observe(job_id, auth)).close()
    await client.until(lambda: client.sim.tagger.jobs[job_id].status == "completed")
