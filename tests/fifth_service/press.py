# SPDX-License-Identifier: Apache-2.0
"""A fifth service, for docs/fifth-service.md: the Press prints what it is sent, and says so on a socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_status_provider.errors import InvalidConnection, RemoteUnavailable
from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.operators.base import Started, StatusOperator, given
from airflow_status_provider.operators.memory import Memory
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import (
    NOTHING,
    AuthScheme,
    Conversation,
    Heard,
    Phase,
    Request,
    Response,
    StreamProtocol,
    Update,
    complaint,
    phase_of,
    segment,
)
from airflow_status_provider.protocols.signing import StaticToken
from airflow_status_provider.sensors.base import StatusSensor
from airflow_status_provider.triggers.base import StatusTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

# -- protocols/press.py: what the service says

STATUSES: Mapping[str, Phase] = {
    "queued": Phase.PENDING,
    "printing": Phase.RUNNING,
    "printed": Phase.SUCCEEDED,
    "jammed": Phase.FAILED,
    "withdrawn": Phase.CANCELLED,
}


class PrintKind(JobKind):
    service = "press"
    name = "print"
    noun = "print"

    def status_request(self, job_id: str, scope: str | None = None) -> Request:
        return Request(method="GET", path=f"/jobs/{segment(job_id)}", repeatable=True)

    def read_status(self, job_id: str, response: Response) -> Update:
        return read_print(job_id, response.object())

    def read_result(self, update: Update) -> dict[str, Any]:
        return {"job_id": update.job_id, "phase": str(update.phase), "pages": update.result}


PRINT = PrintKind()
KINDS = (PRINT,)


def read_print(job_id: str, body: Mapping[str, Any]) -> Update:
    status = reading.word(body.get("state"))
    if status is None:
        raise RemoteUnavailable("the print's answer has no state")
    phase, known = phase_of(STATUSES, status)
    pages = reading.count(body.get("pages"))
    told = {"phase": phase, "status": status, "known_status": known, "message": complaint(body.get("error"))}
    return Update(kind=PRINT.name, job_id=job_id, processed=pages, result=pages, **told)


def start(title: str) -> Conversation[Update]:
    body = (yield Request(method="POST", path="/jobs", json={"title": title})).object()
    return read_print(str(body["job"]), body)


class Events:
    large_frames = False
    silence: float | None = None
    ping_timeout = 20.0
    proof_within = 0.0

    def key(self, job_id: str) -> str:
        return ""  # one socket for the whole account

    def path(self, key: str, client_id: str) -> str:
        return ""

    def hello(self) -> tuple[str, ...]:
        return ()

    def read_frame(self, raw: str | bytes | dict[str, Any]) -> Heard:
        frame = reading.frame(raw)
        job_id = reading.text(frame.get("job"))
        if job_id is None or reading.word(frame.get("state")) is None:
            return NOTHING
        return Heard((read_print(job_id, frame),), proof=True)


class Press:
    name: ClassVar[str] = "press"
    title: ClassVar[str] = "Press"
    prefix: ClassVar[str] = "/press/v1"
    default_host: ClassVar[str | None] = None
    stream: ClassVar[StreamProtocol | None] = Events()

    def socket_base(self, origin: str, base: str) -> str:
        return f"{base}/events"

    def auth(self, login: str | None, password: str | None, extra: Mapping[str, Any]) -> AuthScheme:
        if login or not password:
            raise InvalidConnection("the Press has no login; put its key into the password")
        return StaticToken(password)

    def probe(self) -> Request:
        return Request(method="GET", path="/me", repeatable=True)

    def read_probe(self, response: Response) -> None:
        response.object()


SERVICE = Press()


# -- hooks/press.py, triggers/press.py, sensors/press.py, operators/press.py: how Airflow says it


class PressHook(StatusHook):
    conn_name_attr = "press_conn_id"
    default_conn_name = "press_default"
    conn_type = "press"
    hook_name = "Press"
    service = SERVICE
    kind = PRINT

    def __init__(self, press_conn_id: str = default_conn_name) -> None:
        super().__init__(press_conn_id)


class PressTrigger(StatusTrigger):
    kind = PRINT
    hook_class = PressHook


class PressSensor(StatusSensor):
    template_fields: Sequence[str] = ("job_id", "press_conn_id")
    kind = PRINT
    hook_class = PressHook
    trigger_class = PressTrigger
    conn_field = "press_conn_id"
    id_field = "job_id"

    def __init__(self, *, job_id: str, press_conn_id: str = "press_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.press_conn_id = press_conn_id


class PressOperator(StatusOperator):
    template_fields: Sequence[str] = ("title", "press_conn_id")
    kind = PRINT
    hook_class = PressHook
    trigger_class = PressTrigger
    conn_field = "press_conn_id"

    def __init__(self, *, title: str, press_conn_id: str = "press_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.title = title
        self.press_conn_id = press_conn_id

    def validate(self) -> None:
        given("title", self.title)

    def start(self, context: Context, memory: Memory) -> Started:
        with self.starting(memory):
            update = self.hook().talk(start(self.title))
        return Started(update.job_id, update=update)
