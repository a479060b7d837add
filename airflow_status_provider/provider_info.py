"""What Airflow discovers: plain data, imports nothing heavy, never raises."""

from __future__ import annotations

from typing import Any

from airflow_status_provider import __version__

_SERVICES = {
    "areal": "Areal",
    "tagger": "Tagger",
    "organizer": "Organizer",
    "haidy": "Haidy",
}

#: the standard fields that a form relabels, and what stands in them while they are empty
_LABELS: dict[str, dict[str, str]] = {
    "areal": {"login": "Login (empty: API key)", "password": "Password or API key"},
    "tagger": {"login": "E-mail (empty: access token)", "password": "Password or access token"},
    "organizer": {"login": "Login (empty: API key)", "password": "Password or API key"},
    "haidy": {"password": "API token"},
}
_PLACEHOLDERS: dict[str, dict[str, str]] = {
    "areal": {
        "host": "https://areal.example.com",
        "login": "robot",
        "password": "the login's, or an API key",
    },
    "tagger": {
        "host": "https://tagger.example.com",
        "login": "robot@example.com",
        "password": "the login's, or an access token",
    },
    "organizer": {
        "host": "https://organizer.example.com",
        "login": "robot",
        "password": "the login's, or an API key",
    },
    "haidy": {"host": "https://api.44ai.ch (if empty)", "password": "the API token"},
}

#: what Airflow lists, and the packages in which each service has a module of it
_ROOMS = {
    "hooks": ("hooks",),
    "operators": ("operators",),
    "sensors": ("sensors",),
    "triggers": ("triggers", "watchers"),
}


def _field(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


_OWN: dict[str, dict[str, Any]] = {
    "tagger": {
        "model_api_key": _field(
            "Model API key",
            "The key of the model behind the Tagger; every batch needs it.",
            format="password",
        )
    },
    "organizer": {
        "ws_token": _field(
            "Socket token", "The socket's own token, where the server has one.", format="password"
        )
    },
}
_SOCKET = {
    "ws_url": _field(
        "Socket address",
        "The WebSocket's address (wss://…), if it is not where the service's documentation has it.",
    )
}
_EVERY: dict[str, Any] = {
    "ca_file": _field(
        "CA file", "Path of a PEM file with the authority that signed the server's certificate, if private."
    ),
    "client_cert": _field("Client certificate", "Path of a PEM file, where the server asks for one."),
    "client_key": _field(
        "Client key", "Path of the client certificate's key, if it is not in the same file."
    ),
    "allow_insecure": _field(
        "Allow insecure",
        "Send the credentials over plain http or ws to a host that is not this machine, "
        "and files to whatever address the service names.",
        type=["boolean", "null"],
    ),
}


def get_provider_info() -> dict[str, Any]:
    return {
        "package-name": "airflow-status-provider",
        "name": "Status Provider",
        "description": "Start jobs in Areal, Tagger, Organizer and Haidy and wait for them without a worker.",
        "versions": [__version__],
        "integrations": [
            {"integration-name": title, "external-doc-url": "", "tags": ["service"]}
            for title in _SERVICES.values()
        ],
        "connection-types": [
            {
                "connection-type": name,
                "hook-class-name": f"airflow_status_provider.hooks.{name}.{title}Hook",
                "hook-name": title,
                "ui-field-behaviour": {
                    # the host says it; the port stays, for Airflow 3.3.2 tests no connection without one
                    "hidden-fields": ["schema", *(["login"] if name == "haidy" else [])],
                    "relabeling": {"host": "Server (origin)", "port": "Port, if not above", **_LABELS[name]},
                    "placeholders": {"port": "443", **_PLACEHOLDERS[name]},
                },
                "conn-fields": {**_OWN.get(name, {}), **({} if name == "haidy" else _SOCKET), **_EVERY},
            }
            for name, title in _SERVICES.items()
        ],
        **{
            kind: [
                {
                    "integration-name": title,
                    "python-modules": [f"airflow_status_provider.{room}.{name}" for room in rooms],
                }
                for name, title in _SERVICES.items()
            ]
            for kind, rooms in _ROOMS.items()
        },
        "queues": [f"airflow_status_provider.queues.{title}QueueProvider" for title in _SERVICES.values()],
    }
