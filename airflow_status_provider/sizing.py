"""What a number of waits asks of triggerers, service and database; docs/cluster.md explains the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_status_provider.waiting.pacing import RECONCILE, SLOWEST

#: KiB of a triggerer for each wait: the package's own, and what Airflow needs for any trigger
OURS = 5
AIRFLOWS = 30
#: MiB of a triggerer that carries nothing
EMPTY = 350
#: waits that one triggerer was measured with, and the ends a second, with an XCom each, that it hands to the
#: database
CARRIED = 10_000
ENDS = 20
#: standard deviations by which waits that begin at random are allowed to be more than on average
CHANCE = 4.0
#: reads of a wait besides those in its middle: on the worker, when its socket is open, at its end
READS = 3
#: rows that a wait writes, most of them Airflow's own: four fifths in its start and deferral, one at its end
ROWS = 30
#: sockets of an account in each triggerer, and for each wait
SOCKETS = {"areal": (1, 0), "tagger": (0, 1), "organizer": (1, 0), "haidy": (0, 0)}


@dataclass(frozen=True)
class Size:
    """The answer; rates are per second, and for all triggerers together."""

    triggerers: int
    capacity: int
    mebibytes: int
    sockets: int
    ends: float
    rows: float
    reads_by_push: float | None
    reads_by_polling: float

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield "triggerers", f"{self.triggerers}, of which one may be lost"
        yield "[triggerer] capacity", f"{self.capacity}"
        yield "memory", f"{self.mebibytes} MiB a triggerer while one is lost"
        yield "sockets", f"{self.sockets} to the service"
        yield "ends", f"{self.ends:.1f} a second; a triggerer hands {ENDS} to the database"
        yield "database", f"{self.rows:.0f} rows a second are written for these waits"
        if self.reads_by_push is not None:
            yield "requests", f"{self.reads_by_push:.1f} a second while sockets work"
        yield "requests", f"{self.reads_by_polling:.1f} a second while all waits poll"


def size(waits: int, mean_minutes: float, service: str, *, poll_interval: float = 5.0) -> Size:
    """What ``waits`` at a time need on average, each of which lasts ``mean_minutes`` on average."""
    ends = waits / (mean_minutes * 60.0)
    most = math.ceil(waits + CHANCE * math.sqrt(waits))
    needed = max(math.ceil(most / CARRIED), math.ceil(ends / ENDS))
    triggerers = needed + 1
    shared, each = SOCKETS[service]
    sockets = shared * triggerers + each * waits
    return Size(
        triggerers=triggerers,
        capacity=math.ceil(most / needed),
        mebibytes=weight(math.ceil(most / needed)),
        sockets=sockets,
        ends=ends,
        rows=ROWS * ends,
        reads_by_push=READS * ends + waits / (poll_interval * RECONCILE) if sockets else None,
        reads_by_polling=READS * ends + waits / (poll_interval * SLOWEST),
    )


def weight(waits: int) -> int:
    """MiB of a triggerer that carries so many."""
    return EMPTY + math.ceil(waits * (OURS + AIRFLOWS) / 1024)
