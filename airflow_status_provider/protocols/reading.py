"""Tolerant reading of foreign JSON: wrong types read as absent, numbers may come as text."""

from __future__ import annotations

import gc
import json
import json.scanner
import math
import re
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

LARGEST = 2**63 - 1
LONGEST_WORD = 100
#: bytes of a name or an id (an id that may be asked for has fewer)
LONGEST_TEXT = 1024
#: bytes of a token, or of an address to upload to
LONGEST_SECRET = 2**16
#: values in one text of JSON, counted where it is longer than this: each takes many times its length
MOST_VALUES = 2**19
DENSE = 2**16
#: the quick parser holds the interpreter's lock until it is done: more values than these are read by one that
#: lets it go every few milliseconds, for any caller
QUICK_VALUES = 2**15
#: levels of lists and objects, of either parser: later readers call themselves for each
DEEPEST = 200
#: bytes of JSON that is worth mending: that is slow, and what waits shares a loop with others
MENDABLE = 2**18
#: keys that say in a stored dict what it is, in serde and in the serialization before it, of all releases
MARKERS = frozenset(
    {
        *("__classname__", "__version__", "__data__", "__id__", "__cache__"),
        *("__type", "__var", "__source", "__class"),
    }
)
_HALVES = re.compile(r"[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPED_HALF_BYTES = re.compile(_ESCAPED_HALF.pattern.encode())
#: what breaks a line of a log, or shows it in another order
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")


def parsed(raw: str | bytes) -> Any:
    """Whatever JSON it is, or would be but for halves of characters (a text was cut), line ends in texts or
    a byte order mark; ``ValueError`` if it is none."""
    try:
        return _parsed(raw)
    except (TypeError, ValueError, RecursionError):
        if len(raw) > MENDABLE:
            raise ValueError("no JSON, and too long to be repaired") from None
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "surrogatepass")
        try:
            mended = storable(json.loads(text.removeprefix("\ufeff"), strict=False))
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return _parsed(json.dumps(mended))  # so that what is mended keeps to the same limits


def _parsed(raw: str | bytes) -> Any:
    if len(raw) > DENSE and (values := _values(raw)) > QUICK_VALUES:
        if values > MOST_VALUES:
            raise ValueError("more values than can be read at once")
        return _patiently(raw)
    # not the values: ids that never come again would lie in the parser's cache, all over the memory
    return from_json(raw, cache_strings="keys")


def _patiently(raw: str | bytes) -> Any:
    """In Python, ten times slower: other threads have their turn meanwhile."""
    # a dict of very many names is made in one go otherwise
    decoder: Any = json.JSONDecoder(object_pairs_hook=lambda pairs: {name: item for name, item in pairs})  # noqa: C416
    decoder.parse_object = _limited(decoder.parse_object)
    decoder.parse_array = _limited(decoder.parse_array)
    decoder.scan_once = json.scanner.py_make_scanner(decoder)  # type: ignore[attr-defined]
    # what is read holds no cycles; each collection would walk through it all and let nobody else run
    collecting = gc.isenabled()
    gc.disable()
    try:
        value = decoder.decode(raw if isinstance(raw, str) else raw.decode())
    finally:
        if collecting:
            gc.enable()
    escaped = _ESCAPED_HALF if isinstance(raw, str) else _ESCAPED_HALF_BYTES
    return storable(value) if escaped.search(raw) else value  # type: ignore[arg-type]


def _limited(parse: Callable[..., Any]) -> Callable[..., Any]:
    depth = 0

    def parse_one(*given: Any) -> Any:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise ValueError("nested too deeply")
        found = parse(*given)
        depth -= 1
        return found

    return parse_one


def _values(raw: str | bytes) -> int:
    """At least as many as there are; an object takes the memory of three others."""
    if isinstance(raw, str):
        return raw.count(",") + raw.count("[") + 3 * raw.count("{")
    return raw.count(b",") + raw.count(b"[") + 3 * raw.count(b"{")


def frame(raw: str | bytes | dict[str, Any]) -> dict[str, Any]:
    """A frame's JSON object, which may be parsed already; an empty one for whatever is not that."""
    if isinstance(raw, dict):
        return raw
    try:
        value = parsed(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def obj(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: object, longest: int = LONGEST_TEXT) -> str | None:
    """Non-empty text, cut at ``longest`` bytes. A number is its digits: some servers send bare ids."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        return None
    if 4 * len(value) <= longest:  # no character has more than four bytes
        return value
    return value[:longest].encode(errors="replace")[:longest].decode(errors="ignore")


def number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        parsed = float(value)
    except (ValueError, OverflowError):
        return None
    return parsed if math.isfinite(parsed) else None


def count(value: object) -> int | None:
    parsed = number(value)
    return None if parsed is None or not 0 <= parsed <= LARGEST else int(parsed)


def word(value: object) -> str | None:
    """A status: text that is fit for logs, messages and events."""
    told = text(value)
    return None if told is None else UNPRINTABLE.sub(" ", told[:LONGEST_WORD])


def storable(value: Any) -> Any:
    """Foreign JSON as Airflow can store it everywhere: no NaN, no NUL, no half of a character, and no number
    beyond 64 bits. A key that Airflow takes for its own (``MARKERS``) gets one more underscore in front."""
    if isinstance(value, dict):
        return _unmarked({str(storable(name)): storable(item) for name, item in value.items()})
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, str):
        whole = value if value.isascii() else _HALVES.sub("\ufffd", value)
        return whole.replace("\x00", "")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and not -LARGEST <= value <= LARGEST:
        return str(value)
    return value


def _unmarked(whole: dict[str, Any]) -> dict[str, Any]:
    if MARKERS.isdisjoint(whole):
        return whole
    free = {name: item for name, item in whole.items() if name not in MARKERS}
    for name, item in whole.items():
        if name in MARKERS:
            while (name := f"_{name}") in free:  # a key of its own, whatever else there is
                pass
            free[name] = item
    return free


def fraction(value: object, scale: float = 1.0) -> float | None:
    """Progress as 0..1, by the service's own scale, never by guessing."""
    parsed = number(value)
    return None if parsed is None else min(1.0, max(0.0, parsed / scale))
