"""What a DAG file's import of an operator brings along."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

import pytest

#: what talks over the network, and what waits
NETWORK = {
    "aiohttp",
    "websockets",
    "airflow_status_provider.transport.aio",
    "airflow_status_provider.transport.ws",
    "airflow_status_provider.waiting.account",
    "airflow_status_provider.waiting.stream",
    "airflow_status_provider.waiting.polling",
    "airflow_status_provider.simulator",
}
SCRIPT = """
import importlib, json, sys
importlib.import_module("airflow.sdk")
before = set(sys.modules)
for room in ("operators", "sensors"):
    for service in ("areal", "tagger", "organizer", "haidy"):
        importlib.import_module(f"airflow_status_provider.{room}.{service}")
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.fixture(scope="module")
def imported() -> set[str]:
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            check=True,
            capture_output=True,
            text=True,
            env={"AIRFLOW_HOME": home, "PATH": ""},
        )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_dag_file_imports_nothing_of_the_network(imported: set[str]) -> None:
    """All operators and sensors together import no client and nothing that waits: a worker or triggerer does."""
    assert not imported & NETWORK
