"""The Tagger triggers; parameters and event as in ``StatusTrigger``."""

from __future__ import annotations

from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.protocols import tagger
from airflow_status_provider.triggers.base import StatusTrigger


class TaggerBatchTrigger(StatusTrigger):
    """Waits for a Tagger batch (a WebSocket per job; documented and observed dialect)."""

    kind = tagger.BATCH
    hook_class = TaggerHook
