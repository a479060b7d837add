# SPDX-License-Identifier: Apache-2.0
"""A service that is added through the public seams alone keeps the contract that the four others keep."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.doctor import examine
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.fixture import SPEED
from tests import contract
from tests.fifth_service import press
from tests.fifth_service.server import SimulatedPress
from tests.harness import hurried  # noqa: F401
from tests.hooks import test_hooks as hooks
from tests.hooks.test_hooks import Connect, connect  # noqa: F401
from tests.operators import cases as operator_cases
from tests.operators import test_results as operators
from tests.sensors import cases as sensor_cases
from tests.sensors import test_waiting as sensors

pytestmark = pytest.mark.usefixtures("hurried")

SOURCE = Path(press.__file__)
GUIDE = Path(__file__).parent.parent.parent / "docs" / "fifth-service.md"

WORDS = {"good": "printed", "bad": "jammed", "tells": "always"}
SENSOR = sensor_cases.Case(press.PressSensor, "press", "print", **WORDS)
WAYS = pytest.mark.parametrize("way", sensors.ways.values(), ids=list(sensors.ways))
NOT_POKED = {name: way for name, way in sensors.ways.items() if name != "poke by poke"}


@dataclass(frozen=True)
class OperatorCase(operator_cases.Case):
    def arguments(self, simulated: SimulatorThread, folder: Path) -> dict[str, Any]:
        return {"poll_interval": 0.05, "title": "The Press"}


OPERATOR = OperatorCase(
    press.PressOperator, "press", "print", ("job_id", "phase", "pages"), ("job_id",), **WORDS
)


@pytest.fixture
def status_simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorThread]:
    """The simulator, with the Press in it."""
    with SimulatorThread(speed=SPEED, more=[SimulatedPress]) as simulated:
        for conn_id, connection in simulated.connections().items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        yield simulated


# -- one sitting


def test_it_is_short() -> None:
    """A whole service is less than 150 lines of code."""
    code = [line for line in SOURCE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) < 150


def test_it_uses_public_seams_only() -> None:
    """Nothing private of the package is imported, and nothing of it is changed."""
    assert not re.findall(r"import .*\b_|\._[a-z]", SOURCE.read_text())


def test_the_guide_shows_it() -> None:
    """Each block of Python in the guide stands in the service as it is tested here."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert blocks
    assert [block for block in blocks if block not in SOURCE.read_text()] == []


# -- the contract


def test_its_modules() -> None:
    """It has the parts that every service has."""
    contract.is_whole(press)
    contract.kinds_are_whole(press)
    for ending in ("Trigger", "Sensor"):
        contract.has_a_class_for_every_kind(press, ending, press)


@WAYS
def test_its_sensor_waits(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """Every way of waiting ends the same."""
    sensors.test_every_way_of_waiting_gives_the_same(SENSOR, way, status_simulator)


@pytest.mark.parametrize("way", NOT_POKED.values(), ids=list(NOT_POKED))
def test_its_sensor_fails(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """Every way of waiting fails the same, in the service's own words."""
    sensors.test_every_way_of_waiting_fails_the_same(SENSOR, way, status_simulator)


@WAYS
def test_its_job_is_lost(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """A print that is gone is lost."""
    sensors.test_the_job_is_lost(SENSOR, way, status_simulator)


def test_its_sensor_looks_before_it_defers(status_simulator: SimulatorThread) -> None:
    """What has ended, well or badly, and what nobody knows ends the task at once."""
    sensors.test_an_ended_job_needs_no_deferral(SENSOR, {}, status_simulator)
    sensors.test_a_failed_job_fails_at_once(SENSOR, {}, status_simulator)
    sensors.test_an_unknown_job_is_an_error_before_any_deferral(SENSOR, {}, status_simulator)
    sensors.test_dag_test_ends_it_too(SENSOR, status_simulator)


@pytest.mark.parametrize("way", operators.ways.values(), ids=list(operators.ways))
def test_its_operator(way: dict[str, Any], status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Its operator starts one job, remembers it, and brings its result."""
    operators.test_every_way_of_waiting_brings_the_result(OPERATOR, way, status_simulator, tmp_path)


def test_its_operator_fails_and_remembers(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """A failed job fails it, and its job is known before the wait."""
    operators.test_the_job_is_known_before_the_wait(OPERATOR, status_simulator, tmp_path)
    operators.test_every_way_of_waiting_fails_with_the_services_words(
        OPERATOR, {}, status_simulator, tmp_path
    )


def test_its_hook(status_simulator: SimulatorThread, connect: Connect) -> None:  # noqa: F811
    """Its connection can be tested, its verbs have twins, and impossible ids go nowhere."""
    hooks.test_an_impossible_id(press.PressHook, status_simulator)
    hooks.test_an_unknown_job(press.PressHook, status_simulator)
    hooks.test_a_good_connection(press.PressHook, "key", connect, status_simulator)
    connect(press.PressHook, password="wonderland-wrong")
    good, words = hooks.outcome_of(press.PressHook)
    assert not good
    assert "HTTP 401: who are you?" in words


def test_the_doctor_knows_it(status_simulator: SimulatorThread) -> None:
    """Its waits push."""
    assert list(examine(press.PressHook()))[-1].said.startswith("push: ")
