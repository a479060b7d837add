"""Tolerant reading: wrong types read as absent, numbers may come as text."""

from __future__ import annotations

import gc
import json
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(ANY_JSON, st.booleans(), st.booleans())
def test_the_patient_parser_reads_what_the_quick_one_reads(value: Any, ascii_only: bool, text: bool) -> None:
    """Whichever of the two reads an answer, what it says is the same."""
    try:
        raw: str | bytes = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    if text:
        assert isinstance(raw, bytes)
        raw = raw.decode()
    quick = reading.parsed(raw)
    assert reading.storable(reading._patiently(raw)) == reading.storable(quick)


@pytest.mark.parametrize(
    "raw", [b"[1", b'"\xff"', b"[" * 201 + b"]" * 201, b"1" * 5000, b'{"a":1}x', b"", b"{'a':1}"]
)
def test_the_patient_parser_refuses_what_is_no_json(raw: bytes) -> None:
    """And what is nested more deeply than anything else could walk through."""
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        reading._patiently(raw)


def test_the_patient_parser_leaves_no_half_of_a_character() -> None:
    """A text that was cut in the middle of a character is read all the same."""
    assert reading._patiently(b'["\\ud83d", "\\ud83d\\ude00"]') == ["\ufffd", "\U0001f600"]


def test_others_have_their_turn_while_many_values_are_read() -> None:
    """The interpreter's lock is let go between the values of a large answer."""
    raw = b"[" + b",".join([b'{"a":"b"}'] * 50_000) + b"]"
    turns = 0
    read = threading.Event()

    def count() -> None:
        nonlocal turns
        while not read.wait(0.001):
            turns += 1

    other = threading.Thread(target=count)
    other.start()
    assert len(reading.parsed(raw)) == 50_000
    read.set()
    other.join()
    assert turns > 3


def test_nothing_is_collected_while_many_values_are_read() -> None:
    """The collector would walk through all that is read already, again and again; it goes on after that."""
    rounds: list[str] = []

    def collected(phase: str, info: dict[str, int]) -> None:
        rounds.append(phase)

    raw = b"[" + b",".join([b"[]"] * 50_000) + b"]"
    gc.collect()
    gc.callbacks.append(collected)
    try:
        reading.parsed(raw)
    finally:
        gc.callbacks.remove(collected)
    assert len(rounds) < 10
    assert gc.isenabled()
