"""Tolerant reading: wrong types read as absent, numbers may come as text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from airflow_status_provider.protocols import reading


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (b'{"a": "\xc3\xb6"}', {"a": "ö"}),
        ("[]", {}),
        ('"text"', {}),
        ("null", {}),
        ("", {}),
        ("{", {}),
        (b"\xff\xfe", {}),
        ('{"a": "\\ud83d", "b": "\\ud83d\\ude00"}', {"a": "\ufffd", "b": "\U0001f600"}),
        ('{"a": "\ud800"}', {"a": "\ufffd"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ("[" * 100_000, {}),
        ('{"a": ' + "[" * 300 + "]" * 300 + "}", {}),
        ('{"a": "\\ud83d' + "x" * 2**18 + '"}', {}),
        ('{"a": 1}'.encode("utf-16"), {}),
        ('{"a": 1}'.encode("utf-16-le"), {}),
        ("1" * 100_000, {}),
    ],
)
def test_a_frame(raw: str | bytes, value: dict[str, Any]) -> None:
    """A frame is its JSON object, and an empty one if it is not that."""
    assert reading.frame(raw) == value


@pytest.mark.parametrize(
    ("read", "value", "found"),
    [
        (reading.text, "a", "a"),
        (reading.text, "", None),
        (reading.text, 17, "17"),
        (reading.text, 1.5, None),
        (reading.text, True, None),
        (reading.text, None, None),
        (reading.text, ["a"], None),
        (reading.word, "queued", "queued"),
        (reading.word, "a\n\x85b", "a b"),
        (reading.word, "", None),
        (reading.word, 5, "5"),
        (reading.word, {"a": 1}, None),
        (reading.number, 1.5, 1.5),
        (reading.number, "1.5", 1.5),
        (reading.number, " 2 ", 2.0),
        (reading.number, "two", None),
        (reading.number, True, None),
        (reading.number, None, None),
        (reading.number, math.nan, None),
        (reading.number, "inf", None),
        (reading.number, 10**400, None),
        (reading.count, 3, 3),
        (reading.count, "3", 3),
        (reading.count, "3.0", 3),
        (reading.count, -1, None),
        (reading.count, False, None),
        (reading.count, 2**62, 2**62),
        (reading.fraction, 0.25, 0.25),
        (reading.fraction, "0.25", 0.25),
        (reading.fraction, 3, 1.0),
        (reading.fraction, -3, 0.0),
        (reading.fraction, None, None),
        (reading.obj, {"a": 1}, {"a": 1}),
        (reading.obj, [1], {}),
        (reading.items, [{"a": 1}, 2, None, {}], [{"a": 1}, {}]),
        (reading.items, {"a": 1}, []),
    ],
)
def test_a_value(read: Callable[[object], object], value: object, found: object) -> None:
    """A value of a wrong type reads as one that is not there."""
    assert read(value) == found


def test_a_scale() -> None:
    """Progress becomes 0..1 by the service's own scale."""
    assert [reading.fraction(value, 100.0) for value in (0, 1, "65", 100, 250)] == [0.0, 0.01, 0.65, 1.0, 1.0]


def test_foreign_json_is_made_fit_for_airflows_storage() -> None:
    """What no wire or database of Airflow takes does not reach XCom: huge numbers, NaN, NUL."""
    told = {"a": [10**30, -(2**70), float("nan"), float("inf"), 5, 1.5, True], "b\x00": "x\x00y"}
    fit = reading.storable(told)
    assert fit == {"a": [str(10**30), str(-(2**70)), None, None, 5, 1.5, True], "b": "xy"}


def test_a_count_beyond_64_bits_is_no_count() -> None:
    """An event with such a number would break the triggerer's own protocol."""
    assert reading.count(1e20) is None
    assert reading.count("99999999999999999999999") is None
    assert reading.count(12) == 12


def test_a_status_is_fit_for_a_log() -> None:
    """One line and not a long one, whatever the service says."""
    assert reading.word("a\nINFO forged" + "x" * 5_000_000) == "a INFO forged" + "x" * 87
