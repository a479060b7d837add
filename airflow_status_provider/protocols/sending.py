"""What a user gives us to send, as JSON can hold it, or one error that names the field by its path.

1. This comes before anything is remembered or sent: a start that fails here has surely not happened.
2. An error names the place and the type, never the value: it may be health data.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeGuard

from airflow_status_provider.errors import InvalidInput

#: levels of a value: more than any service takes, and fewer than Python's own limit
DEEPEST = 100
LONGEST_PATH = 200
_FRAME = "a pandas frame as it is needed here: json.loads(df.to_json(orient='records', date_format='iso'))"
#: what to do with a value of a type that JSON does not have, by a name of the type or of one of its parents
_INSTEAD = {
    "Decimal": "give float(…) or str(…) of it",
    "date": "give its isoformat()",
    "time": "give its isoformat()",
    "timedelta": "give its total_seconds()",
    "UUID": "give str(…) of it",
    "Enum": "give its value",
    "set": "give a list of it",
    "frozenset": "give a list of it",
    "bytes": "give text: its decode(), or base64.b64encode(…).decode()",
    "bytearray": "give text: its decode(), or base64.b64encode(…).decode()",
    "memoryview": "give text: base64.b64encode(…).decode()",
    "generic": "give its item()",  # numpy's
    "ndarray": "give its tolist()",
    "NAType": f"give None for it; {_FRAME}",
    "NaTType": f"give None for it; {_FRAME}",
    "NDFrame": _FRAME,
    "BaseModel": "give its model_dump(mode='json')",
}


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it is taken for a list: any sequence that is no text, such as the output of a mapped task."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def sendable(name: str, value: object, _depth: int = 0) -> Any:
    """A value as plain JSON: of texts, numbers, lists and objects; ``name`` is its place in what was given.

    Mappings become objects, sequences lists, a ``pathlib`` path its text. ``InvalidInput`` says where
    something is that JSON cannot hold, and what to give instead.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, PurePath):
        return _text(name, str(value))
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        what = "NaN" if math.isnan(value) else "infinite"
        raise InvalidInput(f"{_at(name)} is {what}, which JSON does not have; give None; {_FRAME}")
    if _depth > DEEPEST:
        raise InvalidInput(f"{_at(name)} is nested more than {DEEPEST} levels deep")
    if isinstance(value, Mapping):
        return {_key(name, key): sendable(f"{name}.{key}", each, _depth + 1) for key, each in value.items()}
    if is_list(value):
        return [sendable(f"{name}[{n}]", each, _depth + 1) for n, each in enumerate(value)]
    what = type(value).__name__
    raise InvalidInput(f"{_at(name)} is a {what}, which JSON does not have; {_instead(value)}")


def digits(value: object) -> object:
    """A whole number as its digits, for ids that a template rendered natively; anything else as it is."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return str(value) if whole else value


def _key(name: str, key: object) -> str:
    key = digits(key)
    if not isinstance(key, str):
        raise InvalidInput(f"{_at(name)} has a key that is a {type(key).__name__}; keys must be text")
    return _text(f"a key of {name}", key)


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{_at(name)} holds a lone surrogate (half a character, at position {error.start}); "
            "give value.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None
    return value


def _at(path: str) -> str:
    shown = path.encode("ascii", "backslashreplace").decode()
    return shown if len(shown) <= LONGEST_PATH else f"{shown[:LONGEST_PATH]}…"


def _instead(value: object) -> str:
    names = (parent.__name__ for parent in type(value).__mro__)
    return next((_INSTEAD[name] for name in names if name in _INSTEAD), "give what JSON has instead")
