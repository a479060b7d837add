# SPDX-License-Identifier: Apache-2.0
"""How soon a mute socket is found out, by how many samples a second: `python -m benchmarks.quiet [FOLDER]`.

10,000 waits share a socket that is open and never reports anything, while jobs end one a second, or one a minute. The
waits are read when the package would read them; the first read that finds an end which the socket has not reported
condemns it. In virtual time, 200 times for each rate.
"""

from __future__ import annotations

import random
import statistics
import sys
from pathlib import Path
from typing import Any

from airflow_status_provider.waiting import pacing
from airflow_status_provider.waiting.delivery import MISS_GRACE

WAITS = 10_000
INTERVAL = 5.0
RATES = (10.0, 25.0, 50.0, 75.0, 100.0, 200.0, 500.0)
ROUNDS = 200


def found_after(rate: float, every: float, chance: random.Random) -> float:
    """Seconds until the socket is condemned, when a job ends ``every`` so many seconds on average."""
    pacing.SAMPLE_RATE = rate
    now, found = 0.0, float("inf")
    while now < found:
        now += chance.expovariate(1 / every)
        # the job that ends now was read before; when is it read again?
        read = chance.uniform(
            0.0, pacing.next_read(INTERVAL, unchanged=9, remaining=None, push=False, crowd=WAITS)
        )
        found = min(found, now + read)
    return found + MISS_GRACE


def measure() -> list[dict[str, Any]]:
    chance, chosen = random.Random(1), pacing.SAMPLE_RATE
    rows = []
    for rate in RATES:
        row: dict[str, Any] = {"rate": rate}
        for name, every in (("second", 1.0), ("minute", 60.0)):
            found = sorted(found_after(rate, every, chance) for _ in range(ROUNDS))
            row[name] = (statistics.median(found), found[int(0.95 * ROUNDS)])
        rows.append(row)
    pacing.SAMPLE_RATE = chosen
    return rows


def main() -> int:
    rows = measure()
    print(f"{'samples/s':>10} {'one end a second: median, p95 (s)':>34} {'one a minute':>18}")
    for row in rows:
        second, minute = row["second"], row["minute"]
        print(
            f"{row['rate']:>10.0f} {second[0]:>25.0f} {second[1]:>8.0f} {minute[0]:>9.0f} {minute[1]:>8.0f}"
        )
    for folder in sys.argv[1:]:
        from benchmarks import curves

        curves.draw_quiet(rows, pacing.SAMPLE_RATE, Path(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
