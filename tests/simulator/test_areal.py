"""Areal, the same in both dialects: documents, sessions, other jobs, accounts, the upload target."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import websockets

from airflow_status_provider.simulator.areal import API_KEY, COPILOT_GROUP, COPILOT_TASK


def told(frames: list[Any]) -> list[tuple[str, Any]]:
    return [(frame["type"], (frame["data"] or {}).get("status")) for frame in frames]


async def test_document(documented: Any) -> None:
    """Presign, upload, process; each state is told, and GET agrees [seed][docs]."""
    auth = await documented.areal()
    socket = await documented.connect("/status/", auth)
    session_id, document_id = await documented.process(auth)
    frames = await documented.frames(socket, 4)
    assert [frame["data"]["status"] for frame in frames] == [
        "pending",
        "preparing",
        "processing",
        "completed",
    ]
    user = documented.sim.areal.users["alice"].id
    assert frames[0] == {
        "type": "FILE_STATUS_UPDATED",
        "meta": {"upload_session_id": session_id, "id": document_id, "user": {"id": user}},
        "data": {"status": "pending"},
    }
    status, answer = await documented.get(f"/api/v2/documents/{document_id}/", auth)
    assert (status, answer["status"]) == (200, "completed")
    assert (await documented.http.get(answer["pdf_url"])).content == b"%PDF"
    assert documented.sim.areal.starts == [document_id]


@pytest.mark.parametrize("keep", [True, False])
async def test_split(documented: Any, keep: bool) -> None:
    """One upload becomes several documents; the original lives on or is deleted [seed][infer]."""
    documented.sim.areal.script.split = 2
    documented.sim.areal.script.split_failed = 1
    documented.sim.areal.script.keep_original = keep
    auth = await documented.areal()
    socket = await documented.connect("/status/", auth)
    session_id, document_id = await documented.process(auth, "loan.pdf")
    frames = await documented.frames(socket, 14 if keep else 13)
    created = [frame for frame in frames if frame["type"] == "FILE_CREATED"]
    assert [frame["data"]["name"] for frame in created] == ["loan part 1.pdf", "loan part 2.pdf"]
    assert all("id" not in frame["meta"] for frame in created)
    deleted = [frame for frame in frames if frame["type"] == "FILE_DELETED"]
    assert [frame["data"] for frame in deleted] == ([] if keep else [None])
    assert (await documented.get(f"/api/v2/documents/{document_id}/", auth))[0] == (200 if keep else 404)
    rows = (await documented.get(f"/api/v2/sessions/{session_id}/", auth))[1]["objects"]
    assert [row["status"] for row in rows] == ["completed"] * (2 if keep else 1) + ["failed"]
    answer = (await documented.get("/api/v2/sessions/", auth))[1]
    assert answer["objects"][0]["documents_count"]["failed"] == 1
    assert answer["meta"] == {"totalCount": 1, "pageIndex": 0, "pageSize": 50}


async def test_noise(documented: Any) -> None:
    """Frames of all 11 types about other things surround the real ones [seed]."""
    socket = await documented.connect("/status/", await documented.areal())
    job_id = documented.sim.areal.add(seconds=0, noise=True)
    frames = await documented.frames(socket, 48)
    assert len({frame["type"] for frame in frames}) == 11
    mine = [frame for frame in frames if frame["meta"].get("id") == job_id]
    assert len(mine) == 4


async def test_upload_target(documented: Any) -> None:
    """The target takes the signed fields first, the file last, and no Areal credentials [docs]."""
    auth = await documented.areal()
    body = {"file_names": ["a.pdf", "b.pdf"]}
    presigned = (await documented.post("/api/v2/processing/presigned_url/", auth, json=body))[1]
    first, second = presigned["presigned_urls"]
    file = ("file", ("a.pdf", b"%PDF"))
    fields = [(name, (None, value)) for name, value in first["fields"].items()]

    async def store(parts: Any, headers: Any = None) -> int:
        response = await documented.http.post(first["url"], files=parts, headers=headers)
        return int(response.status_code)

    assert await store([*fields, file], auth) == 400
    assert await store([*fields, file], {"Cookie": "access_token=x"}) == 400
    assert await store([file, *fields]) == 400
    assert await store([*fields[1:], file]) == 403
    process = {
        "upload_session_id": presigned["upload_session_id"],
        "document_id": first["document_id"],
        "file_name": "a.pdf",
    }
    assert (await documented.post("/api/v2/processing/upload/", auth, json=process))[0] == 400
    assert await store([*fields, file]) == 204
    assert (await documented.post("/api/v2/processing/upload/", auth, json=process))[0] == 200
    wrong_session = process | {"upload_session_id": str(uuid.uuid4()), "document_id": second["document_id"]}
    assert (await documented.post("/api/v2/processing/upload/", auth, json=wrong_session))[0] == 404


async def test_session_can_be_extended(documented: Any) -> None:
    """A known session takes more files; another's or an unknown one does not [docs]."""
    auth = await documented.areal()
    session_id, _ = await documented.upload(auth)
    assert (await documented.upload(auth, upload_session_id=session_id))[0] == session_id
    url = f"/api/v2/processing/presigned_url/?upload_session_id={session_id}"
    bob = await documented.areal("bob@example.com")
    assert (await documented.post(url, bob, json={"file_names": ["a"]}))[0] == 403
    url = "/api/v2/processing/presigned_url/?upload_session_id=nonsense"
    assert (await documented.post(url, auth, json={"file_names": ["a"]}))[0] == 404


async def test_reading_what_is_not_ours(documented: Any) -> None:
    """404 unknown or not a UUID, 403 another organisation's, 401 nobody's, always with a message [docs]."""
    auth = await documented.areal()
    job_id = documented.sim.areal.add()
    for wrong in (str(uuid.uuid4()), "not-a-uuid"):
        assert await documented.get(f"/api/v2/documents/{wrong}/", auth) == (404, {"message": "Not found"})
    status, answer = await documented.get(
        f"/api/v2/documents/{job_id}/", await documented.areal("bob@example.com")
    )
    assert (status, list(answer)) == (403, ["message"])
    status, answer = await documented.get(f"/api/v2/documents/{job_id}/")
    assert (status, list(answer)) == (401, ["message"])
    assert (await documented.post("/api/v2/processing/presigned_url/", auth, json={}))[0] == 422


# -- accounts ------------------------------------------------------------------------------------------------


async def test_login(documented: Any) -> None:
    """JSON and form logins work, set cookies, and the cookies alone are enough [docs]."""
    login = {"username": "alice", "password": "wonderland-12A"}
    for more in ({"json": login}, {"data": login}):
        response = await documented.http.post("/api/v2/accounts/login/", **more)
        body = response.json()
        assert set(body) == {"access_token", "refresh_token", "requires_mfa", "pre_auth_token"}
        assert "HttpOnly; Path=/; Secure" in response.headers["Set-Cookie"]
        cookie = {"Cookie": f"access_token={body['access_token']}"}
        assert (await documented.get("/api/v2/accounts/me/", cookie))[0] == 200
    assert (await documented.post("/api/v2/accounts/login/", json=login | {"password": "x"}))[0] == 401
    for header in ({"Authorization": f"Bearer {API_KEY}"}, {"key": API_KEY}):
        assert (await documented.get("/api/v2/accounts/me/", header))[1]["username"] == "alice"


async def test_refresh_rotates_both_tokens(documented: Any) -> None:
    """A refresh invalidates the old pair; a reused token is refused; the cookie will do [docs]."""
    login = {"username": "alice", "password": "wonderland-12A"}
    old = (await documented.post("/api/v2/accounts/login/", json=login))[1]
    documented.http.cookies.clear()
    status, new = await documented.post(
        "/api/v2/accounts/refresh/", json={"refresh_token": old["refresh_token"]}
    )
    documented.http.cookies.clear()
    assert status == 200
    for token, expected in ((old, 401), (new, 200)):
        auth = {"Authorization": f"Bearer {token['access_token']}"}
        assert (await documented.get("/api/v2/accounts/me/", auth))[0] == expected
    again = {"refresh_token": old["refresh_token"]}
    assert (await documented.post("/api/v2/accounts/refresh/", json=again))[0] == 401
    cookie = {"Cookie": f"refresh_token={new['refresh_token']}"}
    status, newest = await documented.post("/api/v2/accounts/refresh/", cookie)
    documented.http.cookies.clear()
    assert status == 200
    auth = {"Authorization": f"Bearer {newest['access_token']}"}
    assert (await documented.post("/api/v2/accounts/logout/", auth))[0] == 200
    assert (await documented.get("/api/v2/accounts/me/", auth))[0] == 401


async def test_mfa(documented: Any) -> None:
    """With a second factor the login gives no tokens yet [docs]."""
    documented.sim.areal.mfa = True
    login = {"username": "alice", "password": "wonderland-12A"}
    body = (await documented.post("/api/v2/accounts/login/", json=login))[1]
    assert (body["requires_mfa"], body["access_token"]) == (True, "")
    verify = {"pre_auth_token": body["pre_auth_token"], "code": "123456"}
    assert (await documented.post("/api/v2/accounts/mfa/verify/", json=verify))[1]["access_token"]
    assert (await documented.post("/api/v2/accounts/mfa/verify/", json=verify))[0] == 401


@pytest.mark.parametrize(("mode", "status"), [("required", 401), ("http403", 403)])
async def test_socket_refused(documented: Any, mode: str, status: int) -> None:
    """Without credentials, or with only an API key, the upgrade can be refused [infer]."""
    documented.sim.areal.socket_auth = mode
    for headers in ({}, {"Authorization": f"Bearer {API_KEY}"}):
        with pytest.raises(websockets.InvalidStatus) as failure:
            await documented.connect("/status/", headers)
        assert failure.value.response.status_code == status
    documented.sim.areal.socket_accepts_key = True
    await documented.connect("/status/", {"key": API_KEY})


@pytest.mark.parametrize(("mode", "frames"), [("close", []), ("error", [{"message": "Not authenticated"}])])
async def test_socket_closed(documented: Any, mode: str, frames: list[Any]) -> None:
    """Without credentials the socket can also be closed after opening [infer]."""
    documented.sim.areal.socket_auth = mode
    socket = await documented.connect("/status/")
    assert await documented.frames(socket) == frames
    assert socket.close_code == 1008


async def test_socket_open_to_all_or_silent(documented: Any) -> None:
    """Without credentials the socket can work, as in the samples, or stay silent for ever [seed][infer]."""
    documented.sim.areal.socket_auth = "none"
    anyone = await documented.connect("//status/")
    documented.sim.areal.socket_auth = "silent"
    nobody = await documented.connect("/status/")
    documented.sim.areal.add(seconds=0)
    assert len(await documented.frames(anyone, 4)) == 4
    assert await documented.silence(nobody, 0.05)


async def test_socket_credentials(documented: Any) -> None:
    """Cookie, bearer and query token open the socket, and only one's own frames come."""
    auth = await documented.areal()
    token = auth["Authorization"].removeprefix("Bearer ")
    sockets = [
        await documented.connect("/status/", auth),
        await documented.connect("/status/", {"Cookie": f"access_token={token}"}),
        await documented.connect(f"/status/?token={token}"),
    ]
    documented.sim.areal.add(seconds=0, owner="bob")
    mine = documented.sim.areal.add(seconds=0)
    for socket in sockets:
        assert {frame["meta"]["id"] for frame in await documented.frames(socket, 4)} == {mine}


# -- the other kinds -----------------------------------------------------------------------------------------


async def test_session_and_its_end(documented: Any) -> None:
    """A session holds documents that end together on demand."""
    auth = await documented.areal()
    socket = await documented.connect("/status/", auth)
    session_id = documented.sim.areal.add(kind="session", documents=2, seconds=30)
    documented.sim.areal.end(session_id, "failed")
    frames = await documented.frames(socket, 4)
    assert told(frames) == [("FILE_CREATED", "pending")] * 2 + [("FILE_STATUS_UPDATED", "failed")] * 2
    answer = await documented.http.post(f"/api/v2/sessions/{session_id}/download/", headers=auth)
    assert answer.content.startswith(b"PK")
    documented.sim.areal.forget(session_id)
    assert (await documented.get(f"/api/v2/sessions/{session_id}/", auth))[0] == 404


async def test_doc_push_beside_its_document(documented: Any) -> None:
    """A push is about a document whose own state it does not touch [seed]."""
    auth = await documented.areal()
    socket = await documented.connect("/status/", auth)
    document_id = documented.sim.areal.add(seconds=0)
    await documented.frames(socket, 4)
    documented.sim.areal.add(document_id, kind="doc_push", seconds=30)
    documented.sim.areal.end(document_id, "failed", kind="doc_push")
    frame = (await documented.frames(socket, 1))[0]
    assert (frame["type"], frame["meta"]["id"]) == ("DOC_PUSH_FINISHED", document_id)
    assert frame["data"] == {"status": "failed", "error": "Simulated failure"}
    assert (await documented.get(f"/api/v2/documents/{document_id}/", auth))[1]["status"] == "completed"


async def test_pull_and_push(documented: Any) -> None:
    """CD pulls tell start and end, CD pushes only their end [seed]."""
    socket = await documented.connect("/status/", await documented.areal())
    areal = documented.sim.areal
    pulled = areal.add(kind="cd_pull", session_id="s-1", seconds=0)
    started, finished = await documented.frames(socket, 2)
    assert (started["type"], finished["type"]) == ("CD_PULL_STARTED", "CD_PULL_FINISHED")
    assert "id" not in started["meta"]
    assert started["data"]["document"]["id"] == pulled
    assert list(finished["data"]) == ["document", "status", "error"]
    pushed = areal.add(kind="cd_push", session_id="s-1", seconds=0)
    frame = (await documented.frames(socket, 1))[0]
    assert frame["meta"]["cdbalancer_request_id"] == pushed
    assert list(frame["meta"]) == [
        "upload_session_id",
        "cdbalancer_request_id",
        "gateway_request_id",
        "user",
    ]


async def test_single_frames(documented: Any) -> None:
    """Each event that starts elsewhere can be published by itself, absent keys included [seed]."""
    socket = await documented.connect("/status/", await documented.areal())
    areal = documented.sim.areal
    await areal.doc_push_finished("d", "s", error=None)
    await areal.cd_pull_started("s", "d")
    await areal.cd_pull_finished("s", status="failed", error="gone")
    await areal.cd_push_finished("s", "r", stats_status="warning")
    await areal.copilot_task_created("t", "s")
    await areal.copilot_task_updated("t", "s", error="late")
    await areal.copilot_task_deleted("t")
    frames = await documented.frames(socket, 7)
    assert [frame["type"] for frame in frames] == [
        "DOC_PUSH_FINISHED",
        "CD_PULL_STARTED",
        "CD_PULL_FINISHED",
        "CD_PUSH_FINISHED",
        "COPILOT_TASK_CREATED",
        "COPILOT_TASK_UPDATED",
        "COPILOT_TASK_DELETED",
    ]
    assert frames[2]["data"]["document"] is None
    assert "gateway_request_id" not in frames[3]["meta"]
    assert frames[3]["data"] == {"status": "completed", "error": None, "stats_status": "warning"}
    assert "user" not in frames[4]["meta"]
    assert "error" not in frames[4]["data"]
    assert frames[6] == {
        "type": "COPILOT_TASK_DELETED",
        "meta": {"task_group_id": COPILOT_GROUP},
        "data": {"task_id": "t"},
    }


async def test_balancer(documented: Any) -> None:
    """The balancer takes two processed documents and reports under an id of its own [docs][seed]."""
    auth = await documented.areal()
    areal = documented.sim.areal
    done = [areal.add(seconds=0), areal.add(seconds=0)]
    await documented.until(lambda: all(areal.jobs[job].done for job in done))
    socket = await documented.connect("/status/", auth)
    body = {"document_id_1": done[0], "document_id_2": done[1]}
    request_id = (await documented.post("/api/v2/cdbalancer/", auth, json=body))[1]["request_id"]
    frames = await documented.frames(socket, 3)
    assert [frame["data"]["status"] for frame in frames] == ["preparing", "processing", "completed"]
    assert {frame["meta"]["id"] for frame in frames} == {request_id}
    assert areal.starts == [request_id]
    assert (await documented.get(f"/api/v2/documents/{request_id}/", auth))[0] == 404
    unknown = body | {"document_id_2": str(uuid.uuid4())}
    assert (await documented.post("/api/v2/cdbalancer/", auth, json=unknown))[0] == 404
    unfinished = body | {"document_id_2": areal.add(seconds=30)}
    assert (await documented.post("/api/v2/cdbalancer/", auth, json=unfinished))[0] == 400


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [("docs", ["pending", "success"]), ("seed", ["pending", "processing", "completed"])],
)
async def test_copilot(documented: Any, vocabulary: str, words: list[str]) -> None:
    """A run is known by task and session, in the words of the docs or of the seed [docs][seed]."""
    auth = await documented.areal()
    socket = await documented.connect("/status/", auth)
    documented.sim.areal.script.vocabulary = vocabulary
    session_id = str(uuid.uuid4())
    path = f"/api/v2/copilot/task-group/{COPILOT_GROUP}"
    body = {"session_id": session_id}
    listing = f"{path}/tasks/?session_id={session_id}"
    task = (await documented.get(listing, auth))[1]["objects"][0]
    assert (task["id"], task["status"], task["results"]["status"]) == (COPILOT_TASK, "active", None)
    assert await documented.post(f"{path}/execute/", auth, json=body) == (200, {"message": "ok"})
    frames = await documented.frames(socket, len(words))
    assert [frame["data"]["task"]["results"]["status"] for frame in frames] == words
    assert frames[0]["meta"] == {"upload_session_id": session_id, "task_group_id": COPILOT_GROUP}
    assert frames[0]["data"]["error"] is None
    single = f"/api/v2/copilot/task/{COPILOT_TASK}/"
    answer = (await documented.get(f"{single}?session_id={session_id}", auth))[1]
    assert answer["results"]["status"] == words[-1]
    answer = (await documented.get(f"{single}?session_id=other", auth))[1]
    assert answer["results"]["status"] is None
    assert documented.sim.areal.starts == [COPILOT_TASK]


async def test_copilot_conflict_and_suppression(documented: Any) -> None:
    """A scheduled retry is 409; a failure can be overridden by hand [docs]."""
    auth = await documented.areal()
    areal = documented.sim.areal
    session_id = str(uuid.uuid4())
    task_id = areal.add(kind="copilot", session_id=session_id, seconds=0, outcome="failed", error="No plan")
    await documented.until(lambda: areal.jobs[task_id].done)
    path, body = f"/api/v2/copilot/task/{task_id}", {"session_id": session_id}
    answer = (await documented.get(f"{path}/", auth, params=body))[1]
    assert (answer["results"]["status"], answer["results"]["error_message"]) == ("failed", "No plan")
    areal.jobs[task_id].next_retry_at = "2026-05-01T10:00:00Z"
    assert (await documented.post(f"{path}/execute/", auth, json=body))[0] == 409
    override = body | {"status": "success"}
    assert (await documented.post(f"/api/v2/copilot/{task_id}/suppress/", auth, json=override))[0] == 200
    assert (await documented.get(f"{path}/", auth, params=body))[1]["results"]["status"] == "success"
    assert (await documented.post("/api/v2/copilot/task/none/execute/", auth, json=body))[0] == 404
    assert (await documented.post(f"{path}/execute/", auth, json={}))[0] == 422
