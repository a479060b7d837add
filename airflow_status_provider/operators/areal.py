"""The Areal operators; common parameters and errors as in ``StatusOperator``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_status_provider import compat
from airflow_status_provider.errors import InvalidInput, NotFound, StatusProviderError
from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.operators.base import Started, StatusOperator
from airflow_status_provider.operators.haidy import existing_files
from airflow_status_provider.operators.lineage import Place, objects, of_service, on_worker
from airflow_status_provider.operators.memory import Memory
from airflow_status_provider.outcomes import wait_record
from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.model import clean_id
from airflow_status_provider.triggers.areal import (
    ArealCDBalancerTrigger,
    ArealCopilotTrigger,
    ArealSessionTrigger,
)
from airflow_status_provider.waiting.wait import start_and_wait

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_status_provider.transport.http import Client


class ArealOperator(StatusOperator):
    hook_class = ArealHook
    conn_field = "areal_conn_id"

    areal_conn_id: str

    def areal(self) -> ArealHook:
        return self.hook_of(ArealHook)

    def places(self, document_ids: Iterable[object]) -> list[Place]:
        base = self.areal().endpoint().base
        return [of_service("areal", base, f"documents/{document_id}") for document_id in document_ids]


class ArealProcessDocumentsOperator(ArealOperator):
    """Uploads files and waits for all documents that they become (documented: the three-step upload).

    One upload can become several documents: the *session* is waited for, the parts of splits included.
    Some documents failed: ``partial``; all failed: ``failed``; all deleted: ``cancelled``.

    XCom: ``{"upload_session_id", "phase", "status", "message", "completed", "failed", "documents"}``, with
    the service's own object of each document (``id``, ``name``, ``status`` …). Beside ``job_id``, the XComs
    ``upload_session_id`` and ``document_ids`` (of the uploaded files) are there from the start.

    Documents cannot be cancelled: when the task is killed or times out, they are processed on. A try that was
    lost in the middle of its upload is followed by one that uploads again.

    :param files: paths of the files on the worker.
    :param upload_session_id: an existing session to append to; by default a new one, which is recommended,
        since in a shared session the parts of one upload cannot be distinguished from those of another.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("files", "upload_session_id", "areal_conn_id")
    kind = areal.SESSION
    trigger_class = ArealSessionTrigger

    def __init__(
        self,
        *,
        files: Sequence[str] | str,
        upload_session_id: str | None = None,
        areal_conn_id: str = ArealHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.files = files
        self.upload_session_id = upload_session_id
        self.areal_conn_id = areal_conn_id

    def validate(self) -> None:
        existing_files("files", self.files)
        if self.upload_session_id is not None:
            self.upload_session_id = self.kind.validate(self.upload_session_id)

    def start(self, context: Context, memory: Memory) -> Started:
        files = existing_files("files", self.files)
        hook = self.areal()
        presigned = hook.presign([path.name for path in files], self.upload_session_id)
        started = _of_session(presigned.upload_session_id, [slot.document_id for slot in presigned.slots])
        # the ids are known before anything is processed: remember them first
        memory.asking(job_id=started.job_id, xcoms=started.xcoms, options=started.options)
        hook.store(presigned, files)
        return _of_session(started.job_id, [self._process(started.job_id, slot) for slot in presigned.slots])

    def _process(self, session: str, slot: areal.Slot) -> str:
        """Start the processing of one file. It is looked for alone: the next ones have not started yet."""
        hook = self.areal()
        one = self.start_or_find(
            lambda: _of_session(session, [hook.process(session, slot)]),
            _of_session(session, [slot.document_id]),
        )
        return str(one.xcoms["document_ids"][0])

    def happened(self, job: Started) -> bool:
        """The session is there from the first step on; only the third makes the documents."""
        hook = self.areal()
        try:
            for document_id in job.xcoms["document_ids"]:
                hook.get_status(document_id)
        except NotFound:
            return False
        return True

    def look_back_options(self) -> dict[str, Any]:
        return {"settled": True}

    def reads(self) -> Iterable[Place | None]:
        return on_worker(self.files)

    def writes(self, result: Any) -> Iterable[Place | None]:
        return self.places(document["id"] for document in objects(result["documents"]))


def _of_session(upload_session_id: str, document_ids: list[str]) -> Started:
    xcoms = {"upload_session_id": upload_session_id, "document_ids": document_ids}
    return Started(upload_session_id, xcoms, {"documents": document_ids})


class ArealCDBalancerOperator(ArealOperator):
    """Balances two processed closing disclosures (documented: ``POST /cdbalancer/``).

    Only the socket reports the run's end, so the one that starts it must listen first: the trigger opens the
    socket and then starts the run, once (a triggerer that is lost in between is not followed by a second
    start, but by ``StartUncertain``). On Airflow before 3.3, where a trigger cannot write that down, the run
    is started and waited for on the worker.

    XCom: ``{"job_id", "phase", "status", "result"}`` and, where the service says something, ``message``;
    ``job_id`` is the run's ``request_id``, which is also pushed under that name when the run has started.

    A retry starts a new run: how the one before it ended may have passed unheard.

    :param document_id_1: a processed closing disclosure.
    :param document_id_2: another one.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("document_id_1", "document_id_2", "areal_conn_id")
    kind = areal.CD_BALANCER
    trigger_class = ArealCDBalancerTrigger
    with_result = False

    def __init__(
        self,
        *,
        document_id_1: str,
        document_id_2: str,
        areal_conn_id: str = ArealHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.document_id_1 = document_id_1
        self.document_id_2 = document_id_2
        self.areal_conn_id = areal_conn_id

    def validate(self) -> None:
        for name in ("document_id_1", "document_id_2"):
            setattr(self, name, clean_id(getattr(self, name), f"document ({name})"))

    def reads(self) -> Iterable[Place | None]:
        return self.places([self.document_id_1, self.document_id_2])

    def execute(self, context: Context) -> Any:
        try:
            self.validate()
        except InvalidInput as error:
            raise error.at(self.hook().where) from None
        hook = self.areal()
        for document_id in (self.document_id_1, self.document_id_2):
            try:
                hook.check(document_id, areal.DOCUMENT, {})
            except NotFound as error:
                raise error.at(hook.describe(document_id)) from None
        began = time.time()
        deadline = self.deadline(context, began)
        if self.deferrable and compat.task_state_store(context) is not None:
            options = {"start": [self.document_id_1, self.document_id_2]}
            self._defer(context, "", seen=True, options=options, began=began, deadline=deadline)

        memory = Memory(context)

        async def start(client: Client) -> str:
            with self.starting(memory):
                try:
                    update = await client.talk(areal.balance(self.document_id_1, self.document_id_2))
                except StatusProviderError as error:
                    raise error.at(hook.where) from None
            memory.keep(job_id=update.job_id)
            self.announce(context, Started(update.job_id, {"request_id": update.job_id}))
            return update.job_id

        outcome = self.run_until(
            deadline,
            start_and_wait(
                hook.endpoint(), self.kind, start, deadline=deadline.at, poll_interval=self.poll_interval
            ),
        )
        return self.finish(context, outcome.update, wait_record(outcome.how, time.time() - began))


class ArealCopilotOperator(ArealOperator):
    """Runs a copilot task in a session (documented: ``POST /copilot/task/{id}/execute/``).

    The service answers no id for the run and shows only the last one: the ``updated_at`` of the run
    that we started distinguishes it from the one before. A run that is ``n/a`` (not applicable) counts as
    ``partial``.

    XCom: ``{"copilot_task_id", "phase", "status", "message", "results"}``, ``results`` as the service has it.

    :param copilot_task_id: the copilot task.
    :param upload_session_id: the session to run it in.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("copilot_task_id", "upload_session_id", "areal_conn_id")
    kind = areal.COPILOT
    trigger_class = ArealCopilotTrigger

    def __init__(
        self,
        *,
        copilot_task_id: str,
        upload_session_id: str,
        areal_conn_id: str = ArealHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.copilot_task_id = copilot_task_id
        self.upload_session_id = upload_session_id
        self.areal_conn_id = areal_conn_id

    def validate(self) -> None:
        self.copilot_task_id = self.kind.validate(self.copilot_task_id)
        self.upload_session_id = clean_id(self.upload_session_id, "upload session")

    def start(self, context: Context, memory: Memory) -> Started:
        hook = self.areal()
        scope = {"scope": self.upload_session_id}
        before = hook.get_status(self.copilot_task_id, kind=self.kind, **scope)
        options = {**scope, "baseline": areal.run_stamp(before)}
        xcoms = {"copilot_task_id": self.copilot_task_id}
        memory.asking(job_id=self.copilot_task_id, xcoms=xcoms, options=options)
        started = Started(self.copilot_task_id, xcoms, options)

        def execute() -> Started:
            hook.execute_copilot(self.copilot_task_id, self.upload_session_id)
            return started

        return self.start_or_find(execute, started)

    def happened(self, job: Started) -> bool:
        """The task is always there: the start happened if its last run is another than before."""
        update = self.areal().get_status(job.job_id, kind=self.kind, **job.options)
        return update.recheck_in is None and update.status != "never run"

    def look_back_options(self) -> dict[str, Any]:
        return {"scope": clean_id(self.upload_session_id, "upload session")}
