"""What an operator's job reads and writes, as OpenLineage names it.

Only what is known, and of an address never what may be secret in it: a user, a password, a signed query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from airflow_status_provider.protocols.sending import is_list


class Place(NamedTuple):
    """A dataset's namespace and its name there."""

    namespace: str
    name: str


def on_worker(files: object) -> list[Place]:
    """Files where the task runs; by the end of the wait they may be gone."""
    several: Any = files if is_list(files) else [files]
    return [Place("file", str(Path(path).absolute())) for path in several if isinstance(path, str | PurePath)]


def on_server(base: str, path: str) -> Place:
    """A file that the service behind ``base`` sees."""
    return Place(f"file://{_authority(base)}", path)


def of_service(service: str, base: str, name: str) -> Place:
    """A thing that only the service itself has."""
    return Place(f"{service}://{_authority(base)}", name)


def at_url(url: str) -> Place | None:
    """What an http address or an S3 one names; None for any other text."""
    try:
        scheme, _, path, _, _ = parts = urlsplit(url)
        parts.port  # noqa: B018 - it raises: what is no port may be half of a password that holds a "/"
    except ValueError:
        return None
    if scheme not in ("http", "https", "s3") or not _authority(url):
        return None
    return Place(f"{scheme}://{_authority(url)}", path.lstrip("/") if scheme == "s3" else path or "/")


def _authority(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def facets(inputs: Iterable[Place | None], outputs: Iterable[Place | None]) -> Any:
    """Both as the OpenLineage provider, which alone asks for them, takes them."""
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    def sets(places: Iterable[Place | None]) -> list[Any]:
        # the same twice is one dataset
        known = dict.fromkeys(place for place in places if place is not None)
        return [Dataset(namespace=place.namespace, name=place.name) for place in known]

    return OperatorLineage(inputs=sets(inputs), outputs=sets(outputs))


def objects(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list, or a single one; nothing of what a template may have made of it."""
    several: Any = value if is_list(value) else [value]
    return [each for each in several if isinstance(each, Mapping)]
