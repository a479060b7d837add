"""The Tagger sensors; common parameters, XCom and errors as in ``StatusSensor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.protocols import tagger
from airflow_status_provider.sensors.base import StatusSensor
from airflow_status_provider.triggers.tagger import (
    TaggerBatchTrigger,
)


class TaggerBatchSensor(StatusSensor):
    """Waits for a batch (documented and observed dialect).

    ``completed`` with failed documents is ``partial``, even if all of them failed.

    :param job_id: the batch.
    :param tagger_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("job_id", "tagger_conn_id")
    kind = tagger.BATCH
    hook_class = TaggerHook
    trigger_class = TaggerBatchTrigger
    conn_field = "tagger_conn_id"
    id_field = "job_id"

    def __init__(
        self,
        *,
        job_id: str,
        tagger_conn_id: str = TaggerHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.tagger_conn_id = tagger_conn_id
