"""Where an account lives and how it signs in: an Airflow connection, understood once."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from airflow_status_provider.errors import InvalidConnection
from airflow_status_provider.protocols.model import AuthScheme, Service, Tokens
from airflow_status_provider.transport.network import loopback, proxy_passwords
from airflow_status_provider.transport.redaction import Redactor

#: what of a connection's extra is no secret; nor is what it says in numbers, and in true and false
PUBLIC_EXTRA = frozenset({"ws_url", "ca_file", "client_cert", "client_key", "allow_insecure"})


@dataclass(frozen=True, eq=False)
class Endpoint:
    """``digest`` distinguishes accounts: equal digests may share a client and a socket, others never."""

    service: Service
    conn_id: str
    base: str
    socket: str
    scheme: AuthScheme = field(repr=False)
    tls: ssl.SSLContext | None = field(repr=False)
    digest: str = field(repr=False)
    #: what no answer may quote
    secrets: tuple[str, ...] = field(repr=False)
    #: whether what crosses the network in clear, or to where only this machine can reach, is accepted
    insecure: bool = False
    #: the same connection as it is now, where somebody can say
    fetch: Callable[[], Awaitable[Endpoint]] | None = field(default=None, repr=False)

    @cached_property  # one text for all of its waits
    def where(self) -> str:
        return f"{self.service.title} (connection {self.conn_id!r})"

    @cached_property
    def _redactor(self) -> Redactor:
        return Redactor((*self.secrets, *proxy_passwords()))

    @property
    def host(self) -> str:
        return urlsplit(self.base).hostname or ""

    def discretion(self, issued: Iterable[Tokens]) -> Redactor:
        """What takes this account's secrets out of what its service says; from now on these tokens, too."""
        self._redactor.learn(text for each in issued for text in (each.access, each.refresh) if text)
        return self._redactor


def build(
    service: Service,
    conn_id: str,
    *,
    host: str | None,
    port: int | None,
    schema: str | None,
    login: str | None,
    password: str | None,
    extra: Mapping[str, Any],
) -> Endpoint:
    """Read a connection's fields, or say in one sentence what is wrong with them.

    ``host`` is the server's origin (``http://127.0.0.1:8000``) or a host name with schema and port beside
    it; ``https`` where nothing says otherwise; a path in it replaces the service's own API prefix.
    """
    login, password = (login or "").strip(), (password or "").strip()
    try:
        origin, base = _locate(service, host, port, schema)
        socket = _websocket(service.socket_base(origin, base))
        if given := _text(extra, "ws_url"):
            socket = _socket_url(given, directory=not socket.endswith("/"))
        insecure = _flag(extra, "allow_insecure")
        for url in (base, socket):
            _confidential(url, insecure)
        scheme = service.auth(login or None, password or None, extra)
        secure = base.startswith("https") or socket.startswith("wss")
        tls, files = _tls(extra) if secure else (None, "")
    except InvalidConnection as error:
        raise error.at(f"{service.title} (connection {conn_id!r})") from None
    told = json.dumps(
        [service.name, base, socket, login, password, dict(extra), files], sort_keys=True, default=str
    )
    digest = hashlib.sha256(told.encode()).hexdigest()
    secret = {name: value for name, value in extra.items() if name not in PUBLIC_EXTRA}
    secrets = tuple(_texts([password, secret]))
    return Endpoint(service, conn_id, base, socket, scheme, tls, digest, secrets, insecure)


def _locate(service: Service, host: str | None, port: int | None, schema: str | None) -> tuple[str, str]:
    host = (host or "").strip() or service.default_host
    if not host:
        raise InvalidConnection(
            "the host is missing; put the server's origin there, as in https://example.com"
        )
    if schema and schema not in ("http", "https"):
        raise InvalidConnection("the schema must be http or https")
    if "://" not in host:
        host = f"{schema or 'https'}://{f'[{host}]' if host.count(':') > 1 and host[0] != '[' else host}"
    url = _address("the host", host)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise InvalidConnection("the host must be an http or https origin, or a bare host name")
    name = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    port = url.port or port
    origin = f"{url.scheme}://{name}" + (f":{port}" if port else "")
    _address("the host", origin)  # with the port that stood beside it
    path = url.path.rstrip("/")
    return origin, origin + (path or service.prefix)


def _websocket(url: str) -> str:
    return "ws" + url.removeprefix("http")


def _socket_url(given: str, directory: bool) -> str:
    url = _address("extra.ws_url", given)
    if url.scheme not in ("ws", "wss") or not url.hostname:
        raise InvalidConnection("extra.ws_url must be a ws:// or wss:// address")
    given = f"{url.scheme}{given[len(url.scheme) :]}"  # in lower case, as whoever asks for TLS compares it
    return given.rstrip("/") if directory else given


def _address(what: str, given: str) -> SplitResult:
    """A URL's parts, if something can be connected to there and nothing in it is secret."""
    if any(character.isspace() or not character.isprintable() for character in given):
        raise InvalidConnection(f"{what} must not hold white space or control characters")
    try:
        url = urlsplit(given)
        if url.port == 0 or not _nameable(url.hostname or "x"):
            raise ValueError
    except ValueError:
        raise InvalidConnection(f"{what} is not a valid address") from None
    if "@" in url.netloc or url.query or url.fragment:
        raise InvalidConnection(f"{what} must not hold credentials, a query or a fragment")
    return url


def _nameable(host: str) -> bool:
    """Whether something can have this name: an address, or a name that DNS or a hosts file may know."""
    if ":" in host:
        return bool(ipaddress.IPv6Address(host))
    return re.fullmatch(r"[a-z0-9._-]+", host.encode("idna").decode()) is not None


def _confidential(url: str, allowed: bool) -> None:
    """Credentials do not cross a network in clear unless somebody says so."""
    parts = urlsplit(url)
    if allowed or parts.scheme in ("https", "wss") or loopback(parts.hostname or ""):
        return
    raise InvalidConnection(
        f"the credentials would cross the network unencrypted ({parts.scheme}://); "
        "use https, or set allow_insecure to true in the extra to accept it"
    )


def _flag(extra: Mapping[str, Any], name: str) -> bool:
    """A JSON true or false, or its text, which is what a connection written as a URI has."""
    value = extra.get(name)
    word = value.lower() if isinstance(value, str) else value
    if word is True or word == "true":
        return True
    if word is None or word is False or word in ("", "false"):
        return False
    raise InvalidConnection(f"extra.{name} must be true or false")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _text(extra: Mapping[str, Any], name: str) -> str | None:
    value = extra.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidConnection(f"extra.{name} must be text")
    return value or None


def _tls(extra: Mapping[str, Any]) -> tuple[ssl.SSLContext, str]:
    """Verified by default; ``ca_file`` for a private authority, ``client_cert`` (and ``client_key``).

    With it comes a digest of what the files hold: a certificate that was renewed in place is another one.
    """
    certificate, key = _text(extra, "client_cert"), _text(extra, "client_key")
    if key and not certificate:
        raise InvalidConnection("extra.client_key is of no use without extra.client_cert")
    files = (_text(extra, "ca_file"), certificate, key)
    try:
        digest = _contents(files)
        context = _contexts.get((digest, files))
        while context is None:
            context = _context(*files)
            found = _contents(files)
            if found != digest:  # replaced meanwhile
                digest, context = found, None
    except (OSError, ValueError) as error:  # an SSLError is an OSError; a path with a NUL is a ValueError
        raise InvalidConnection(f"the TLS files in the extra cannot be used: {error}") from None
    while len(_contexts) >= MOST_CONTEXTS:
        _contexts.pop(next(iter(_contexts)), None)
    _contexts[digest, files] = context
    return context, digest


_Files = tuple[str | None, str | None, str | None]
#: loading the authorities takes 40 ms
_contexts: dict[tuple[str, _Files], ssl.SSLContext] = {}
MOST_CONTEXTS = 64


def _context(ca_file: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if certificate:
        # a pass phrase, even if it is wrong, keeps OpenSSL from asking a terminal for one
        context.load_cert_chain(certificate, key, password="")
    return context


def _contents(files: _Files) -> str:
    """A digest of what the files hold. The system's authorities are many: their date and size must do."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest() if path else b"-")
    if not files[0]:
        paths = ssl.get_default_verify_paths()
        for path in (paths.cafile, paths.capath):
            if path and (at := Path(path)).exists():
                status = at.stat()
                digest.update(f"{path} {status.st_mtime_ns} {status.st_size}".encode())
    return digest.hexdigest()
