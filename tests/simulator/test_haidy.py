"""Haidy, the same in both dialects: pipelines, partial results, and everything its pages leave open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

AUDIO = [("audio_files", ("a.mp3", b"ID3"))]


async def walk(documented: Any, task_id: str) -> list[Any]:
    """Poll quickly until the end and return each distinct answer."""
    answers: list[Any] = []
    async with asyncio.timeout(5):
        while not answers or answers[-1]["status"] not in ("DONE", "FAILED"):
            status, answer = await documented.task(task_id)
            assert status == 200
            if not answers or answer["status"] != answers[-1]["status"]:
                answers.append(answer)
            await asyncio.sleep(0.002)
    return answers


async def test_audio(documented: Any) -> None:
    """The transcript is an intermediate result, replaced at DONE [seed]."""
    documented.sim.haidy.script.seconds = 24
    status, started = await documented.post(
        "/v2/audio/transcribe_file",
        documented.haidy,
        files=[*AUDIO, ("audio_files", ("b.wav", b"RIFF"))],
        data={"language": "de", "glossary": '["cardiology"]'},
    )
    assert (status, list(started)) == (200, ["task_id"])
    assert documented.sim.haidy.starts == [started["task_id"]]
    answers = await walk(documented, started["task_id"])
    words = [answer["status"] for answer in answers]
    assert words[-4:] == ["AUDIO_PROCESSING_DONE", "TRANSCRIPTION_DONE", "SERVICE_DONE", "DONE"]
    results = {answer["status"]: answer["result"] for answer in answers}
    assert results["AUDIO_PROCESSING_DONE"] is None
    assert None is not results["TRANSCRIPTION_DONE"] != results["DONE"]
    assert answers[0]["completed_at"] is None
    assert answers[-1]["completed_at"] is not None
    assert answers[-1]["percentage"] == 100
    assert list(answers[0]) == [
        "task_id",
        "status",
        "percentage",
        "result",
        "started_at",
        "completed_at",
        "status_changes_at",
    ]


@pytest.mark.parametrize(
    ("path", "body", "stage"),
    [
        ("/v2/structure", {"type": "plain_text", "text": "x"}, "DOCUMENT_PARSING_DONE"),
        ("/v2/structure/fhir", [{"type": "plain_text", "text": "x"}], "DOCUMENT_DOWNLOAD_DONE"),
        ("/v2/generate/report", {"template_name": "letter"}, "REPORT_ANNOTATION_DRAFT"),
    ],
)
async def test_other_starts(documented: Any, path: str, body: Any, stage: str) -> None:
    """Structuring and reports are tracked by the same endpoint [docs]."""
    documented.sim.haidy.script.seconds = 12
    status, started = await documented.post(path, documented.haidy, json=body)
    assert status == 200
    answers = await walk(documented, started["task_id"])
    assert stage in [answer["status"] for answer in answers]


async def test_starts_are_checked(documented: Any) -> None:
    """Language and files are mandatory, the glossary is JSON, bodies are JSON [docs]."""
    url = "/v2/audio/transcribe_file"
    refused = [
        {"files": AUDIO},
        {"data": {"language": "de"}},
        {"files": AUDIO, "data": {"language": "de", "glossary": "cardiology"}},
        {"json": {"language": "de"}},
    ]
    for more in refused:
        assert (await documented.post(url, documented.haidy, **more))[0] == 422, more
    assert (await documented.post("/v2/structure", documented.haidy, content=b"x"))[0] == 422
    assert (await documented.post("/v2/generate/report", documented.haidy, json={}))[0] == 422
    assert (await documented.post("/v2/tasks", documented.haidy, json={}))[0] == 422
    assert documented.sim.haidy.starts == []


async def test_failure(documented: Any) -> None:
    """A failed task is HTTP 200 with the details in its result [seed]."""
    task_id = documented.sim.haidy.add(outcome="FAILED", error="audio unreadable", seconds=1)
    last = (await walk(documented, task_id))[-1]
    assert (last["status"], last["result"]) == ("FAILED", {"message": "audio unreadable"})


async def test_not_found(documented: Any) -> None:
    """404 for what is unknown, for the first reads, after retention, after a one-shot read [seed][infer]."""
    assert (await documented.task("unknown"))[0] == 404
    late = documented.sim.haidy.add(missing_first=2)
    assert [(await documented.task(late))[0] for _ in range(3)] == [404, 404, 200]
    once = documented.sim.haidy.add(seconds=0, one_shot=True)
    await walk(documented, once)
    assert (await documented.task(once))[0] == 404
    kept = documented.sim.haidy.add(seconds=0, retention=15)
    await walk(documented, kept)
    assert (await documented.task(kept))[0] == 200
    await documented.until(lambda: kept not in documented.sim.haidy.jobs)
    assert (await documented.task(kept))[0] == 404
    lost = documented.sim.haidy.add()
    documented.sim.haidy.forget(lost)
    assert (await documented.task(lost))[0] == 404


async def test_authorisation(documented: Any) -> None:
    """401 without a good token, 403 for one that may not, 405 for GET [infer]."""
    body = {"task_id": documented.sim.haidy.add()}
    assert (await documented.post("/v2/tasks", json=body))[0] == 401
    assert (await documented.post("/v2/tasks", {"Authorization": "Bearer bad"}, json=body))[0] == 401
    forbidden = {"Authorization": "Bearer haidy-forbidden-token"}
    assert (await documented.post("/v2/tasks", forbidden, json=body))[0] == 403
    assert (await documented.get("/v2/tasks", documented.haidy))[0] == 405
    documented.sim.haidy.expire_tokens()
    assert (await documented.post("/v2/tasks", documented.haidy, json=body))[0] == 401


@pytest.mark.parametrize(
    ("variant", "seen"),
    [
        ("null", {None}),
        ("stuck", {0}),
        ("early", {100}),
        ("string", {"0", "12", "100"}),
        ("fraction", {0.0, 0.125, 1.0}),
    ],
)
async def test_percentages(documented: Any, variant: str, seen: set[Any]) -> None:
    """The percentage can be anything its page allows [infer]."""
    task_id = documented.sim.haidy.add(percentage=variant, seconds=3)
    found = {answer["percentage"] for answer in await walk(documented, task_id)}
    assert found & seen
    assert {type(value) for value in found} == {type(value) for value in seen}


async def test_variants(documented: Any) -> None:
    """Unknown status, RUNNING, no percentage, additional_info, a wrapped body [docs][infer]."""
    task_id = documented.sim.haidy.add(
        unknown_status="REVIEWING",
        running_alias=True,
        percentage="missing",
        additional_info={"model": "m"},
        seconds=24,
    )
    answers = await walk(documented, task_id)
    words = {answer["status"] for answer in answers}
    assert {"REVIEWING", "RUNNING"} <= words
    assert "STARTED" not in words
    assert all("percentage" not in answer and answer["additional_info"] for answer in answers)
    wrapped = documented.sim.haidy.add(wrapped=True)
    assert list((await documented.task(wrapped))[1]) == ["data"]


@pytest.mark.parametrize(
    ("shape", "keys"),
    [("id", ["id"]), ("nested", ["task"]), ("task", ["task_id", "status", "percentage"])],
)
async def test_start_shapes(documented: Any, shape: str, keys: list[str]) -> None:
    """The start answer may name the task in other ways, with another status [infer]."""
    documented.sim.haidy.start_shape, documented.sim.haidy.start_status = shape, 202
    status, answer = await documented.post("/v2/structure", documented.haidy, json={"type": "plain_text"})
    assert (status, list(answer)[:3]) == (202, keys)
