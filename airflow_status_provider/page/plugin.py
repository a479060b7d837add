"""What Airflow's API server takes the page from.

Airflow imports plugins in every process, workers too, so this module is light: what serves files is imported
when the first one is asked for. They hold no data. The page reads Airflow's REST API with its viewer's
rights.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from starlette.applications import Starlette

Message = MutableMapping[str, Any]

#: nothing but these files and the API of the same server, whatever a service's text may say
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    # asked for again each time, and seldom sent again: a new release's script never meets an old page
    (b"cache-control", b"no-cache"),
)


@functools.cache
def _files() -> Starlette:
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    files = StaticFiles(directory=Path(__file__).parent / "static", html=True)
    return Starlette(routes=[Mount("/", app=files)])


async def serve(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The page as an ASGI application."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *HEADERS]
        await send(message)

    await _files()(scope, receive, answer)


class RemoteJobs(AirflowPlugin):
    """Adds *Browse → Remote jobs*: all tasks that wait for a remote job, read with the viewer's rights."""

    name = "remote_jobs"
    fastapi_apps = [  # noqa: RUF012 - as Airflow's own class declares it
        {"app": serve, "url_prefix": "/remote-jobs", "name": "Remote jobs"},
    ]
    external_views = [  # noqa: RUF012
        {
            "name": "Remote jobs",
            # relative to Airflow's own root, wherever that is
            "href": "remote-jobs/",
            "url_route": "remote-jobs",
            "destination": "nav",
            "category": "browse",
        },
    ]
