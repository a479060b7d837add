# SPDX-License-Identifier: Apache-2.0
"""All figures from one run: `make bench` (or `python -m benchmarks [--quick]`).

Each case is a process of its own against a service in another; the floor and the peers run right beside ours, so
that the ratios hold although the machine's figures do not. Prints the table, and writes `docs/benchmarks.json` and
the curves beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import curves

DOCS = Path(__file__).parent.parent / "docs"


def measure(case: str, n: int, **options: float) -> dict[str, Any]:
    """One case against a fresh service."""
    print(f"  {case} {n} …", end="", file=sys.stderr, flush=True)
    began = time.monotonic()
    service = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.service"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert service.stdout is not None
        rest, push = json.loads(service.stdout.readline())
        given = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "benchmarks.waits", case, str(n), f"--rest={rest}", f"--push={push}"]
        with tempfile.TemporaryDirectory() as home:
            env = os.environ | {"AIRFLOW_HOME": home, "PYTHONWARNINGS": "ignore"}
            done = subprocess.run(
                [*command, *given], check=False, capture_output=True, text=True, env=env, timeout=1200
            )
    finally:
        service.kill()
        service.wait()
    print(f" {time.monotonic() - began:.0f} s", file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"{case} {n} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"case": case, "n": n, **options}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, no files")
    quick = parser.parse_args().quick
    long = {"interval": 600.0, "seconds": 0.0}
    sizes = [100, 1000] if quick else [100, 300, 1000, 3000, 10000]
    many = sizes[-1]
    found = [measure(case, n, **long) for n in sizes for case in ("push-floor", "push-idle", "push-ours")]
    found.append(measure("push-socket-each", 1000))
    polls = {"interval": 2.0, "seconds": 5.0 if quick else 20.0}
    found += [measure(f"poll-{who}", 1000, **polls) for who in ("floor", "ours", "httpx", "http-provider")]
    if not quick:
        found += [measure(f"poll-{who}", 10000, interval=10.0, seconds=30.0) for who in ("floor", "ours")]
    # as users have them, at the default interval: one upload session, a quiet socket, waits that come and go, noise
    usual: dict[str, float] = {"interval": 5.0, "seconds": 0.0}
    found += [measure(case, n, **usual, news=1) for n in (1000, many) for case in ("push-floor", "push-ours")]
    found += [measure("push-ours", many, interval=5.0, seconds=20.0)]
    found += [measure("churn-ours", 1000, interval=5.0, seconds=20.0)]
    found += [measure(f"noisy-{who}", 1000, **usual, rate=100.0) for who in ("poller", "ours")]
    limited = {"interval": 5.0, "limit": 20.0}
    found += [measure("budget-ours", 100 if quick else 1000, **limited, dated=dated) for dated in (0, 1)]
    where = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\nMeasured on {where}, {time.strftime('%Y-%m-%d')}\n")
    table(found, many)
    if not quick:
        DOCS.mkdir(exist_ok=True)
        (DOCS / "benchmarks.json").write_text(json.dumps({"machine": where, "found": found}, indent=1) + "\n")
        curves.draw(found, DOCS)
        # in virtual time, and so in a process of its own
        print(flush=True)
        for simulated in ("pacing", "refusals", "quiet"):
            subprocess.run([sys.executable, "-m", f"benchmarks.{simulated}", str(DOCS)], check=True)
    return 0


def scenes(found: list[dict[str, Any]]) -> None:
    """The rows of jobs as users have them."""
    floors = {row["n"]: row for row in found if row["case"] == "push-floor" and row.get("news")}
    for row in found:
        n, case = row["n"], row["case"]
        if case == "push-ours" and row.get("news"):
            ratio = row["cpu_ms_per_end"] / floors[n]["cpu_ms_per_end"]
            print(
                f"one session, {n} documents: {ratio:.2f}x the floor, p99 {row['latency_ms']['p99']:.2f} ms"
            )
        elif case == "push-ours" and "reads_per_second" in row:
            reads, p99 = row["reads_per_second"], row["latency_ms"]["p99"]
            print(
                f"quiet, {n} waits: {reads:.0f} reads a second, {row['core']:.1%} of a core; then p99 {p99:.2f} ms"
            )
        elif case == "churn-ours":
            print(
                f"coming and going: {row['cpu_ms_per_guest']:.2f} ms CPU a wait, grown {row['grown_kib']:.0f} KiB"
            )
        elif case.startswith("noisy"):
            failed = f", {row['failed']} failed" if "failed" in row else ""
            median, seconds = row["latency_ms"]["p50"] / 1000, row["seconds_in_all"]
            print(f"{case}, {n} waits: all after {seconds:.1f} s, median {median:.1f} s{failed}")


def table(found: list[dict[str, Any]], many: int) -> None:
    scenes(found)
    found = [row for row in found if not row.get("news") and "reads_per_second" not in row]
    at = {(row["case"], row["n"]): row for row in found}
    print(
        f"{'push':22} {'N':>6} {'CPU ms/end':>10} {'x floor':>8} {'p99 ms':>8} {'KiB/wait':>9} {'sockets':>8}"
    )
    for (case, n), row in at.items():
        if case.startswith("push"):
            floor = at.get(("push-floor", n))
            ratio = f"{row['cpu_ms_per_end'] / floor['cpu_ms_per_end']:.2f}" if floor else "-"
            print(
                f"{case[5:]:22} {n:>6} {row['cpu_ms_per_end']:>10.3f} {ratio:>8} {row['latency_ms']['p99']:>8.2f} "
                f"{row['memory_kib_per_wait']:>9.2f} {row['connections']['sockets']:>8}"
            )
    ours = [at["push-ours", n] for n in sorted({n for case, n in at if case == "push-ours"})]
    print(f"slope of log cost against log N: {slope(ours):.2f}\n")
    print(
        f"{'poll':22} {'N':>6} {'CPU ms/poll':>11} {'x floor':>8} {'polls/s':>8} {'due/s':>6} "
        f"{'late':>6} {'KiB/wait':>9} {'sockets':>8}"
    )
    for (case, n), row in at.items():
        if case.startswith("poll"):
            ratio = row["cpu_ms_per_poll"] / at["poll-floor", n]["cpu_ms_per_poll"]
            late = f"{row['late_max_of_interval']:.0%}" if "late_max_of_interval" in row else "-"
            print(
                f"{case[5:]:22} {n:>6} {row['cpu_ms_per_poll']:>11.3f} {ratio:>8.2f} {row['polls_per_second']:>8.0f} "
                f"{row['due_per_second']:>6.0f} {late:>6} {row['memory_kib_per_wait']:>9.2f} "
                f"{row['connections']['connections']:>8}"
            )
    print()
    for row in found:
        if row["case"] == "budget-ours":
            form = "an HTTP date" if row["dated"] else "seconds"
            print(
                f"{row['n']} waits, 20 requests/s allowed, Retry-After as {form}: {row['requests']} requests, "
                f"{row['refused'] / row['requests']:.2%} refused, longest wait {row['longest_of_median']:.2f}x "
                f"the median of {row['late_median']:.0f} s, {row['failed']} failed, {row['seconds_in_all']:.0f} s"
            )


def slope(rows: list[dict[str, Any]]) -> float:
    """Of the logarithm of all ends' CPU against that of N, by least squares: 1 is linear."""
    points = [(math.log(row["n"]), math.log(row["cpu_ms_per_end"] * row["n"])) for row in rows]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


if __name__ == "__main__":
    raise SystemExit(main())
