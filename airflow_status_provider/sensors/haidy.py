"""The Haidy sensors; common parameters, XCom and errors as in ``StatusSensor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.protocols import haidy
from airflow_status_provider.sensors.base import StatusSensor
from airflow_status_provider.triggers.haidy import (
    HaidyTaskTrigger,
)


class HaidyTaskSensor(StatusSensor):
    """Waits for a task (documented: ``POST /v2/tasks``), however it was started.

    The XCom never holds the task's result, which is health data; ``HaidyHook.get_result`` fetches it.

    :param haidy_task_id: the task, which the service calls ``task_id``.
    :param haidy_conn_id: the Airflow connection.
    :param failure_details: keep what the service says of a task that failed (health data) as the XCom
        ``failure``, in the shape of a result. Otherwise the error shows only its code.
    """

    template_fields: Sequence[str] = ("haidy_task_id", "haidy_conn_id")
    kind = haidy.TASK
    hook_class = HaidyHook
    trigger_class = HaidyTaskTrigger
    conn_field = "haidy_conn_id"
    id_field = "haidy_task_id"

    def __init__(
        self,
        *,
        haidy_task_id: str,
        haidy_conn_id: str = HaidyHook.default_conn_name,
        failure_details: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.haidy_task_id = haidy_task_id
        self.haidy_conn_id = haidy_conn_id
        self.failure_details = failure_details
