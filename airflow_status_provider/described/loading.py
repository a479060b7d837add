"""Reading descriptions; an error names the file, the line and the word."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from airflow_status_provider.described.model import Description
from airflow_status_provider.errors import InvalidInput

#: below these words stand values of JSON; everything else in a description is text
_VALUES = {"json", "form", "query", "defaults"}
#: what YAML itself sees in a part without a tag
_TAGS = {"map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"}
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")

Place = tuple[str | int, ...]


class _Mistake(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def load(path: Path) -> Description:
    """The description in a file of YAML or JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: this description cannot be read ({type(error).__name__})") from error
    return loads(text, str(path))


def loads(text: str, source: str) -> Description:
    """The description in this text of YAML or JSON; ``source`` names it in errors."""
    lines: dict[Place, int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise _Mistake(1, "a description is a mapping of words, like status: GET /jobs/{id}")
        values = _read(node, (), lines, set())
        if source.endswith(".json"):
            values = json.loads(text)
    except _Mistake as mistake:
        raise InvalidInput(f"{source}, line {mistake.line}: {mistake}") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{source}, line {error.lineno}: this is no JSON ({error.msg})") from None
    except ValueError:
        raise InvalidInput(f"{source}, line 1: a number is too large: write it in quotes") from None
    except RecursionError:
        raise InvalidInput(f"{source}, line 1: this is nested too deeply for a description") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "a character that YAML does not allow"
        raise InvalidInput(
            f"{source}, line {mark.line + 1 if mark else 1}: this is no YAML ({problem}); "
            "write a text with ?, :, # or braces in quotes"
        ) from None
    return _validated(values, source, lines)


def from_values(values: Mapping[str, Any], source: str = "description") -> Description:
    """The description in these values of Python."""
    return _validated(dict(values), source, {})


def _validated(values: dict[str, Any], source: str, lines: dict[Place, int]) -> Description:
    try:
        return Description.model_validate(values)
    except ValidationError as error:
        said = []
        for each in error.errors(include_url=False, include_input=False):
            # what concerns a description as a whole is that no word of states means failure
            place = _place(each["loc"], values) or ("states",)
            line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), 0)
            where = f"{source}, line {line}" if line else source
            word = ".".join(map(str, place))
            said.append(f"{where}: {word}: {_said(each['type'], each['msg'])}")
        raise InvalidInput("; ".join(dict.fromkeys(said))) from None


def _place(loc: tuple[str | int, ...], values: Any) -> Place:
    """The words that lead to an error, without the names of types between them."""
    place: list[str | int] = []
    for n, step in enumerate(loc):
        listed = isinstance(values, list) and isinstance(step, int) and step < len(values)
        if listed or (isinstance(values, Mapping) and step in values):
            values = values[step]
        elif n < len(loc) - 1 or not isinstance(values, Mapping) or step == "[key]":
            continue
        place.append(step)
    return tuple(place)


def _said(kind: str, message: str) -> str:
    match kind:
        case "extra_forbidden":
            return "this word is unknown here"
        case "missing":
            return "this word is missing"
        case "value_error":
            return message.removeprefix("Value error, ")
        case "enum":
            return "this is no phase: write pending, running, waiting, succeeded, failed, cancelled or lost"
        case "string_pattern_mismatch":
            return "write WS /path or SSE /path"
    return message[:1].lower() + message[1:]


def _read(node: yaml.Node, place: Place, lines: dict[Place, int], seen: set[int]) -> Any:
    """The values of a node; text stays text, save below the words that take JSON."""
    line = node.start_mark.line + 1
    lines.setdefault(place, line)
    if id(node) in seen:
        raise _Mistake(line, "aliases (*name) are not read: write the part out")
    seen.add(id(node))
    if (node.tag or "").removeprefix("tag:yaml.org,2002:") not in _TAGS:
        raise _Mistake(line, f"the tag {node.tag} is not read")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, lines, seen)
    if isinstance(node, yaml.SequenceNode):
        return [_read(each, (*place, n), lines, seen) for n, each in enumerate(node.value)]
    if node.style is not None:
        return node.value
    if node.value in ("", "~"):
        return None
    if "headers" in place or not _VALUES & set(place):
        return node.value
    try:
        return _value(node.value)
    except ValueError:
        raise _Mistake(line, f"{place[-1]}: this number is too large: write it in quotes") from None


def _mapping(node: yaml.MappingNode, place: Place, lines: dict[Place, int], seen: set[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise _Mistake(line, 'a word is a text: write a placeholder in quotes, like "{name}"')
        empty = isinstance(value, yaml.ScalarNode) and value.style is None and value.value == ""
        if node.flow_style and empty:
            raise _Mistake(
                line,
                f'{{{key.value}}} without quotes is a mapping in YAML: write "{{{key.value}}}"',
            )
        if key.value in found:
            raise _Mistake(line, f"{key.value}: this word stands here twice")
        lines[(*place, key.value)] = line
        found[key.value] = _read(value, (*place, key.value), lines, seen)
    return found


def _value(text: str) -> Any:
    """What JSON makes of an unquoted text; ``on``, ``no`` and ``010`` stay words."""
    if text in ("true", "false", "null") or _NUMBER.fullmatch(text):
        value = json.loads(text)
        if value in (math.inf, -math.inf):
            raise ValueError(text)
        return value
    return text
