"""Which way requests go: through which proxy, and to which of the addresses that a service names."""

from __future__ import annotations

import asyncio
import socket
import traceback
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.errors import (
    InvalidConnection,
    NotSent,
    RemoteUnavailable,
    RequestRejected,
    StatusProviderError,
)
from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.model import File, Request, Tokens
from airflow_status_provider.transport.network import (
    Reach,
    environment_proxy,
    numeric,
    permit,
    proxy_passwords,
    reach_of,
)
from airflow_status_provider.transport.ws import open_socket
from tests.transport.conftest import Certified, answer
from tests.transport.test_http import SECRET, Line, Serve, at

HIDDEN = "se-cret-proxy"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "ws", "wss", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


@pytest.fixture(params=["async", "blocking"])
def line(request: pytest.FixtureRequest) -> Line:
    return Line(request.param)


# -- proxies


async def test_this_machine_is_reached_without_a_proxy(
    line: Line, peer: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is exempt from TLS because nothing of it crosses a network."""
    proxy, there = await peer(answer()), await peer(answer())
    monkeypatch.setenv("http_proxy", proxy.url)
    assert (await line.send(at(there.url))).status == 200
    assert (len(proxy.heard), len(there.heard)) == (0, 1)


async def test_a_socket_on_this_machine_is_reached_without_a_proxy(
    peer: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose upgrade has the credentials as well."""
    proxy, there = await peer(answer(status="404 No")), await peer(answer(status="404 No"))
    for scheme in ("http", "ws", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
    stream = areal.SERVICE.stream
    assert stream is not None
    with pytest.raises(RemoteUnavailable, match="HTTP 404"):
        async with open_socket(at(there.url, areal.SERVICE), stream, Tokens(SECRET), "", ""):
            pass
    assert (len(proxy.heard), len(there.heard)) == (0, 1)


async def test_any_other_host_is_reached_through_the_proxy(
    line: Line, peer: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the environment says; also a socket, whose address has a scheme of its own."""
    proxy = await peer(answer(b'{"a": 1}'))
    monkeypatch.setenv("http_proxy", proxy.url)
    there = at("http://x.example", areal.SERVICE, extra={"allow_insecure": True})
    assert (await line.send(there)).json() == {"a": 1}
    stream = areal.SERVICE.stream
    assert stream is not None
    with pytest.raises(RemoteUnavailable):
        async with open_socket(there, stream, Tokens(SECRET), "", ""):
            pass
    assert [each.split(b"\r\n")[0] for each in proxy.heard[:2]] == [
        b"GET http://x.example/api/v2/thing HTTP/1.1",
        b"CONNECT x.example:80 HTTP/1.1",
    ]


@pytest.mark.parametrize(
    ("base", "proxied"),
    [
        ("https://x.example", True),
        ("wss://x.example/a", True),
        ("https://y.example", False),
        ("https://localhost", False),
        ("https://a.localhost:1", False),
        ("wss://127.9.9.9", False),
        ("https://[::1]:8000", False),
        ("https://10.0.0.1", True),
        ("http://x.example", False),
    ],
)
def test_who_is_proxied(base: str, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy for the scheme, but for this machine and what ``no_proxy`` lists."""
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy", "y.example")
    assert environment_proxy(base) == ("http://proxy.example:3128" if proxied else None)


BAD = [
    f"http://user:a/{HIDDEN}@127.0.0.1:9",
    f"http://user:1/{HIDDEN}@127.0.0.1:9",
    f"http://user:1?{HIDDEN}@127.0.0.1:9",
    f"http://user:1#{HIDDEN}@127.0.0.1:9",
    f"http://user:a {HIDDEN}@127.0.0.1:9",
    f"http://user:{HIDDEN}@127.0.0.1:99999",
    f"http://user:{HIDDEN}@127.0.0.1:0",
    f"http://us\ner:{HIDDEN}@h:1",
    f"http://user:{HIDDEN}@[::1",
    f"http://user:{HIDDEN}@",
    f"{HIDDEN}://x",
    f"//{HIDDEN}",
    f"socks5://user:{HIDDEN}@127.0.0.1:9",
    f"socks4a://{HIDDEN}.example",
    f"socks://user:{HIDDEN}@h",
]


@pytest.mark.parametrize("url", BAD)
async def test_a_proxy_that_is_none_is_trouble_of_ours(
    line: Line, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said in our words, which name the variable and not the proxy's password; waits go on until the deadline."""
    monkeypatch.setenv("https_proxy", url)
    monkeypatch.setenv("wss_proxy", url)
    where = at("https://x.example", areal.SERVICE)
    with pytest.raises(NotSent, match="https_proxy is (not a valid address|a SOCKS proxy)") as refused:
        await line.send(where)
    stream = areal.SERVICE.stream
    assert stream is not None
    with pytest.raises(NotSent, match="wss_proxy is") as closed:
        async with open_socket(where, stream, Tokens(SECRET), "", ""):
            pass
    for error in (refused.value, closed.value):
        assert HIDDEN not in "".join(traceback.format_exception(error))


async def test_a_proxy_that_says_no_is_not_quoted(
    line: Line, peer: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the password that it was sent, in whichever spelling."""
    proxy = await peer(answer(status="407 who is user:a%2Fse-cret-proxy dXNlcjphL3NlLWNyZXQtcHJveHk="))
    monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//user:a%2Fse-cret-proxy@"))
    assert proxy_passwords() == ["a%2Fse-cret-proxy", "a/se-cret-proxy"]
    with pytest.raises(RemoteUnavailable) as refused:
        await line.send(at("https://x.example"))
    said = "".join(traceback.format_exception(refused.value))
    assert HIDDEN not in said
    assert "NlLWNyZXQ" not in said


# -- addresses that a service names


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        ("64:ff9b::5db8:d822", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.31.0.1", Reach.PRIVATE),
        ("192.168.0.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("100.100.100.200", Reach.PRIVATE),
        ("198.18.0.1", Reach.PRIVATE),
        ("192.0.0.192", Reach.PRIVATE),
        ("192.0.2.1", Reach.PRIVATE),
        ("fd00:ec2::254", Reach.PRIVATE),
        ("fc00::1", Reach.PRIVATE),
        ("fec0::1", Reach.PRIVATE),
        ("2001:db8::1", Reach.PRIVATE),
        ("::ffff:10.0.0.1", Reach.PRIVATE),
        ("::10.0.0.1", Reach.PRIVATE),
        ("64:ff9b::10.0.0.1", Reach.PRIVATE),
        ("2002:a00:1::1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.255.0.1", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("2002:7f00:1::", Reach.LOOPBACK),
        ("0.0.0.0", Reach.NOBODY),
        ("::", Reach.NOBODY),
        ("::ffff:0.0.0.0", Reach.NOBODY),
        ("169.254.169.254", Reach.NOBODY),
        ("::ffff:169.254.169.254", Reach.NOBODY),
        ("64:ff9b::169.254.169.254", Reach.NOBODY),
        ("fe80::1%eth0", Reach.NOBODY),
        ("224.0.0.1", Reach.NOBODY),
        ("255.255.255.255", Reach.NOBODY),
        ("240.0.0.1", Reach.NOBODY),
        ("168.63.129.16", Reach.NOBODY),
        ("ff02::1", Reach.NOBODY),
    ],
)
def test_who_reaches_an_address(address: str, reach: Reach) -> None:
    """Also where one kind of address holds another."""
    assert reach_of(address) is reach


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.1", "localhost", "a.localhost"],
)
def test_any_notation_of_an_address_is_one(host: str) -> None:
    """The operating system would connect to it, so it is looked at as that."""
    assert numeric(host) == ["127.0.0.1"]


HOME = ["93.184.216.34"]


@pytest.mark.parametrize(
    ("scheme", "there", "home", "words"),
    [
        ("https", ["93.184.216.35"], HOME, None),
        ("https", ["10.0.0.2"], ["10.0.0.1"], None),
        ("https", ["10.0.0.2"], ["127.0.0.1"], None),
        ("http", ["127.0.0.1"], ["127.0.0.1"], None),
        ("http", ["93.184.216.35"], HOME, "unencrypted"),
        ("http", ["10.0.0.2"], ["10.0.0.1"], "unencrypted"),
        ("https", ["10.0.0.2"], HOME, "a private address"),
        ("https", ["93.184.216.35", "10.0.0.2"], HOME, "a private address"),
        ("https", ["127.0.0.1"], HOME, "this machine"),
        ("https", ["127.0.0.1"], ["10.0.0.1"], "this machine"),
        ("https", ["169.254.169.254"], ["127.0.0.1"], "no file store"),
        ("https", ["0.0.0.0"], ["127.0.0.1"], "no file store"),
    ],
)
def test_where_a_file_may_go(scheme: str, there: list[str], home: list[str], words: str | None) -> None:
    """Encrypted, to the world; to the service's own network, if it is on one; to nothing else."""
    if words is None:
        permit(scheme, there, home)
    else:
        with pytest.raises(InvalidConnection, match=f"{words}.*allow_insecure"):
            permit(scheme, there, home)


NAMES = {
    "areal.example": "93.184.216.34",
    "private.example": "10.9.9.9",
    "machine.example": "127.0.0.1",
    "store.example": "127.0.0.1",
    "metadata.example": "169.254.169.254",
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DNS of our own; real addresses are left to the real one."""
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in NAMES and not named.get("flags"):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (NAMES[name], port))]
        return real(host, port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def upload(url: str, folder: Path) -> Request:
    (folder / "loan.pdf").write_bytes(b"SECRET MORTGAGE")
    file = File("file", "loan.pdf", folder / "loan.pdf")
    return Request(method="POST", path=url, form={"k": "v"}, files=(file,), authorised=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/admin/reset?x=1",
        "https://127.0.0.1:{port}/",
        "https://localhost:{port}/",
        "https://2130706433:{port}/",
        "https://[::ffff:127.0.0.1]:{port}/",
        "https://[::]:{port}/",
        "https://0.0.0.0:{port}/",
        "https://machine.example:{port}/",
        "https://private.example:{port}/",
        "https://metadata.example/latest/meta-data",
        "https://169.254.169.254/latest/meta-data",
        "https://areal.example@127.0.0.1:{port}/",
        "https://areal.example\\@127.0.0.1:{port}/",
        "http://areal.example/",
        "file:///etc/passwd",
        "ftp://areal.example/",
        "gopher://127.0.0.1:{port}/x",
        "//127.0.0.1:{port}/://",
        "https://",
        "https://areal.example:0/",
        "https://areal.example:99999/",
        "HTTP://127.0.0.1:{port}/",
    ],
)
@pytest.mark.usefixtures("names")
async def test_no_file_goes_to_where_only_we_can_reach(
    line: Line, peer: Serve, tmp_path: Path, url: str
) -> None:
    """Whatever a service out in the world calls the place; nothing is connected to."""
    inside = await peer(answer(b"the admin password is hunter2"))
    request = upload(url.format(port=inside.url.rpartition(":")[2]), tmp_path)
    with pytest.raises(StatusProviderError) as refused:
        await line.send(at("https://areal.example", areal.SERVICE), request)
    assert isinstance(refused.value, InvalidConnection | NotSent)
    assert inside.heard == []


@pytest.mark.usefixtures("names")
async def test_allow_insecure_accepts_any_place(line: Line, peer: Serve, tmp_path: Path) -> None:
    """For a store beside the service that has no TLS."""
    inside = await peer(answer())
    where = at("https://areal.example", areal.SERVICE, extra={"allow_insecure": True})
    request = upload(inside.url.replace("127.0.0.1", "machine.example") + "/a?b=%20c", tmp_path)
    assert (await line.send(where, request)).status == 200
    head = inside.heard[0].split(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"post /a?b=%20c http/1.1")
    assert b"host: machine.example:" in head
    assert SECRET.encode() not in head


async def test_a_service_on_this_machine_may_have_its_store_there(
    line: Line, peer: Serve, tmp_path: Path
) -> None:
    """As the simulator has."""
    inside = await peer(answer())
    assert (
        await line.send(at(inside.url, areal.SERVICE), upload(f"{inside.url}/s3", tmp_path))
    ).status == 200


@pytest.mark.usefixtures("names")
async def test_a_file_goes_to_the_address_that_was_looked_at(
    line: Line, peer: Serve, certified: Certified, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that has another address when it is asked again gains nothing; the certificate is the name's."""
    there = await peer(answer(), tls=certified.server)
    port = there.url.rpartition(":")[2]
    where = at("https://127.0.0.1", areal.SERVICE, extra={"ca_file": certified.ca_file})
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def once(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host == "store.example" and not named.get("flags"):
            looked_up.append(host)
        return real(host, port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", once)
    assert (await line.send(where, upload(f"https://store.example:{port}/", tmp_path))).status == 200
    assert f"host: store.example:{port}".encode() in there.heard[0].lower()
    assert looked_up == ["store.example"]
    with pytest.raises(NotSent, match="certificate"):
        await line.send(where, upload(f"https://machine.example:{port}/", tmp_path))


async def test_a_name_with_several_addresses_is_tried_at_each(
    line: Line, peer: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first may be of a network that this machine is not on."""
    there = await peer(answer())
    port = int(there.url.rpartition(":")[2])
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host != "store.example" or named.get("flags"):
            return real(host, port, *more, **named)
        return [(2, 1, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    response = await line.send(
        at(there.url, areal.SERVICE), upload(f"http://store.example:{port}/", tmp_path)
    )
    assert response.status == 200


async def test_a_proxy_takes_files_too(
    line: Line, peer: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks names up itself, so it decides; what is an address is refused here."""
    proxy = await peer(answer(status="502 No"))
    monkeypatch.setenv("https_proxy", proxy.url)
    where = at("https://areal.example", areal.SERVICE)
    with pytest.raises(StatusProviderError):
        await line.send(where, upload("https://bucket.example/", tmp_path))
    assert proxy.heard[0].startswith(b"CONNECT bucket.example:443")
    for url in ("https://10.0.0.1/", "https://169.254.169.254/", "https://0xa9fea9fe/"):
        with pytest.raises(InvalidConnection):
            await line.send(where, upload(url, tmp_path))
    assert len(proxy.heard) == 1


async def test_credentials_go_to_no_other_address(line: Line, peer: Serve) -> None:
    """Whoever asks for that has made a mistake."""
    there = await peer(answer())
    with pytest.raises(ValueError, match="configured origin only"):
        await line.send(at(there.url), Request(method="GET", path=f"{there.url}/x"))
    assert there.heard == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [("400 Bad", RequestRejected), ("500 Broken", RemoteUnavailable), ("302 Found", RemoteUnavailable)],
)
async def test_nothing_of_a_stores_answer_is_quoted(
    peer: Serve, tmp_path: Path, status: str, kind: type[Exception]
) -> None:
    """It may be anybody's; a redirect is not followed."""
    elsewhere = await peer(answer())
    there = await peer(
        answer(b'{"message": "the password is hunter2"}', status=status, Location=elsewhere.url)
    )
    hook = ArealHook("a")
    hook.patience = 0.0
    hook._endpoint = at(there.url, areal.SERVICE)
    (tmp_path / "loan.pdf").write_bytes(b"x")
    slots = (areal.Slot("d", "loan.pdf", f"{there.url}/s3", {}),)

    def start() -> None:
        hook.start(areal.Presigned("s", slots), [tmp_path / "loan.pdf"])

    with pytest.raises(kind, match=f"upload .*: HTTP {status[:3]}") as refused:
        await asyncio.to_thread(start)
    assert "hunter2" not in str(refused.value)
    assert elsewhere.heard == []
