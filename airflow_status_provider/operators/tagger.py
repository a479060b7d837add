"""The Tagger operator; common parameters and errors as in ``StatusOperator``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_status_provider.errors import InvalidInput
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.operators.base import Started, StatusOperator
from airflow_status_provider.operators.lineage import Place, at_url, objects, on_server
from airflow_status_provider.operators.memory import Memory, start_key
from airflow_status_provider.protocols import tagger
from airflow_status_provider.protocols.sending import sendable
from airflow_status_provider.triggers.tagger import TaggerBatchTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class TaggerBatchOperator(StatusOperator):
    """Tags a batch of documents (documented and observed: ``POST /api/batch/start``).

    XCom: ``{"job_id", "phase", "status", "message", "processed", "failed", "total", "documents"}``, with one
    ``{"row_id", "title", "success", "tags", "error", "metadata"}`` a document; ``documents`` is null when
    only the counts could be fetched. A batch whose documents all failed is still ``completed`` for the
    service, and ``partial`` here.

    The batch's id is chosen from the task instance's identity before the start, so that a start whose answer
    was lost finds its batch again. When the task is killed, the batch is cancelled (after its current
    document).

    :param documents: objects with ``file_path`` (required), ``title``, ``file_source_type`` (``url``, ``s3``,
        ``local``) and ``description``.
    :param config: ``model_name``, ``num_pages`` (1..10), ``num_tags`` (3..15), ``exclusion_words``; the
        model's key comes from the connection's ``extra.model_api_key``.
    :param job_id: the batch's id, if it is not to be chosen.
    :param tagger_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("documents", "config", "job_id", "tagger_conn_id")
    kind = tagger.BATCH
    hook_class = TaggerHook
    trigger_class = TaggerBatchTrigger
    conn_field = "tagger_conn_id"

    def __init__(
        self,
        *,
        documents: Sequence[Mapping[str, Any]],
        config: Mapping[str, Any] | None = None,
        job_id: str | None = None,
        tagger_conn_id: str = TaggerHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.documents = documents
        self.config = config
        self.job_id = job_id
        self.tagger_conn_id = tagger_conn_id

    def validate(self) -> None:
        if self.job_id is not None:
            self.job_id = self.kind.validate(self.job_id)
        documents = sendable("documents", self.documents)
        if not isinstance(documents, list) or not documents:
            raise InvalidInput(
                "documents must be a list of at least one object; does a template render to it?"
            )
        self.documents = documents
        for number, document in enumerate(documents):
            if not isinstance(document, Mapping):
                raise InvalidInput(f"documents[{number}] must be an object, not {type(document).__name__}")
            if not document.get("file_path"):
                raise InvalidInput(f"documents[{number}] has no file_path")
        if self.config is not None and not isinstance(self.config, Mapping):
            raise InvalidInput("config must be an object")
        self.config = sendable("config", self.config)

    def start(self, context: Context, memory: Memory) -> Started:
        hook = self.hook_of(TaggerHook)
        ti: Any = context["ti"]
        job_id = self.job_id or f"airflow-{start_key(context, ti.try_number)}"
        memory.asking(job_id=job_id)
        return self.start_or_find(
            lambda: Started(hook.start(self.documents, self.config, job_id).job_id), Started(job_id)
        )

    def reads(self) -> Iterable[Place | None]:
        """The documents; what came of them, their tags, stands in the XCom only."""
        for document in objects(self.documents):
            path = str(document.get("file_path"))
            if document.get("file_source_type") == "local":
                yield on_server(self.hook().endpoint().base, path)
            else:
                yield at_url(path)
