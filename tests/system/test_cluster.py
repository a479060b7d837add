# SPDX-License-Identifier: Apache-2.0
"""Airflow on PostgreSQL and Redis, with several workers and triggerers, and the loss of each part of it."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.cluster import MISSING
from tools.engines import EngineError, PostgreSQL, Redis
from tools.failover import failover

NEEDED = ("celery", "psycopg2", "redis")
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
try:
    PostgreSQL()
    Redis()
except EngineError as error:
    missing.append(str(error))
needs_all = pytest.mark.skipif(bool(missing), reason=f"missing: {', '.join(missing)}")

#: Airflow's own patience, shortened
QUICK = {
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
}


def test_missing_servers_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    """One line, and an exit code of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.cluster"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == MISSING
    assert "apt-get install" in done.stderr
    assert "POSTGRES_URL and REDIS_URL" in done.stderr


@needs_all
def test_servers_keep_what_they_store_over_a_restart_and_leave_nothing() -> None:
    import psycopg2
    import redis

    with PostgreSQL() as database, Redis() as broker:
        with psycopg2.connect(database.url) as connection:
            connection.cursor().execute("CREATE TABLE kept AS SELECT 1")
        redis.Redis.from_url(broker.url).set("kept", "yes")
        database.restart()
        broker.restart()
        with psycopg2.connect(database.url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM kept")
            assert cursor.fetchone() == (1,)
        assert redis.Redis.from_url(broker.url).get("kept") == b"yes"
        directories = database.directory, broker.directory
    assert not [each for each in directories if each.exists()]


OWNER = """
import time
from tools.engines import PostgreSQL, Redis
with PostgreSQL() as database, Redis() as broker:
    print(database.directory, database.port, broker.directory, broker.port, flush=True)
    time.sleep(600)
"""


@needs_all
def test_a_killed_owner_leaves_no_server_and_no_directory() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, cwd=root) as owner:
        assert owner.stdout is not None
        told = owner.stdout.readline().decode().split()
        owner.kill()
    directories = [Path(each) for each in told[::2]]
    ports = [int(each) for each in told[1::2]]

    deadline = time.monotonic() + 30
    while any(map(Path.exists, directories)) or any(map(listens, ports)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@needs_all
@pytest.mark.airflow
def test_every_wait_outlives_the_loss_of_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    """A triggerer, a worker, Redis and PostgreSQL: each wait ends once, and no job is started twice."""
    code = failover(10, more=6, env=QUICK)
    said = capsys.readouterr().out
    assert code == 0, said
    assert said.count("all went on after") == 5, said
