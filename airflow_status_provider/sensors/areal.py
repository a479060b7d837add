"""The Areal sensors; common parameters, XCom and errors as in ``StatusSensor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.model import clean_id
from airflow_status_provider.sensors.base import StatusSensor
from airflow_status_provider.triggers.areal import (
    ArealCDBalancerTrigger,
    ArealCDPullTrigger,
    ArealCDPushTrigger,
    ArealCopilotTrigger,
    ArealDocPushTrigger,
    ArealDocumentTrigger,
    ArealSessionTrigger,
)


class ArealDocumentSensor(StatusSensor):
    """Waits for one document (documented: status page and ``FILE_STATUS_UPDATED``).

    A document that is split and deleted in favour of its parts ends when its session's documents have ended.

    :param document_id: the document, the ``request_id`` of its upload.
    :param upload_session_id: its session, if known: then a split is recognised from the first moment.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("document_id", "upload_session_id", "areal_conn_id")
    kind = areal.DOCUMENT
    hook_class = ArealHook
    trigger_class = ArealDocumentTrigger
    conn_field = "areal_conn_id"
    id_field = "document_id"
    option_fields: ClassVar[dict[str, str]] = {"scope": "upload_session_id"}

    def __init__(
        self,
        *,
        document_id: str,
        upload_session_id: str | None = None,
        areal_conn_id: str = ArealHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.document_id = document_id
        self.upload_session_id = upload_session_id
        self.areal_conn_id = areal_conn_id

    def options(self) -> dict[str, Any]:
        if not self.upload_session_id:
            return {}
        return {"scope": clean_id(self.upload_session_id, "upload session")}


class ArealSessionSensor(StatusSensor):
    """Waits for all documents of an upload session, the parts of splits included.

    Some failed: ``partial``; all failed: ``failed``; all deleted: ``cancelled``.

    :param upload_session_id: the session.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("upload_session_id", "areal_conn_id")
    kind = areal.SESSION
    hook_class = ArealHook
    trigger_class = ArealSessionTrigger
    conn_field = "areal_conn_id"
    id_field = "upload_session_id"

    def __init__(
        self,
        *,
        upload_session_id: str,
        areal_conn_id: str = ArealHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.upload_session_id = upload_session_id
        self.areal_conn_id = areal_conn_id

    def look_back_options(self) -> dict[str, Any]:
        return {"settled": True}


class ArealDocPushSensor(StatusSensor):
    """Waits for the push of a document to a gateway (documented: ``DOC_PUSH_FINISHED``).

    Only the socket reports it, so what ended before the start of the wait is not seen.

    :param document_id: the document that is pushed.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("document_id", "areal_conn_id")
    kind = areal.DOC_PUSH
    hook_class = ArealHook
    trigger_class = ArealDocPushTrigger
    conn_field = "areal_conn_id"
    id_field = "document_id"

    def __init__(
        self,
        *,
        document_id: str,
        areal_conn_id: str = ArealHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.document_id = document_id
        self.areal_conn_id = areal_conn_id


class ArealCDBalancerSensor(StatusSensor):
    """Waits for a CD balancer run (documented: ``CDBALANCER_STATUS_UPDATED``).

    Only the socket reports it, so what ended before the start of the wait is not seen;
    ``ArealCDBalancerOperator`` listens before it starts one.

    :param request_id: the run, as answered by its start.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("request_id", "areal_conn_id")
    kind = areal.CD_BALANCER
    hook_class = ArealHook
    trigger_class = ArealCDBalancerTrigger
    conn_field = "areal_conn_id"
    id_field = "request_id"

    def __init__(
        self,
        *,
        request_id: str,
        areal_conn_id: str = ArealHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.request_id = request_id
        self.areal_conn_id = areal_conn_id


class ArealCDPullSensor(StatusSensor):
    """Waits for a CD pull into a session (documented: ``CD_PULL_FINISHED``); the XCom's ``result`` holds
    the ``document``.

    Only the socket reports it, so what ended before the start of the wait is not seen.

    :param upload_session_id: the session that is pulled into.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("upload_session_id", "areal_conn_id")
    kind = areal.CD_PULL
    hook_class = ArealHook
    trigger_class = ArealCDPullTrigger
    conn_field = "areal_conn_id"
    id_field = "upload_session_id"

    def __init__(
        self,
        *,
        upload_session_id: str,
        areal_conn_id: str = ArealHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.upload_session_id = upload_session_id
        self.areal_conn_id = areal_conn_id


class ArealCDPushSensor(StatusSensor):
    """Waits for the push of a balanced CD (documented: ``CD_PUSH_FINISHED``); the XCom's ``result`` holds
    ``gateway_request_id``, ``stats_message`` and ``stats_status``.

    Only the socket reports it, so what ended before the start of the wait is not seen.

    :param cdbalancer_request_id: the balancer run whose CD is pushed.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("cdbalancer_request_id", "areal_conn_id")
    kind = areal.CD_PUSH
    hook_class = ArealHook
    trigger_class = ArealCDPushTrigger
    conn_field = "areal_conn_id"
    id_field = "cdbalancer_request_id"

    def __init__(
        self,
        *,
        cdbalancer_request_id: str,
        areal_conn_id: str = ArealHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cdbalancer_request_id = cdbalancer_request_id
        self.areal_conn_id = areal_conn_id


class ArealCopilotSensor(StatusSensor):
    """Waits for the run of a copilot task in a session (documented: ``COPILOT_TASK_UPDATED``).

    The service shows the last run: one that has ended before the wait began ends it at once. A run that is
    ``n/a`` (not applicable, neither success nor failure) counts as ``partial``.

    :param copilot_task_id: the copilot task.
    :param upload_session_id: the session that it runs in.
    :param areal_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("copilot_task_id", "upload_session_id", "areal_conn_id")
    kind = areal.COPILOT
    hook_class = ArealHook
    trigger_class = ArealCopilotTrigger
    conn_field = "areal_conn_id"
    id_field = "copilot_task_id"
    option_fields: ClassVar[dict[str, str]] = {"scope": "upload_session_id"}

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

    def options(self) -> dict[str, Any]:
        return {"scope": clean_id(self.upload_session_id, "upload session")}
