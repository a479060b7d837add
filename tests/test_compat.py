# SPDX-License-Identifier: Apache-2.0
"""What depends on Airflow's release: found by what that can do, or by its exact version, and never an import error."""

from __future__ import annotations

import ast
import runpy
import uuid
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow
import pytest

import airflow_status_provider
from airflow_status_provider import compat

ROOT = Path(airflow_status_provider.__file__).parent


def on(version: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[str]]:
    """The module as it is when a process of that release imports it, and the warnings that this gives."""
    monkeypatch.setattr(airflow, "__version__", version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = runpy.run_path(str(ROOT / "compat.py"))
    return found, [str(each.message) for each in caught if each.category is RuntimeWarning]


@pytest.mark.parametrize("version", ["3.1.0", "3.2.2", "3.3.0", "3.3.2", "3.4.0b2", "3.4.1rc1"])
def test_a_known_release_gets_no_warning(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supported release, its pre-releases included, is used without a word."""
    assert on(version, monkeypatch)[1] == []


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.0.6", "use Airflow 3.1 or newer"),
        ("2.11.0", "use Airflow 3.1 or newer"),
        ("3.5.0.dev0", "look for a newer release of this package"),
        ("4.0.0", "look for a newer release of this package"),
        ("next", "use Airflow 3.1 or newer"),
    ],
)
def test_an_unknown_release_gets_one_warning(
    version: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning names the releases that are tested, the one that runs, and what to expect or do."""
    _, words = on(version, monkeypatch)
    assert len(words) == 1
    assert f"tested with Airflow 3.1 to 3.4, not with {version}: " in words[0]
    assert expected in words[0]


@pytest.mark.parametrize(
    ("version", "retried"),
    [("3.1.8", False), ("3.3.0", False), ("3.3.1", True), ("3.3.2", True), ("3.4.0b2", True)],
)
def test_the_release_that_retries_what_failed_from_its_trigger(
    version: str, retried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.3.0 has task-end events and XComs from triggers, but only 3.3.1 retries a task that failed so."""
    assert on(version, monkeypatch)[0]["RETRIES_FROM_TRIGGER"] is retried


@pytest.mark.parametrize(
    ("version", "at_once"), [("3.1.8", False), ("3.3.2", False), ("3.4.0b2", True), ("3.4.0", True)]
)
def test_the_release_on_which_a_task_may_resume_at_once(
    version: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Airflow 3.4 the scheduler fails some tasks that resume before their worker has reported."""
    assert on(version, monkeypatch)[0]["RESUMES_AT_ONCE"] is at_once


def test_a_region_is_found_where_there_is_one() -> None:
    """A looped or mapped task of Airflow 3.4 has a region; a plain one has none, or a region of zeros."""
    region = uuid.uuid4()
    assert compat.region(SimpleNamespace(region_id=region, region_index=2)) == (str(region), 2)
    assert compat.region(SimpleNamespace(region_id=str(region), region_index=0)) == (str(region), 0)
    for plain in (
        SimpleNamespace(),
        SimpleNamespace(region_id=None, region_index=None),
        SimpleNamespace(region_id=uuid.UUID(int=0), region_index=-1),
        SimpleNamespace(region_id=str(uuid.UUID(int=0)), region_index=-1),
    ):
        assert compat.region(plain) is None


@pytest.mark.parametrize("once", [False, True])
def test_whether_events_keep_xcoms_is_found_by_what_is_stored(
    once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow encodes the XComs of a task-end event before the column does; one that does not is recognised."""
    from airflow.models.xcom import XComModel

    if once:
        monkeypatch.setattr(XComModel, "serialize_value", staticmethod(lambda value, **_: value))
    assert compat.events_keep_xcoms.__wrapped__() is once


def test_what_cannot_be_asked_is_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release whose code for events takes other arguments counts as one that encodes twice."""
    from airflow.models import trigger

    monkeypatch.setattr(trigger, "handle_event_submit", lambda: None)
    assert compat.events_keep_xcoms.__wrapped__() is False


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_asks_for_the_release(path: Path) -> None:
    """Only ``compat`` knows Airflow's version, or tries an import of Airflow's to see what there is."""
    if path.name == "compat.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "airflow":
            assert "__version__" not in {name.name for name in node.names}
        if isinstance(node, ast.Try):
            tried = [each for each in node.body if isinstance(each, ast.ImportFrom)]
            assert not any(str(each.module).startswith("airflow.") for each in tried), f"line {node.lineno}"
