"""Haidy: tasks that are only ever polled, with POST.

No recording exists, so both dialects follow the vendor's pages [seed][docs]; what those leave open is a field
of the script or of the service [infer].
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final

from aiohttp import web

from airflow_status_provider.simulator.faults import pick
from airflow_status_provider.simulator.service import (
    Job,
    Json,
    RefusedError,
    Service,
    Setting,
    bearer,
    is_upgrade,
    multipart,
    now,
    zulu,
)

TOKEN: Final = "haidy-simulated-token"
FORBIDDEN_TOKEN: Final = "haidy-forbidden-token"
"""A good token of somebody who may not use the service: 403."""

# The order within a kind is not documented; observers must not rely on it [infer].
PIPELINES: Final = {
    "audio": (
        "CREATED",
        "QUEUED",
        "STARTED",
        "AUDIO_PREPROCESSING",
        "AUDIO_PROCESSING",
        "AUDIO_PROCESSING_DONE",
        "TRANSCRIPTION_DONE",
        "SERVICE_DONE",
    ),
    "document": (
        "CREATED",
        "QUEUED",
        "STARTED",
        "DOCUMENT_DOWNLOAD_DONE",
        "DOCUMENT_PARSING_DONE",
        "SERVICE_DONE",
    ),
    "report": (
        "CREATED",
        "QUEUED",
        "STARTED",
        "DOCUMENT_GENERATION_DONE",
        "REPORT_ANNOTATION_DRAFT",
        "SERVICE_DONE",
    ),
}
PARTIAL: Final[Json] = {"transcript": "The patient reports"}
RESULTS: Final[dict[str, Json]] = {
    "audio": {"transcript": "The patient reports no complaints.", "language": "en", "bubbles": []},
    "document": {"patient": {"conditions": [], "medications": []}},
    "report": {"report": "Discharge letter", "annotations": []},
}


@dataclass
class Script:
    """How tasks run from now on."""

    seconds: float = 3.0
    outcome: str = "DONE"
    """``DONE`` or ``FAILED``."""
    error: str | None = None
    """The message in ``result`` of a failed task; there is no error field [seed]."""
    kind: str = "audio"
    """``audio``, ``document`` or ``report``; a start call sets it itself."""
    partial: Any = field(default_factory=lambda: dict(PARTIAL))
    result: Any = None
    """The final result; None for one that fits the kind."""
    missing_first: int = 0
    """Answer 404 to this many first reads, as an eventually consistent store may [infer]."""
    one_shot: bool = False
    """Drop the task after the first read of its end, as earlier servers may have [infer]."""
    retention: float | None = None
    """Seconds a finished task stays readable."""
    unknown_status: str | None = None
    """A status of no documented kind, shown between ``STARTED`` and what follows."""
    percentage: str = "normal"
    """``normal``, ``missing``, ``null``, ``stuck`` at 0, ``early`` at 100, ``string`` or ``fraction``; the
    scale is not documented."""
    additional_info: Any = None
    running_alias: bool = False
    """Say ``RUNNING`` for ``STARTED`` [docs]."""
    wrapped: bool = False
    """Wrap task objects in ``{"data": ...}`` [infer]."""


@dataclass
class HaidyTask(Job):
    script: Script = field(default_factory=Script)
    partial_due: bool = False
    percentage: float = 0.0
    misses: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    changed_at: datetime = field(default_factory=now)


class Haidy(Service[HaidyTask, Script]):
    """The medical transcription and structuring service."""

    name = "haidy"
    status_reads: ClassVar[re.Pattern[str]] = re.compile(r"^POST /v2/tasks$")
    starts_job: ClassVar[re.Pattern[str]] = re.compile(r"^POST /v2/(audio|structure)")
    missing_upgrade_status = 404

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, Script())
        self.api_tokens = {TOKEN}
        self.start_shape = "task_id"
        """How start answers name the task: ``task_id``, ``id``, ``nested`` or ``task``. Only the name
        ``task_id`` is documented [infer]."""
        self.start_status = 200

    def routes(self) -> Iterable[web.RouteDef]:
        return [
            web.post("/v2/tasks", self._read),
            web.post("/v2/audio/transcribe_file", self._transcribe),
            web.post("/v2/structure", self._structure),
            web.post("/v2/structure/fhir", self._structure),
            web.post("/v2/structure/text", self._structure),
            web.post("/v2/structure/documents/fhir/base64", self._structure),
            web.post("/v2/generate/report", self._report),
            web.post("/v2/generate/adjust-style", self._report),
        ]

    def connection(self, auth: str) -> Json:
        return {"password": TOKEN}

    def expire_tokens(self) -> None:
        """Withdraw the API token; there is nothing to refresh it with [docs]."""
        self.api_tokens.clear()

    # -- tasks -----------------------------------------------------------------------------------------------

    def add(self, job_id: str | None = None, **overrides: Any) -> str:
        task = HaidyTask(job_id or str(uuid.uuid4()), "CREATED", script=self.scripted(overrides))
        if task.script.kind not in PIPELINES:
            raise ValueError(f"kind must be one of {tuple(PIPELINES)}, not {task.script.kind!r}")
        task.misses = task.script.missing_first
        self.jobs[task.id] = task
        self.run(task, self._work(task))
        return task.id

    async def _work(self, task: HaidyTask) -> None:
        stages = self._stages(task.script)
        for index, stage in enumerate(stages):
            self._move(task, stage)
            task.percentage = 100.0 * index / len(stages)
            await self.sleep(task.script.seconds / len(stages))
            self.block(pick("block", task.faults, self.faults) / len(stages))
            if task.script.outcome == "FAILED" and index >= len(stages) // 2:
                break
        self.finish(task, None)

    def _stages(self, script: Script) -> list[str]:
        stages = list(PIPELINES[script.kind])
        if script.unknown_status:
            stages.insert(3, script.unknown_status)
        if script.running_alias:
            stages[2] = "RUNNING"
        return stages

    def _move(self, task: HaidyTask, status: str) -> None:
        task.status, task.changed_at = status, now()
        if status in ("STARTED", "RUNNING"):
            task.started_at = task.changed_at
        if status == "TRANSCRIPTION_DONE":
            task.partial_due = True

    def finish(self, job: HaidyTask, outcome: str | None) -> None:
        self._move(job, outcome or job.script.outcome)
        job.completed_at = job.changed_at
        job.done = True
        if job.status == "DONE":
            job.percentage = 100.0
        if job.script.retention is not None:
            self.spawn(self._expire(job, job.script.retention))

    async def _expire(self, task: HaidyTask, seconds: float) -> None:
        await self.sleep(seconds)
        if self.jobs.get(task.id) is task:
            del self.jobs[task.id]

    def restart(self) -> None:
        """Tasks live in a store of their own; a restart loses nothing [infer]."""

    def _view(self, task: HaidyTask) -> Json:
        view: Json = {
            "task_id": task.id,
            "status": task.status,
            "percentage": self._percentage(task),
            "result": self._result(task),
            "started_at": zulu(task.started_at) if task.started_at else None,
            "completed_at": zulu(task.completed_at) if task.completed_at else None,
            "status_changes_at": zulu(task.changed_at),
        }
        if task.script.percentage == "missing":
            del view["percentage"]
        if task.script.additional_info is not None:
            view["additional_info"] = task.script.additional_info
        return {"data": view} if task.script.wrapped else view

    def _percentage(self, task: HaidyTask) -> float | str | None:
        match task.script.percentage:
            case "null":
                return None
            case "stuck":
                return 0
            case "early":
                return 100
            case "string":
                return str(round(task.percentage))
            case "fraction":
                return round(task.percentage / 100, 3)
            case _:
                return round(task.percentage)

    def _result(self, task: HaidyTask) -> Any:
        if task.status == "DONE":
            script = task.script
            return RESULTS[script.kind] if script.result is None else script.result
        if task.status == "FAILED":
            return {"message": task.script.error or "audio unreadable"}
        return task.script.partial if task.partial_due else None

    # -- REST ------------------------------------------------------------------------------------------------

    def job_of(self, request: web.Request, body: bytes) -> HaidyTask | None:
        if request.path != "/v2/tasks" or is_upgrade(request):
            return None
        try:
            return self.jobs.get(json.loads(body)["task_id"])
        except (ValueError, LookupError, TypeError):
            return None

    def _authorise(self, request: web.Request) -> None:
        token = bearer(request)
        if token == FORBIDDEN_TOKEN:
            raise RefusedError(self.error(403, "Forbidden"))
        if token not in self.api_tokens:
            raise RefusedError(self.error(401, "Invalid or missing token", {"WWW-Authenticate": "Bearer"}))

    async def _read(self, request: web.Request) -> web.Response:
        self._authorise(request)
        task_id = (await self.body(request)).get("task_id")
        if not isinstance(task_id, str):
            return self.invalid("task_id", "Field required")
        task = self.jobs.get(task_id)
        if task is not None and task.misses > 0:
            task.misses -= 1
            task = None
        if task is None:
            return self.error(404, "Task not found")
        if task.done and task.script.one_shot:
            del self.jobs[task_id]
        return web.json_response(self._view(task))

    def _started(self, kind: str) -> web.Response:
        task_id = self.add(kind=kind)
        self.starts.append(task_id)
        shapes: dict[str, Json] = {
            "task_id": {"task_id": task_id},
            "id": {"id": task_id},
            "nested": {"task": {"task_id": task_id}},
            "task": self._view(self.jobs[task_id]),
        }
        return web.json_response(shapes[self.start_shape], status=self.start_status)

    async def _transcribe(self, request: web.Request) -> web.Response:
        """Multipart: one ``audio_files`` part per file, and ``language``, which is mandatory [docs]."""
        self._authorise(request)
        parts = multipart(request.headers.get("Content-Type", ""), await request.read())
        fields = {part.name: part.data.decode(errors="replace") for part in parts if part.filename is None}
        if not any(part.name == "audio_files" and part.filename is not None for part in parts):
            return self.invalid("audio_files", "Field required")
        if not fields.get("language"):
            return self.invalid("language", "Field required")
        try:
            glossary = json.loads(fields.get("glossary", "[]"))
        except ValueError:
            return self.invalid("glossary", "Input should be a JSON array")
        if not isinstance(glossary, list):
            return self.invalid("glossary", "Input should be a JSON array")
        return self._started("audio")

    async def _structure(self, request: web.Request) -> web.Response:
        self._authorise(request)
        try:
            records = json.loads(await request.read())
        except ValueError:
            return self.invalid("body", "JSON decode error")
        if not isinstance(records, (dict, list)) or not records:
            return self.invalid("body", "Input should be clinical records")
        return self._started("document")

    async def _report(self, request: web.Request) -> web.Response:
        self._authorise(request)
        body = await self.body(request)
        if not body.get("template_name") and request.path.endswith("report"):
            return self.invalid("template_name", "Field required")
        return self._started("report")
