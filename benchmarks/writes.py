# SPDX-License-Identifier: Apache-2.0
"""What a wait writes into Airflow's database: `python -m benchmarks.writes [N]`, on the cluster of tools.cluster.

PostgreSQL's own counts of rows, by table, while N waits begin, wait, and end, less what an idle Airflow writes.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import psycopg2

from tools.cluster import WAITS_DAG, Waits, cluster
from tools.demo import Clock

#: seconds for which an idle Airflow, and one whose tasks all wait, is watched
WATCHED = 40.0
#: seconds until PostgreSQL's counts hold what was done
SETTLED = 8.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.writes", description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=40)
    n = parser.parse_args().n
    say = Clock()
    with cluster(say) as running:
        if running.database is None:
            raise SystemExit("a server that others use cannot be measured: unset POSTGRES_URL")
        running.stack.api.wait_for_dag(WAITS_DAG, timeout=300)
        running.stack.api.set_paused(WAITS_DAG, False)
        held = Waits(running, say)
        time.sleep(SETTLED)
        counted = [counts(running.database.url)]
        time.sleep(WATCHED)
        counted.append(counts(running.database.url))
        held.begin(n)
        held.until(lambda: held.all_are("deferred"), 120 + 10 * n)
        time.sleep(SETTLED)
        counted.append(counts(running.database.url))
        time.sleep(WATCHED)
        counted.append(counts(running.database.url))
        held.end()
        held.until(lambda: held.all_are("success"), 300)
        time.sleep(SETTLED)
        counted.append(counts(running.database.url))
    (before, since), (now, until) = counted[:2]
    idle = {table: (rows - before[table]) / (until - since) for table, rows in now.items()}
    for what, (before, since), (now, until) in zip(
        ("begin and defer", f"wait for {WATCHED:.0f} s", "end"), counted[1:], counted[2:], strict=False
    ):
        wrote = {table: (now[table] - before[table] - idle[table] * (until - since)) / n for table in now}
        shown = ", ".join(f"{table} {rows:.1f}" for table, rows in wrote.items() if rows > 0.1)
        print(f"{what}: {sum(wrote.values()):.1f} rows a wait ({shown})")
    return 0


def counts(url: str) -> tuple[Counter[str], float]:
    """Rows inserted, updated and deleted so far, by table, and when that was."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "select relname, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables order by 2 desc"
            )
            return Counter({str(table): int(rows) for table, rows in cursor.fetchall()}), time.monotonic()
    finally:
        connection.close()


if __name__ == "__main__":
    raise SystemExit(main())
