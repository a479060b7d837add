# SPDX-License-Identifier: Apache-2.0
"""A million waits in virtual time, against the model of `airflow-status size`: `python -m benchmarks.crowd`.

Waits arrive at random and last for random times; triggerers, as many and as large as the model says, take them
up first come, first served, hand ends to the database one after the other, and are lost now and then, so that
Airflow gives their waits to the others when it has noticed. What the model promises is printed beside what
came of it; ``--curve`` does so for growing crowds and draws docs/sizing.svg.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from airflow_status_provider.sizing import ENDS, Size, size
from benchmarks import curves

#: seconds until Airflow notices a loss, and until the triggerer is back
NOTICED = 30.0
BACK = 120.0
#: seconds between two looks of a triggerer for waits that nobody carries
LOOKS = 5.0
#: mean lengths of a wait until as many wait as on average
WARM = 5.0
#: waits at once of the curve
CROWDS = (1_000, 3_000, 10_000, 30_000, 100_000)
DOCS = Path(__file__).parent.parent / "docs"


@dataclass
class Triggerer:
    alive: bool = True
    carried: set[int] = field(default_factory=set)
    #: when it will have handed on all ends that it knows of
    free_at: float = 0.0


@dataclass
class Found:
    """What came of it; delays are seconds from a job's end to its task's."""

    most_at_once: int = 0
    most_carried: int = 0
    longest_without: float = 0.0
    losses: int = 0
    delays: list[float] = field(default_factory=list)
    #: from when as many wait as on average, to the last arrival
    steady: float = 0.0
    steady_ends: int = 0
    hours: float = 0.0


class Crowd:
    """The simulation: a heap of moments at which something happens."""

    def __init__(self, wanted: Size, waits: int, at_once: int, minutes: float, hours: float) -> None:
        self.found = Found()
        self._wanted = wanted
        self._left = waits
        self._every = minutes * 60.0 / at_once
        self._mean = minutes * 60.0
        self._loss_every = hours * 3600.0
        self._triggerers = [Triggerer() for _ in range(wanted.triggerers)]
        self._moments: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        #: waits that nobody carries, with the moment since when
        self._idle: deque[tuple[int, float]] = deque()
        self._ended: dict[int, float] = {}
        self._waiting = 0
        self._last = 0.0

    def run(self) -> Found:
        self._at(0.0, self._arrive)
        self._at(random.expovariate(1.0 / self._loss_every), self._lose)
        for number, triggerer in enumerate(self._triggerers):
            self._at(LOOKS * number / len(self._triggerers), lambda now, it=triggerer: self._look(it, now))  # type: ignore[misc]
        now = 0.0
        while self._left or self._waiting:
            now, _, what = heapq.heappop(self._moments)
            what(now)
        self.found.hours = now / 3600.0
        return self.found

    def _at(self, moment: float, what: Callable[[float], None]) -> None:
        heapq.heappush(self._moments, (moment, next(self._order), what))

    def _arrive(self, now: float) -> None:
        if not self._left:
            self.found.steady = self._last - WARM * self._mean
            return
        self._left -= 1
        self._last = now
        wait = self._left
        self._waiting += 1
        self.found.most_at_once = max(self.found.most_at_once, self._waiting)
        self._idle.append((wait, now))
        self._at(now + random.expovariate(1.0 / self._mean), lambda at: self._end(wait, at))
        self._at(now + random.expovariate(1.0 / self._every), self._arrive)

    def _look(self, triggerer: Triggerer, now: float) -> None:
        if triggerer.alive:
            while self._idle and len(triggerer.carried) < self._wanted.capacity:
                wait, since = self._idle.popleft()
                self.found.longest_without = max(self.found.longest_without, now - since)
                triggerer.carried.add(wait)
                if wait in self._ended:
                    self._hand_on(triggerer, wait, now)
            self.found.most_carried = max(self.found.most_carried, len(triggerer.carried))
        self._at(now + LOOKS, lambda at: self._look(triggerer, at))

    def _end(self, wait: int, now: float) -> None:
        self._ended[wait] = now
        for triggerer in self._triggerers:
            if triggerer.alive and wait in triggerer.carried:
                self._hand_on(triggerer, wait, now)

    def _hand_on(self, triggerer: Triggerer, wait: int, now: float) -> None:
        triggerer.free_at = max(now, triggerer.free_at) + 1.0 / ENDS
        self._at(triggerer.free_at, lambda at: self._over(triggerer, wait, at))

    def _over(self, triggerer: Triggerer, wait: int, now: float) -> None:
        if triggerer.alive and wait in triggerer.carried:
            triggerer.carried.remove(wait)
            self._waiting -= 1
            self.found.delays.append(now - self._ended.pop(wait))
            self.found.steady_ends += self._left > 0 and now > WARM * self._mean

    def _lose(self, now: float) -> None:
        lost = random.choice([triggerer for triggerer in self._triggerers if triggerer.alive])
        lost.alive, lost.free_at = False, 0.0
        self.found.losses += 1

        def noticed(at: float) -> None:
            self._idle.extend((wait, now) for wait in lost.carried)
            lost.carried = set()

        def back(at: float) -> None:
            lost.alive = True
            self._at(at + random.expovariate(1.0 / self._loss_every), self._lose)

        self._at(now + NOTICED, noticed)
        self._at(now + BACK, back)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__)
    parser.add_argument("--waits", type=int, default=1_000_000, help="in all (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=100_000, help="on average (default: %(default)s)")
    parser.add_argument("--mean-minutes", type=float, default=20.0, help="default: %(default)s")
    parser.add_argument("--loss-hours", type=float, default=0.5, help="between losses (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--curve", action="store_true", help="ten times as many waits as wait at once, for each"
    )
    options = parser.parse_args()
    random.seed(options.seed)
    if options.curve:
        found = [play(10 * crowd, crowd, options.mean_minutes, options.loss_hours) for crowd in CROWDS]
        curves.draw_sizes(dict(zip(CROWDS, (each.most_carried for _, each in found), strict=True)), DOCS)
        return 0
    wanted, one = play(options.waits, options.at_once, options.mean_minutes, options.loss_hours)
    report(options.waits, wanted, one)
    return 0


def play(waits: int, at_once: int, minutes: float, hours: float) -> tuple[Size, Found]:
    wanted = size(at_once, minutes, "areal")
    return wanted, Crowd(wanted, waits, at_once, minutes, hours).run()


def report(waits: int, wanted: Size, found: Found) -> None:
    delays = sorted(found.delays)
    p50, p99 = (delays[int(len(delays) * share)] for share in (0.5, 0.99))
    print(f"{len(delays)} of {waits} waits ended in {found.hours:.1f} h; {found.losses} losses")
    print(f"{'':34} {'model':>9} {'simulated':>10}")
    model = wanted.capacity * (wanted.triggerers - 1)
    print(f"{'waits at once, at most':34} {model:>9} {found.most_at_once:>10}")
    print(f"{'waits in one triggerer, at most':34} {wanted.capacity:>9} {found.most_carried:>10}")
    print(f"{'ends a second':34} {wanted.ends:>9.1f} {found.steady_ends / found.steady:>10.1f}")
    print(f"{'end to task, median s':34} {1 / ENDS:>9.2f} {p50:>10.2f}")
    print(f"{'end to task, p99 s':34} {'':>9} {p99:>10.2f}")
    print(f"{'end to task, longest s':34} {NOTICED + LOOKS:>9.0f} {delays[-1]:>10.1f}")
    print(f"{'longest without a triggerer, s':34} {NOTICED + LOOKS:>9.0f} {found.longest_without:>10.0f}")


if __name__ == "__main__":
    raise SystemExit(main())
