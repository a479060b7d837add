"""The Tagger hook."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from airflow_status_provider.errors import InvalidConnection, RemoteUnavailable, StatusProviderError
from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.protocols import tagger
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Conversation, Update
from airflow_status_provider.results import TaggerBatch, TaggerDocument
from airflow_status_provider.transport.backoff import full_jitter
from airflow_status_provider.transport.http import Client, asynchronous
from airflow_status_provider.waiting.wait import account_of

CATCHUP_TIMEOUT = 30.0
#: together less than a trigger has for a result
HISTORY_TIMEOUT = 10.0


class TaggerHook(StatusHook):
    """Tagger: batch document tagging, in the documented and the observed dialect.

    :param tagger_conn_id: an Airflow connection of type ``tagger``; login and password, or an access token
        as the password; ``extra.model_api_key`` is the key for the model behind it.
    """

    conn_name_attr = "tagger_conn_id"
    default_conn_name = "tagger_default"
    conn_type = "tagger"
    hook_name = "Tagger"
    service = tagger.SERVICE
    kind = tagger.BATCH

    def __init__(self, tagger_conn_id: str = default_conn_name) -> None:
        super().__init__(tagger_conn_id)

    def model_api_key(self) -> str:
        """``extra.model_api_key``: the server refuses batches without one."""
        key = self._extra(self.connection()).get("model_api_key")
        if not isinstance(key, str) or not key:
            raise InvalidConnection(f"{self.where}: extra.model_api_key is missing; every batch needs it")
        return key

    def lacks(self) -> str:
        try:
            self.model_api_key()
        except InvalidConnection:
            return "extra.model_api_key is missing, so batches can be waited for but not started"
        return ""

    def start(
        self,
        documents: Sequence[Mapping[str, Any]],
        config: Mapping[str, Any] | None = None,
        job_id: str | None = None,
    ) -> Update:
        """Start a batch (``POST /api/batch/start``); the model's key is the connection's."""
        settings = {"api_key": self.model_api_key(), **(config or {})}
        return self.talk(tagger.start(documents, settings, job_id))

    async def astart(
        self,
        documents: Sequence[Mapping[str, Any]],
        config: Mapping[str, Any] | None = None,
        job_id: str | None = None,
    ) -> Update:
        settings = {"api_key": await asyncio.to_thread(self.model_api_key), **(config or {})}
        return await self.atalk(tagger.start(documents, settings, job_id))

    def _cancel(self, job_id: str) -> Conversation[None]:
        yield from tagger.cancel(job_id)

    def get_result(
        self, job_id: str, *, kind: JobKind | None = None, history_id: str | None = None, **options: Any
    ) -> TaggerBatch:
        """Counts by REST; the documents' tags from the socket's catchup. If that cannot be fetched, from the
        batch's history, where its ``history_id`` is known."""
        update = self.get_status(job_id, **options)
        return self._batch(update, asyncio.run(self._documents_alone(update, history_id)))

    async def aget_result(
        self, job_id: str, *, kind: JobKind | None = None, history_id: str | None = None, **options: Any
    ) -> TaggerBatch:
        update = await self.aget_status(job_id, **options)
        account = account_of(await self.aendpoint())
        with account.in_use():  # the client of the account's waits has signed in already
            return self._batch(update, await self._documents(update, history_id, account.client))

    def _batch(self, update: Update, documents: list[TaggerDocument] | None) -> TaggerBatch:
        batch: TaggerBatch = self.kind.xcom(replace(update, result=documents))
        return batch

    async def _documents_alone(self, update: Update, history_id: str | None) -> list[TaggerDocument] | None:
        client = asynchronous(self.endpoint())
        try:
            return await self._documents(update, history_id, client)
        finally:
            await client.close()

    async def _documents(
        self, update: Update, history_id: str | None, client: Client
    ) -> list[TaggerDocument] | None:
        job_id = update.job_id
        trouble: Exception | None = None
        try:
            async with asyncio.timeout(CATCHUP_TIMEOUT):
                for attempt in itertools.count(1):
                    try:
                        return await self._catchup(client, job_id)
                    except (RemoteUnavailable, TimeoutError) as error:
                        trouble = error
                    await asyncio.sleep(full_jitter(attempt))
        except StatusProviderError as error:
            trouble = error
        except TimeoutError:
            pass
        why = str(trouble or "") or "no answer in time"
        if history_id is not None:
            with contextlib.suppress(StatusProviderError, TimeoutError):
                async with asyncio.timeout(HISTORY_TIMEOUT):
                    found = await client.talk(tagger.history(history_id))
                if tagger.counted(found, update):
                    name = self.describe(job_id)
                    self.log.info("%s: the documents' tags come from its history (%s)", name, why)
                    return found
        self.log.warning("%s: the documents' tags could not be fetched (%s)", self.describe(job_id), why)
        return None

    async def _catchup(self, client: Client, job_id: str) -> list[TaggerDocument]:
        from airflow_status_provider.transport.ws import open_socket

        async with asyncio.timeout(CATCHUP_TIMEOUT / 3):
            tokens = await client.tokens()
            async with open_socket(client.endpoint, tagger.BatchStream(), tokens, job_id, "") as socket:
                while True:
                    documents = tagger.read_catchup([await socket.receive()], job_id)
                    if documents is not None:
                        return documents
