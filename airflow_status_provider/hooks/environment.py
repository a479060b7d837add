"""A connection that stands in the environment and that Airflow cannot read.

Airflow says why at DEBUG only and looks on elsewhere, so that such a connection seems not to be there.
"""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import Connection

PREFIX = "AIRFLOW_CONN_"
FIELDS = ("conn_type", "description", "host", "login", "password", "schema", "port", "extra")


def unreadable(conn_id: str) -> str:
    """What is wrong with a connection's variable, without a word of its value; empty if nothing is."""
    name = PREFIX + conn_id.upper()
    value = os.environ.get(name, "").strip()
    if not value:
        return ""
    try:
        if value.startswith("{"):
            Connection.from_json(value, conn_id=conn_id)
        else:
            Connection.from_uri(value, conn_id=conn_id)
    except Exception as error:  # noqa: BLE001 - whatever Airflow and its parsers make of it
        why = _of_json(value) if value.startswith("{") else _of_uri(value)
        return f"{name} is set, but Airflow cannot read it: {why or type(error).__name__}"
    return ""


def _of_json(value: str) -> str:
    try:
        fields = json.loads(value)
    except json.JSONDecodeError as error:
        return f"it is no JSON ({error.msg}, at line {error.lineno}, column {error.colno})"
    if unknown := sorted(set(fields) - set(FIELDS)):
        return f"there is no field {', '.join(map(ascii, unknown))}; there are {', '.join(FIELDS)}"
    try:
        int(fields.get("port") or 0)
    except (TypeError, ValueError):
        return "its port is no number"
    return ""


def _of_uri(value: str) -> str:
    try:
        url = urlsplit(value)
    except ValueError:
        return "it is no URI; is an address in it not bracketed, or a character not percent-encoded?"
    try:
        url.port  # noqa: B018 - it raises
    except ValueError:
        return "its port is no number; is a character of its password not percent-encoded?"
    return ""
