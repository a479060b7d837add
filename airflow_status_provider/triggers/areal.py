"""The Areal triggers; parameters and event as in ``StatusTrigger``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_status_provider import xcoms
from airflow_status_provider.errors import InvalidInput, StartUncertain, StatusProviderError
from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.outcomes import start_error, uncertain
from airflow_status_provider.protocols import areal
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.triggers.base import StatusTrigger
from airflow_status_provider.waiting.wait import start_and_wait, wait
from airflow_status_provider.waiting.waiter import Outcome

if TYPE_CHECKING:
    from airflow_status_provider.transport.http import Client

START_KEY = "cd_balancer_start"
STARTING = "starting"


class ArealDocumentTrigger(StatusTrigger):
    """Waits for an Areal document (documented: ``FILE_STATUS_UPDATED``, ``GET /documents/{id}/``)."""

    kind = areal.DOCUMENT
    hook_class = ArealHook


class ArealSessionTrigger(StatusTrigger):
    """Waits for all documents of an Areal upload session, the parts of a split included.

    ``options["documents"]``: ids known to belong to it.
    """

    kind = areal.SESSION
    hook_class = ArealHook


class ArealDocPushTrigger(StatusTrigger):
    """Waits for the push of an Areal document to a gateway (documented: ``DOC_PUSH_FINISHED``).

    Only the socket reports it: a push that ended before the start of the wait is not seen.
    """

    kind = areal.DOC_PUSH
    hook_class = ArealHook


class ArealCDBalancerTrigger(StatusTrigger):
    """Waits for an Areal CD balancer run (documented: ``CDBALANCER_STATUS_UPDATED``).

    Only the socket reports it: a run that ended before the start of the wait is not seen. So to start a run
    must listen first: without ``job_id``, and with ``options["start"]``, two document ids, the trigger
    starts the run itself, after the socket has opened, and once: the start is written down (XCom
    ``cd_balancer_start``) before and after, so that a restarted triggerer does not start another.
    """

    kind = areal.CD_BALANCER
    hook_class = ArealHook

    def _validate_job(self) -> None:
        documents = self._documents()
        if self.job_id or documents is None:
            super()._validate_job()
        elif not isinstance(documents, list) or len(documents) != 2:
            raise InvalidInput("the trigger's options.start must be the ids of two documents")
        else:
            self.options["start"] = [areal.DOCUMENT.validate(document) for document in documents]

    def _documents(self) -> Any:
        return self.options.get("start") if isinstance(self.options, dict) else None

    async def _wait(self, endpoint: Endpoint) -> Outcome:
        documents = self._documents()
        if documents is None:
            return await super()._wait(endpoint)
        written = self.job_id or await self._written()
        if written == STARTING:
            raise StartUncertain(
                f"{endpoint.where}: the triggerer was lost while it started a run of {documents}; "
                "whether it was started is unknown, so it is not started again"
            )
        if written:
            self.job_id = written
            return await wait(
                endpoint,
                self.kind,
                written,
                deadline=self.deadline,
                poll_interval=self.poll_interval,
                seen=True,
            )
        return await start_and_wait(
            endpoint,
            self.kind,
            self._start,
            deadline=self.deadline,
            poll_interval=self.poll_interval,
        )

    async def _start(self, client: Client) -> str:
        first, second = self._documents()
        await self._write(STARTING)
        try:
            update = await client.talk(areal.balance(first, second))
        except StatusProviderError as error:
            if not uncertain(error):
                await self._write("")  # surely nothing was started
            raise start_error(error.at(client.endpoint.where), self.kind.noun) from None
        self.job_id = update.job_id
        try:
            for key in (START_KEY, "job_id", "request_id"):
                await self._write(update.job_id, key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run that was started is waited for
            self.log.warning("the run's id could not be written down: %s", type(error).__name__)
        return update.job_id

    async def _written(self) -> str:
        task = self._task()
        value = await xcoms.get(START_KEY, task) if task else None
        return value if isinstance(value, str) else ""

    async def _write(self, value: str, key: str = START_KEY) -> None:
        task = self._task()
        if task is not None:
            await xcoms.put(key, value, task)


class ArealCDPullTrigger(StatusTrigger):
    """Waits for an Areal CD pull, by its upload session (documented: ``CD_PULL_FINISHED``).

    Only the socket reports it: a pull that ended before the start of the wait is not seen.
    """

    kind = areal.CD_PULL
    hook_class = ArealHook


class ArealCDPushTrigger(StatusTrigger):
    """Waits for an Areal CD push, by its ``cdbalancer_request_id`` (documented: ``CD_PUSH_FINISHED``).

    Only the socket reports it: a push that ended before the start of the wait is not seen.
    """

    kind = areal.CD_PUSH
    hook_class = ArealHook


class ArealCopilotTrigger(StatusTrigger):
    """Waits for the run of an Areal copilot task (documented: ``COPILOT_TASK_UPDATED``, both vocabularies).

    ``options["scope"]``: the upload session; ``options["baseline"]``: the ``updated_at`` of the run before.
    """

    kind = areal.COPILOT
    hook_class = ArealHook
