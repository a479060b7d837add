"""What the waiting counts, sent through Airflow's metrics where those are on; ``docs/observability.md``."""

from __future__ import annotations

import functools
import logging
import time
from datetime import timedelta
from typing import Any

from airflow_status_provider import compat
from airflow_status_provider.compat import conf
from airflow_status_provider.waiting.counts import Counts, observe
from airflow_status_provider.waiting.waiter import Outcome

log = logging.getLogger(__name__)

GAUGES = ("waiters", "sockets")
COUNTERS = ("polls", "pushes", "fallbacks", "reconnects")

_sent: dict[tuple[str, str], int] = {}


def switch_on() -> None:
    """Have the counts sent from now on, if Airflow sends metrics at all."""
    if _stats() is not None:
        observe(send)


def send(service: str, counts: Counts) -> None:
    """The gauges as they are, and by how much the counters have grown."""
    for name in GAUGES:
        _tell("gauge", name, getattr(counts, name), service=service)
    for name in COUNTERS:
        now = getattr(counts, name)
        grown = now - _sent.get((service, name), 0)
        if grown:
            _sent[service, name] = now
            _tell("incr", name, grown, service=service)


def ended(service: str, outcome: Outcome) -> None:
    """A trigger is about to give Airflow its event."""
    if _stats() is not None:
        late = timedelta(seconds=time.monotonic() - outcome.known_at)
        _tell("timing", "end_to_event", late, service=service, how=outcome.how)


def _tell(verb: str, name: str, value: object, **tags: str) -> None:
    try:
        if verb == "gauge":
            tags["hostname"] = _hostname()
        if not _tagged():
            name = ".".join([name, *(tag.replace(".", "_") for tag in tags.values())])
        getattr(_stats(), verb)(f"airflow_status.{name}", value, tags=tags)
    except Exception as error:  # noqa: BLE001 - what goes wrong here is no trouble of the wait's
        log.debug("the metric %s could not be sent: %s", name, type(error).__name__)


@functools.cache
def _stats() -> Any:
    """Airflow's, wherever this release has it; None while metrics are off, as they are by default."""
    if not any(_is_on(name) for name in ("statsd_on", "statsd_datadog_enabled", "otel_on")):
        return None
    return compat.stats()


@functools.cache
def _tagged() -> bool:
    """Whether tags arrive. Plain StatsD drops them, and services would overwrite each other's gauges."""
    return _is_on("statsd_datadog_enabled") or not _is_on("statsd_on") or _is_on("statsd_influxdb_enabled")


@functools.cache
def _hostname() -> str:
    from airflow.utils.net import get_hostname

    return str(get_hostname())


def _is_on(name: str) -> bool:
    try:
        return bool(conf.getboolean("metrics", name, fallback=False))
    except Exception:  # noqa: BLE001 - neither yes nor no: what Airflow raises then depends on its release
        return False
