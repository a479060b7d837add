# SPDX-License-Identifier: Apache-2.0
"""What refusals teach, in virtual time: `python -m benchmarks.refusals [FOLDER]`.

Each rule polls for an hour at a service that refuses for one reason: a rate (its own, shared, changing), chance, one
job, maintenance, a fixed window. The events are simulated; the rule `ours` is the code that the package runs.
Prints, for each scene and rule: the share of what the service would have served, the share refused after the first
minute, the share served in the last ten minutes, and the longest wait of a job that was not refused itself beside the
median.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from airflow_status_provider.waiting import pacing

HOUR = 3600.0
LATENCY = 0.03
AT_ONCE = 32


class Rule(Protocol):
    def next_slot(self, now: float) -> float: ...

    def sent(self, now: float) -> None: ...

    def answered(self, now: float) -> None: ...

    def refused(self, sent_at: float, now: float, pause: float, *, again: bool = False) -> float:
        """Seconds for which the account pauses."""


class Before:
    """What the package did until now: the first refusal teaches a rate, later ones lower it, each pauses all."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._step, self._slot, self._count = 0.25, 0.0, 0.0
        self._since: float | None = None
        self._refused_at, self._raised_at = float("-inf"), 0.0

    def next_slot(self, now: float) -> float:
        if self.rate is not None and now - self._raised_at > 30.0:
            self.rate *= 1.0 + self._step
            self._step, self._raised_at = min(1.0, 2.0 * self._step), now
            if self.rate > 10_000.0:
                self.rate = None
        return self._slot

    def sent(self, now: float) -> None:
        if self.rate is not None:
            self._slot = max(now, self._slot) + 1.0 / self.rate

    def answered(self, now: float) -> None:
        self._age(now)
        self._count += 1.0

    def refused(self, sent_at: float, now: float, pause: float, *, again: bool = False) -> float:
        if sent_at > self._refused_at:
            lasted = self._age(now)
            if self._count >= 5.0:
                if self.rate is None:
                    rate, self._step = 0.9 * self._count / (lasted + pause), 0.25
                else:
                    rate, self._step = 0.9 * self.rate, 0.05
                self.rate = max(1.0, rate)
            self._refused_at = now
            self._raised_at = self._since = self._slot = now + pause
            self._count = 0.0
        return pause

    def _age(self, now: float) -> float:
        if self._since is None:
            self._since = now
        while now - self._since > 10.0:
            self._count /= 2
            self._since += 5.0
        return max(1.0, now - self._since)


class Delivered:
    """As congestion control by bottleneck bandwidth does: pace at the best rate that was delivered lately, and try a
    twentieth more now and then. A refusal pauses only what was refused."""

    WINDOW, REMEMBERED, PROBE_EVERY, PROBE_FOR = 2.0, 30, 30.0, 2.0

    def __init__(self) -> None:
        self._windows: list[float] = []
        self._began, self._count, self._slot = 0.0, 0, 0.0
        self._met = False

    def _rate(self, now: float) -> float | None:
        if not self._met or not self._windows:
            return None
        probing = now % self.PROBE_EVERY < self.PROBE_FOR
        return max(1.0, max(self._windows) * (1.05 if probing else 0.98))

    def next_slot(self, now: float) -> float:
        return self._slot

    def sent(self, now: float) -> None:
        if (rate := self._rate(now)) is not None:
            self._slot = max(now, self._slot) + 1.0 / rate

    def answered(self, now: float) -> None:
        if now - self._began > self.WINDOW:
            self._windows = [*self._windows, self._count / (now - self._began)][-self.REMEMBERED :]
            self._began, self._count = now, 0
        self._count += 1

    def refused(self, sent_at: float, now: float, pause: float, *, again: bool = False) -> float:
        self._met = True
        return 0.0


class Proportional:
    """As data-centre congestion control does: lower the rate by half the share that was refused, raise it steadily.
    A refusal pauses only what was refused."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._share, self._slot, self._began = 0.0, 0.0, 0.0
        self._sent = self._refused = 0

    def next_slot(self, now: float) -> float:
        return self._slot

    def sent(self, now: float) -> None:
        self._sent += 1
        if now - self._began > 1.0:
            share = self._refused / self._sent
            self._share += (share - self._share) / 16
            if self._rate is None and self._refused:
                self._rate = self._sent / (now - self._began)
            elif self._rate is not None:
                self._rate = max(1.0, self._rate * (1 - self._share / 2 if self._refused else 1.005))
            self._began, self._sent, self._refused = now, 0, 0
        if self._rate is not None:
            self._slot = max(now, self._slot) + 1.0 / self._rate

    def answered(self, now: float) -> None: ...

    def refused(self, sent_at: float, now: float, pause: float, *, again: bool = False) -> float:
        self._refused += 1
        return 0.0


Service = Callable[[float, int], float | None]


@dataclass
class Scene:
    """``make`` gives a service: what it answers at a time to a job, None for well, or the seconds of Retry-After.
    ``may``: what it would serve in an hour if it were asked at the best possible rate."""

    name: str
    make: Callable[[random.Random], Service]
    may: float
    waits: int = 200
    interval: float = 2.0
    limited: bool = False
    #: its "later" is a 503, which is not about a rate
    unavailable: bool = False

    def of(self, seconds: float) -> float:
        """The share of ``may`` that falls into the first seconds of the hour."""
        shares = {
            "40, 20, 10, 30 a second": (40 * 900 + 20 * (seconds - 900)) / self.may,
            "maintenance": seconds / HOUR,
        }
        return shares.get(self.name, seconds / HOUR)


def bucket(rate: Callable[[float], float], after: float = 1.0, burst: float = 1.0) -> Service:
    level, at = rate(0.0) * burst, 0.0

    def answer(now: float, job: int) -> float | None:
        nonlocal level, at
        level, at = min(rate(now) * burst, level + (now - at) * rate(now)), now
        if level >= 1.0:
            level -= 1.0
            return None
        return after

    return answer


def by_chance(
    chance: random.Random, share: float, then: Service | None = None, after: float = 1.0
) -> Service:
    def answer(now: float, job: int) -> float | None:
        if chance.random() < share:
            return after
        return then(now, job) if then else None

    return answer


def shared(chance: random.Random, rate: float, others: Callable[[float], float]) -> Service:
    """Others take from the same bucket."""
    inner, at = bucket(lambda _: rate), 0.0

    def answer(now: float, job: int) -> float | None:
        nonlocal at
        while at < now:
            at += chance.expovariate(others(at)) if others(at) else now - at + 1e-9
            if at < now:
                inner(at, -1)
        return inner(now, job)

    return answer


def fixed_window(count: int, seconds: float) -> Service:
    window, used = -1, 0

    def answer(now: float, job: int) -> float | None:
        nonlocal window, used
        if int(now // seconds) != window:
            window, used = int(now // seconds), 0
        used += 1
        return None if used <= count else seconds - now % seconds

    return answer


def some_jobs(jobs: int, after: float) -> Service:
    return lambda now, job: after if job < jobs else None


def maintenance(every: float, lasts: float) -> Service:
    return lambda now, job: lasts - now % every if now % every < lasts and now > every else None


def day(now: float) -> float:
    """A limit that changes: 40, 20, 10, 30 requests a second, fifteen minutes each."""
    return (40.0, 20.0, 10.0, 30.0)[int(now // 900) % 4]


ALL = 100.0 * HOUR  # 200 waits at 2 s
SCENES = [
    Scene("20 a second", lambda c: bucket(lambda _: 20.0), 20 * HOUR, limited=True),
    Scene("20 a second, Retry-After 5 s", lambda c: bucket(lambda _: 20.0, 5.0), 20 * HOUR, limited=True),
    Scene("20 a second, Retry-After 30 s", lambda c: bucket(lambda _: 20.0, 30.0), 20 * HOUR, limited=True),
    Scene("90 a second", lambda c: bucket(lambda _: 90.0), 90 * HOUR, limited=True),
    Scene(
        "20 a second, bursts of 200", lambda c: bucket(lambda _: 20.0, burst=10.0), 20 * HOUR, limited=True
    ),
    Scene("1,200 each minute", lambda c: fixed_window(1200, 60.0), 20 * HOUR, limited=True),
    Scene("40, 20, 10, 30 a second", lambda c: bucket(day), 25 * HOUR, limited=True),
    Scene(
        "40 a second, others take 0 or 20",
        lambda c: shared(c, 40.0, lambda t: 20.0 * (t // 600 % 2)),
        30 * HOUR,
        limited=True,
    ),
    Scene("chance 0.5 %", lambda c: by_chance(c, 0.005), ALL * 0.995),
    Scene("chance 3 %", lambda c: by_chance(c, 0.03), ALL * 0.97),
    Scene("chance 3 %, Retry-After 30 s", lambda c: by_chance(c, 0.03, after=30.0), ALL * 0.7),
    Scene("chance 10 %", lambda c: by_chance(c, 0.1), ALL * 0.9),
    Scene("chance 20 %", lambda c: by_chance(c, 0.2), ALL * 0.8),
    Scene("chance 3 %, and 20 a second", lambda c: by_chance(c, 0.03, bucket(lambda _: 20.0)), 20 * HOUR),
    Scene("one job of 200", lambda c: some_jobs(1, 5.0), ALL * 199 / 200),
    Scene("20 jobs of 200", lambda c: some_jobs(20, 5.0), ALL * 180 / 200),
    Scene(
        "maintenance", lambda c: maintenance(900.0, 120.0), ALL * (HOUR - 3 * 120) / HOUR, unavailable=True
    ),
    Scene("few waits, chance 3 %", lambda c: by_chance(c, 0.03), 5.0 * HOUR * 0.97, waits=10),
]


@dataclass
class Found:
    served: int = 0
    asked: int = 0
    refused: int = 0
    lately: int = 0
    steady_asked: int = 0
    steady_refused: int = 0
    turns: dict[int, list[float]] = field(default_factory=dict)
    curve: list[int] = field(default_factory=lambda: [0] * 60)
    hit: set[int] = field(default_factory=set)


def simulate(scene: Scene, rule: Rule, seed: int = 1, seconds: float = HOUR) -> Found:
    chance = random.Random(seed)
    service = scene.make(random.Random(seed + 1))
    order = itertools.count()
    queue = [(chance.uniform(0, scene.interval), next(order), job) for job in range(scene.waits)]
    heapq.heapify(queue)
    under_way: list[tuple[float, int, int, float, float | None]] = []
    now, paused_until = 0.0, 0.0
    found, again = Found(), [False] * scene.waits
    while now < seconds:
        send_at = float("inf")
        if queue and len(under_way) < AT_ONCE:
            send_at = max(now, queue[0][0], paused_until, rule.next_slot(now))
        if under_way and under_way[0][0] <= send_at:
            now, _, job, sent_at, later = heapq.heappop(under_way)
            if later is None:
                rule.answered(now)
                again[job] = False
                found.served += 1
                found.curve[min(59, int(now // 60))] += 1
                found.lately += now >= seconds - 600
                found.turns.setdefault(job, []).append(now)
                due = now + scene.interval * chance.uniform(0.9, 1.1)
            else:
                found.refused += 1
                found.steady_refused += now > 60
                found.hit.add(job)
                pause = later if scene.unavailable else rule.refused(sent_at, now, later, again=again[job])
                paused_until = max(paused_until, now + pause)
                again[job] = True
                due = now + later
            heapq.heappush(queue, (due, next(order), job))
            continue
        if send_at == float("inf"):
            break
        if rule.next_slot(send_at) > send_at:  # it may have moved meanwhile
            now = send_at
            continue
        now = send_at
        _, _, job = heapq.heappop(queue)
        rule.sent(now)
        found.asked += 1
        found.steady_asked += now > 60
        heapq.heappush(
            under_way, (now + LATENCY * chance.uniform(0.7, 1.5), next(order), job, now, service(now, job))
        )
    return found


def longest(found: Found) -> float:
    """The longest gap after the first minute of a job that was not refused itself, beside the median gap."""
    gaps = [
        (later - sooner, job)
        for job, turns in found.turns.items()
        for sooner, later in itertools.pairwise(turns)
        if sooner > 60
    ]
    unhit = [gap for gap, job in gaps if job not in found.hit]
    return max(unhit, default=0.0) / statistics.median(gap for gap, _ in gaps)


RULES: dict[str, Callable[[], Rule]] = {
    "before": Before,
    "delivered": Delivered,
    "proportional": Proportional,
    "ours": pacing.Budget,
}


def main() -> int:
    print(
        f"{'scene':34} {'rule':13} {'of what it serves':>17} {'refused':>8} {'last 10 min':>11} {'longest':>8}"
    )
    rows = []
    for scene in SCENES:
        for name, make in RULES.items():
            found = simulate(scene, make())
            row = {
                "scene": scene.name,
                "rule": name,
                "served": found.served / scene.may,
                "refused": found.steady_refused / max(1, found.steady_asked),
                "last": found.lately / (scene.may / 6),
                "longest": longest(found) if found.turns else 0.0,
                "curve": found.curve,
            }
            rows.append(row)
            print(
                f"{scene.name:34} {name:13} {row['served']:>17.1%} {row['refused']:>8.2%} {row['last']:>11.1%} "
                f"{row['longest']:>8.1f}",
                flush=True,
            )
    for folder in sys.argv[1:]:
        from benchmarks import curves

        curves.draw_refusals(rows, Path(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
