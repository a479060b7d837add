"""The watchers as queues of ``apache-airflow-providers-common-messaging``, which this module needs."""

from __future__ import annotations

from typing import ClassVar

from airflow.providers.common.messaging.providers.base_provider import BaseMessageQueueProvider
from airflow.triggers.base import BaseEventTrigger

from airflow_status_provider.watchers.areal import ArealEventTrigger
from airflow_status_provider.watchers.haidy import HaidyTaskEventTrigger
from airflow_status_provider.watchers.organizer import OrganizerEventTrigger
from airflow_status_provider.watchers.tagger import TaggerBatchEventTrigger


class StatusQueueProvider(BaseMessageQueueProvider):
    """``MessageQueueTrigger(scheme=…, …)`` is the watcher of that service; arguments are the watcher's."""

    watcher: ClassVar[type[BaseEventTrigger]]

    def trigger_class(self) -> type[BaseEventTrigger]:
        return self.watcher


class ArealQueueProvider(StatusQueueProvider):
    scheme = "areal"
    watcher = ArealEventTrigger


class TaggerQueueProvider(StatusQueueProvider):
    scheme = "tagger"
    watcher = TaggerBatchEventTrigger


class OrganizerQueueProvider(StatusQueueProvider):
    scheme = "organizer"
    watcher = OrganizerEventTrigger


class HaidyQueueProvider(StatusQueueProvider):
    scheme = "haidy"
    watcher = HaidyTaskEventTrigger
