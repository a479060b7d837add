"""A connection, understood once: where the account lives, how it signs in, what is wrong with it."""

from __future__ import annotations

import datetime
import functools
import itertools
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yarl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_status_provider.errors import InvalidConnection
from airflow_status_provider.protocols import areal, haidy, organizer, tagger
from airflow_status_provider.protocols.model import Service
from airflow_status_provider.transport.endpoint import Endpoint, build

SECRET = "hunter2-hunter2"
SERVICES: list[Service] = [areal.SERVICE, tagger.SERVICE, organizer.SERVICE, haidy.SERVICE]


@pytest.fixture(scope="module", autouse=True)
def _contexts_are_made_once() -> Iterator[None]:
    """Making a default TLS context takes longer than everything else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


def connect(service: Service = areal.SERVICE, **fields: Any) -> Endpoint:
    """An endpoint from a connection that has a host and a password, but for what is said otherwise."""
    given: dict[str, Any] = {
        "host": "https://example.com",
        "port": None,
        "schema": None,
        "login": None,
        "password": SECRET,
        "extra": {},
    }
    return build(service, "my_conn", **{**given, **fields})


# -- where


@pytest.mark.parametrize(
    ("service", "base", "socket"),
    [
        (areal.SERVICE, "https://example.com/api/v2", "wss://example.com/status/"),
        (tagger.SERVICE, "https://example.com/api", "wss://example.com/api/batch/ws"),
        (organizer.SERVICE, "https://example.com/api/v1", "wss://example.com/api/v1/ws"),
        (haidy.SERVICE, "https://example.com/v2", "wss://example.com"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_each_service_has_its_place(service: Service, base: str, socket: str) -> None:
    """The origin, the service's own API prefix, and its socket beside or under it."""
    endpoint = connect(service)
    assert (endpoint.base, endpoint.socket) == (base, socket)


@pytest.mark.parametrize(
    ("fields", "base", "socket"),
    [
        # the host is the server's origin
        ({"host": "http://127.0.0.1:8000"}, "http://127.0.0.1:8000/api", "ws://127.0.0.1:8000/api/batch/ws"),
        (
            {"host": "https://h.example:8443"},
            "https://h.example:8443/api",
            "wss://h.example:8443/api/batch/ws",
        ),
        ({"host": " https://h.example/ "}, "https://h.example/api", "wss://h.example/api/batch/ws"),
        ({"host": "HTTPS://H.Example"}, "https://h.example/api", "wss://h.example/api/batch/ws"),
        ({"host": "https://h.example", "port": 444}, "https://h.example:444/api", None),
        ({"host": "https://h.example:1", "port": 2}, "https://h.example:1/api", None),
        ({"host": "https://h.example", "schema": "http"}, "https://h.example/api", None),
        # or a host name, with schema and port beside it; https where nothing says otherwise
        ({"host": "h.example"}, "https://h.example/api", "wss://h.example/api/batch/ws"),
        ({"host": "h.example", "port": 8443}, "https://h.example:8443/api", None),
        ({"host": "h.example:8443"}, "https://h.example:8443/api", None),
        ({"host": "localhost", "schema": "http", "port": 8000}, "http://localhost:8000/api", None),
        ({"host": "h.example", "schema": "https"}, "https://h.example/api", None),
        ({"host": "tagger_backend-1"}, "https://tagger_backend-1/api", None),
        ({"host": "bücher.example"}, "https://bücher.example/api", None),
        # a path replaces the service's own prefix
        ({"host": "https://h.example/x/y"}, "https://h.example/x/y", "wss://h.example/x/y/batch/ws"),
        ({"host": "https://h.example/x/"}, "https://h.example/x", None),
        ({"host": "h.example/x", "port": 444}, "https://h.example:444/x", None),
        # IPv6, with brackets or without
        ({"host": "http://[::1]:8000"}, "http://[::1]:8000/api", "ws://[::1]:8000/api/batch/ws"),
        ({"host": "[::1]", "schema": "http", "port": 8000}, "http://[::1]:8000/api", None),
        ({"host": "::1", "schema": "http"}, "http://[::1]/api", None),
        ({"host": "2001:db8::7", "port": 444}, "https://[2001:db8::7]:444/api", None),
    ],
    ids=str,
)
def test_a_place_can_be_written_in_many_ways(fields: dict[str, Any], base: str, socket: str | None) -> None:
    """Host, schema, port and path come to one base URL, and the socket follows it."""
    endpoint = connect(tagger.SERVICE, **fields)
    assert endpoint.base == base
    assert endpoint.socket == (socket or "ws" + base.removeprefix("http") + "/batch/ws")


def test_areals_socket_is_at_the_origin() -> None:
    """A path in the host replaces Areal's API prefix and leaves its socket where it is."""
    assert connect(host="https://h.example/proxy").socket == "wss://h.example/status/"


def test_haidy_is_where_it_is() -> None:
    """Haidy needs no host; another deployment is named like any other."""
    assert connect(haidy.SERVICE, host=None).base == "https://api.44ai.ch/v2"
    assert connect(haidy.SERVICE, host="").base == "https://api.44ai.ch/v2"
    assert connect(haidy.SERVICE, host="https://api.swiss0.44ai.ch").base == "https://api.swiss0.44ai.ch/v2"


@pytest.mark.parametrize(
    ("service", "given", "socket"),
    [
        (areal.SERVICE, "wss://ws.example/status/", "wss://ws.example/status/"),
        (areal.SERVICE, "ws://127.0.0.1:9/", "ws://127.0.0.1:9/"),
        (tagger.SERVICE, "wss://ws.example:444/batch/ws", "wss://ws.example:444/batch/ws"),
        (tagger.SERVICE, "wss://ws.example/batch/ws/", "wss://ws.example/batch/ws"),
        (organizer.SERVICE, "wss://ws.example/ws/", "wss://ws.example/ws"),
    ],
)
def test_the_socket_may_live_elsewhere(service: Service, given: str, socket: str) -> None:
    """``extra.ws_url`` overrides the socket's address, and an id fits after it with a single slash."""
    assert connect(service, extra={"ws_url": given}).socket == socket


# -- what is wrong


@pytest.mark.parametrize(
    ("service", "fields", "words"),
    [
        (areal.SERVICE, {"host": None}, "the host is missing"),
        (areal.SERVICE, {"host": "  "}, "the host is missing"),
        (areal.SERVICE, {"host": "ftp://h.example"}, "http or https origin"),
        (areal.SERVICE, {"host": "https://"}, "http or https origin"),
        (areal.SERVICE, {"host": "https:///x"}, "http or https origin"),
        (areal.SERVICE, {"host": "h.example", "schema": "ftp"}, "schema must be http or https"),
        (areal.SERVICE, {"host": "h.example", "schema": f"https://a:{SECRET}@h"}, "schema must be"),
        (areal.SERVICE, {"host": "https://h.example:99999"}, "not a valid address"),
        (areal.SERVICE, {"host": "https://h.example:port"}, "not a valid address"),
        (areal.SERVICE, {"host": "h.example", "port": 99999}, "not a valid address"),
        (areal.SERVICE, {"host": "h.example", "port": -1}, "not a valid address"),
        (areal.SERVICE, {"host": "https://[::1"}, "not a valid address"),
        (areal.SERVICE, {"host": "https://[:::1]"}, "not a valid address"),
        (areal.SERVICE, {"host": "h\\example"}, "not a valid address"),
        (areal.SERVICE, {"host": "h<b>.example"}, "not a valid address"),
        (areal.SERVICE, {"host": "h%2f.example"}, "not a valid address"),
        (areal.SERVICE, {"host": "h..example"}, "not a valid address"),
        (areal.SERVICE, {"host": "x" * 64 + ".example"}, "not a valid address"),
        (areal.SERVICE, {"host": "xn--ü.example"}, "not a valid address"),
        (areal.SERVICE, {"host": f"https://alice:{SECRET}@h.example"}, "must not hold credentials"),
        (areal.SERVICE, {"host": f"https://:{SECRET}@h.example"}, "must not hold credentials"),
        (areal.SERVICE, {"host": f"https://h.example?token={SECRET}"}, "must not hold credentials"),
        (areal.SERVICE, {"host": f"https://h.example#{SECRET}"}, "must not hold credentials"),
        (areal.SERVICE, {"host": "https://h.example/a b"}, "white space or control characters"),
        (areal.SERVICE, {"host": "h.exam\x00ple"}, "white space or control characters"),
        (areal.SERVICE, {"host": "https://h.exam\nple"}, "white space or control characters"),
        (areal.SERVICE, {"extra": {"ws_url": "https://ws.example"}}, "extra.ws_url must be"),
        (areal.SERVICE, {"extra": {"ws_url": "ws.example"}}, "extra.ws_url must be"),
        (areal.SERVICE, {"extra": {"ws_url": "wss://"}}, "extra.ws_url must be"),
        (areal.SERVICE, {"extra": {"ws_url": "wss://[bad"}}, "extra.ws_url is not a valid address"),
        (areal.SERVICE, {"extra": {"ws_url": "wss://h:port"}}, "extra.ws_url is not a valid address"),
        (areal.SERVICE, {"extra": {"ws_url": "wss://h b"}}, "extra.ws_url must not hold white space"),
        (areal.SERVICE, {"extra": {"ws_url": f"wss://a:{SECRET}@h"}}, "extra.ws_url must not hold cred"),
        (areal.SERVICE, {"extra": {"ws_url": f"wss://:{SECRET}@h"}}, "extra.ws_url must not hold cred"),
        (areal.SERVICE, {"extra": {"ws_url": f"wss://h/?token={SECRET}"}}, "extra.ws_url must not hold"),
        (areal.SERVICE, {"extra": {"ws_url": f"wss://h/#{SECRET}"}}, "extra.ws_url must not hold"),
        (areal.SERVICE, {"extra": {"ws_url": 7}}, "extra.ws_url must be text"),
        (areal.SERVICE, {"extra": {"ca_file": "/nowhere/ca.pem"}}, "TLS files in the extra cannot be used"),
        (areal.SERVICE, {"extra": {"ca_file": "a\x00b"}}, "TLS files in the extra cannot be used"),
        (areal.SERVICE, {"extra": {"client_cert": "\ud800"}}, "TLS files in the extra cannot be used"),
        (areal.SERVICE, {"extra": {"ca_file": ["a"]}}, "extra.ca_file must be text"),
        (areal.SERVICE, {"extra": {"client_cert": "/nowhere/c.pem"}}, "TLS files in the extra cannot"),
        (areal.SERVICE, {"extra": {"client_key": "/nowhere/k.pem"}}, "client_key is of no use without"),
        (areal.SERVICE, {"extra": {"allow_insecure": "perhaps"}}, "extra.allow_insecure must be true or"),
        (areal.SERVICE, {"extra": {"allow_insecure": 1}}, "extra.allow_insecure must be true or false"),
        (areal.SERVICE, {"login": "alice", "password": None}, "the password is missing"),
        (areal.SERVICE, {"password": ""}, "the password is missing"),
        (areal.SERVICE, {"password": f"{SECRET}\n{SECRET}"}, "no header may hold"),
        (tagger.SERVICE, {"password": None}, "the password is missing"),
        (organizer.SERVICE, {"password": None}, "the password is missing"),
        (haidy.SERVICE, {"password": None}, "the API token is missing"),
        (haidy.SERVICE, {"login": SECRET, "password": "x"}, "has no login"),
    ],
    ids=lambda value: getattr(value, "name", None) or ascii(value)[:60],
)
def test_a_connection_that_cannot_be_right(service: Service, fields: dict[str, Any], words: str) -> None:
    """Each mistake is one sentence that names service and connection, and never shows a secret."""
    with pytest.raises(InvalidConnection, match=words) as caught:
        connect(service, **fields)
    assert str(caught.value).startswith(f"{service.title} (connection 'my_conn'): ")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["http://example.com", "http://0.0.0.0:8000", "http://192.168.0.1", "http://[::2]"]
)
@pytest.mark.parametrize("where", ["host", "ws_url"])
def test_credentials_do_not_cross_a_network_in_clear(host: str, where: str) -> None:
    """Plain http or ws to anywhere but this machine is refused, unless somebody accepts it."""
    fields: dict[str, Any] = (
        {"host": host, "extra": {}} if where == "host" else {"extra": {"ws_url": host.replace("http", "ws")}}
    )
    with pytest.raises(InvalidConnection, match=r"unencrypted.*allow_insecure"):
        connect(**fields)
    for no in (False, "false", "False", "", None):
        with pytest.raises(InvalidConnection, match="unencrypted"):
            connect(**{**fields, "extra": {**fields["extra"], "allow_insecure": no}})
    for yes in (True, "true", "True"):
        assert connect(**{**fields, "extra": {**fields["extra"], "allow_insecure": yes}})


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:8000", "http://127.9.9.9", "http://[::1]", "http://localhost"]
)
def test_this_machine_is_no_network(host: str) -> None:
    """Plain http to the loopback needs no permission, and no TLS."""
    assert connect(host=host).tls is None


# -- TLS


def test_servers_are_verified() -> None:
    """Over https the server's certificate is checked, with its name."""
    tls = connect().tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_socket_elsewhere_is_verified_too() -> None:
    """A wss socket beside a plain http server has TLS."""
    endpoint = connect(host="http://127.0.0.1", extra={"ws_url": "wss://ws.example/"})
    assert endpoint.tls is not None


@pytest.mark.parametrize("scheme", ["WSS", "Wss", "wss"])
def test_the_letters_of_a_scheme_say_nothing(scheme: str, pems: Path) -> None:
    """A socket's URL in capitals has the same TLS, with the same authorities."""
    extra = {"ws_url": f"{scheme}://Ws.example/Path", "ca_file": str(pems / "cert.pem")}
    endpoint = connect(host="http://127.0.0.1", extra=extra)
    assert endpoint.socket == "wss://Ws.example/Path"
    assert endpoint.tls is not None
    assert len(endpoint.tls.get_ca_certs()) == 1


@pytest.fixture
def pems(tmp_path: Path) -> Path:
    """A certificate with its key, in the clear and encrypted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    clear, locked = serialization.NoEncryption(), serialization.BestAvailableEncryption(SECRET.encode())
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    for file, how in (("key.pem", clear), ("locked.pem", locked)):
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
        (tmp_path / file).write_bytes(pem)
    return tmp_path


def test_a_private_authority_and_a_client_certificate(pems: Path) -> None:
    """``ca_file`` is trusted instead of the public authorities; ``client_cert`` and its key are loaded."""
    files = {"ca_file": "cert.pem", "client_cert": "cert.pem", "client_key": "key.pem"}
    tls = connect(extra={name: str(pems / file) for name, file in files.items()}).tls
    assert tls is not None
    assert [dict(pair[0] for pair in ca["subject"]) for ca in tls.get_ca_certs()] == [
        {"commonName": "test authority"}
    ]


def test_a_locked_key_does_not_wait_for_anybody(pems: Path) -> None:
    """A key that needs a pass phrase is refused; nobody is there to be asked for it."""
    extra = {"client_cert": str(pems / "cert.pem"), "client_key": str(pems / "locked.pem")}
    with pytest.raises(InvalidConnection, match="TLS files"):
        connect(extra=extra)


# -- one account or another


ACCOUNTS: list[dict[str, Any]] = [
    {},
    {"service": tagger.SERVICE, "host": "https://example.com/api/v2"},
    {"host": "https://other.example"},
    {"host": "https://example.com:444"},
    {"host": "https://example.com/x"},
    {"password": "another"},
    {"login": "alice"},
    {"login": "bob"},
    {"login": "alice", "password": "another"},
    {"extra": {"ws_token": "a"}},
    {"extra": {"ws_token": "b"}},
    {"extra": {"ws_url": "wss://ws.example/"}},
    {"extra": {"allow_insecure": True}},
]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ACCOUNTS, 2)))
def test_accounts_that_differ_never_share(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Another service, server, login, password or extra is another account, with a digest of its own."""
    assert connect(**one).digest != connect(**other).digest


def test_the_same_account_is_shared() -> None:
    """Two connections with the same contents are one account, however they are named and written."""
    fields: dict[str, Any] = {"schema": None, "login": "alice", "password": "x"}
    one = build(areal.SERVICE, "a", host="https://h", port=None, extra={"x": 1, "y": 2}, **fields)
    other = build(areal.SERVICE, "b", host="h", port=None, extra={"y": 2, "x": 1}, **fields)
    assert one.digest == other.digest


def test_the_digest_tells_nothing() -> None:
    """Nothing of the connection can be read from the digest."""
    digest = connect(login="alice").digest
    assert len(digest) == 64
    assert int(digest, 16) >= 0


@pytest.mark.parametrize("login", [None, "alice-hunter2"])
@pytest.mark.parametrize("service", SERVICES[:3], ids=lambda service: service.name)
def test_no_repr_shows_the_credentials(service: Service, login: str | None) -> None:
    """An endpoint can be printed: it shows neither credentials nor the digest made of them."""
    endpoint = connect(service, login=login, extra={"ws_token": SECRET, "model_api_key": SECRET})
    shown = f"{endpoint!r}{endpoint!s}{endpoint.where}{endpoint.scheme!r}"
    assert "hunter2" not in shown
    assert endpoint.digest not in shown
    assert type(endpoint.scheme).__name__ not in repr(endpoint)
    assert endpoint.where == f"{service.title} (connection 'my_conn')"


@pytest.mark.parametrize(
    "host", ["https://example.com", "http://[::1]:8000", "bücher.example", "h.example/x"]
)
def test_what_is_accepted_can_be_connected_to(host: str) -> None:
    """The URL libraries understand every address that is accepted here."""
    endpoint = connect(host=host)
    assert yarl.URL(endpoint.base).host == yarl.URL(endpoint.socket).host
