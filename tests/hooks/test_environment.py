# SPDX-License-Identifier: Apache-2.0
"""A connection that stands in the environment and cannot be read is said to, and why, without its value."""

from __future__ import annotations

import json

import pytest
from airflow.providers.common.compat.sdk import BaseHook, Connection

from airflow_status_provider import cli
from airflow_status_provider.doctor import examine
from airflow_status_provider.errors import InvalidConnection
from airflow_status_provider.hooks.environment import unreadable
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from tests.harness import Task, plainly

SECRET = "a-canary-12"
GOOD = {"conn_type": "tagger", "host": "http://127.0.0.1:1", "login": "me@example.com", "password": SECRET}

BAD = {
    "an unknown field": (
        json.dumps({**GOOD, "hots": SECRET}),
        "there is no field 'hots'; there are conn_type,",
    ),
    "a port that is none": (json.dumps({**GOOD, "port": SECRET}), "its port is no number"),
    "a port that is a list": (json.dumps({**GOOD, "port": [SECRET]}), "its port is no number"),
    "JSON that is cut off": (
        json.dumps(GOOD)[:-3],
        "it is no JSON (Unterminated string starting at, at line 1",
    ),
    "JSON in Python's words": (json.dumps(GOOD).replace('"', "'"), "it is no JSON (Expecting property name"),
    "a URI with such a port": (f"tagger://me:x@host:{SECRET}", "its port is no number; is a character"),
    "a password not encoded": (f"tagger://me:{SECRET}/{SECRET}@host", "is a character of its password not"),
    "an address not bracketed": (f"tagger://me:{SECRET}@[::1", "it is no URI"),
}
bad = pytest.mark.parametrize(("value", "why"), BAD.values(), ids=BAD)


@bad
def test_doctor_test_and_task_say_it(
    value: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not that there is none."""
    monkeypatch.setenv("AIRFLOW_CONN_X", value)
    assert cli.main(["doctor", "x"]) == 1
    said = [capsys.readouterr().out, TaggerHook("x").test_connection()[1]]
    task = Task(TaggerBatchOperator, documents=[{"file_path": "a"}], tagger_conn_id="x")
    assert type(task.run().error) is InvalidConnection
    said.append(plainly(task))
    for words in said:
        assert "AIRFLOW_CONN_X is set, but Airflow cannot read it: " in words
        assert why in words
        assert SECRET not in words


@pytest.mark.parametrize("value", [json.dumps(GOOD), f"tagger://me:{SECRET}@host:80", "", "  "])
def test_what_can_be_read_is_fine(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In either form."""
    monkeypatch.setenv("AIRFLOW_CONN_X", value)
    assert unreadable("x") == ""


def test_what_is_not_there_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """The words of before."""
    assert cli.main(["doctor", "nowhere"]) == 1
    assert "There is no connection 'nowhere'" in capsys.readouterr().out
    assert "there is no such connection" in TaggerHook("nowhere").test_connection()[1]


def test_a_connection_from_elsewhere_does_not_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow goes on to its database, where another one may stand."""
    monkeypatch.setenv("AIRFLOW_CONN_X", BAD["JSON that is cut off"][0])
    monkeypatch.setattr(BaseHook, "get_connection", lambda self, conn_id: Connection(conn_id=conn_id, **GOOD))
    said = [finding.said for finding in examine(TaggerHook("x"))]
    assert "it is no JSON" in said[1]
    assert said[1].endswith("; this one comes from elsewhere")
