"""Which way a request may go: through which proxy, and where to if the service itself names the address."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from collections.abc import Sequence
from enum import IntEnum
from urllib.parse import SplitResult, unquote, urlsplit

from airflow_status_provider.errors import InvalidConnection, NotSent

#: whose proxy a socket's is
_PROXIED = {"http": "http", "ws": "http", "https": "https", "wss": "https"}
#: a cloud's own service for its machines, behind an address like any other
_CLOUD = frozenset({ipaddress.ip_address("168.63.129.16")})
#: what is no host of the internet, which not every release of Python knows; and what alone may be one
_IETF = ipaddress.IPv4Network("192.0.0.0/24")
_UNICAST = ipaddress.IPv6Network("2000::/3")
#: IPv6 addresses that hold an IPv4 one, and how many bits stand behind it
_EMBEDDING = (
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("64:ff9b:1::/48"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)


class Reach(IntEnum):
    """Who reaches an address. ``NOBODY``: no file store has it, as multicast and link-local addresses, where
    clouds have their metadata."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    NOBODY = 3


def reach_of(address: str) -> Reach:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and not ip.is_loopback and not ip.is_unspecified:
        for network, behind in _EMBEDDING:
            if ip in network:
                ip = ipaddress.IPv4Address((int(ip) >> behind) & 0xFFFFFFFF)
                break
    if ip.is_loopback:
        return Reach.LOOPBACK
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip.is_reserved or ip in _CLOUD:
        return Reach.NOBODY
    unicast = ip in _UNICAST if isinstance(ip, ipaddress.IPv6Address) else ip not in _IETF
    return Reach.PUBLIC if ip.is_global and unicast else Reach.PRIVATE


def loopback(name: str) -> bool:
    """Whether this host is this machine, by what it is called."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def environment_proxy(base: str) -> str | None:
    """The proxy that the environment has for this address; ``NotSent``, without its password, if it is none.

    This machine is reached without: what goes there needs no TLS, and must not cross a network.
    """
    url = urlsplit(base)
    proxies = urllib.request.getproxies()
    scheme = url.scheme if url.scheme in proxies else _PROXIED[url.scheme]
    proxy = proxies.get(scheme)
    if not proxy or loopback(url.hostname or "") or urllib.request.proxy_bypass(url.netloc):
        return None
    return _proxy_address(proxy, f"{scheme}_proxy")


def proxy_passwords() -> list[str]:
    """What is secret of the environment's proxies."""
    passwords = []
    for proxy in urllib.request.getproxies().values():
        user, at, _ = proxy.rpartition("@")
        if at:
            passwords += [user.rpartition("//")[2].partition(":")[2]]
    return [form for each in passwords for form in (each, unquote(each))]


def _proxy_address(given: str, variable: str) -> str:
    proxy = given if "://" in given else f"http://{given}"
    try:
        if any(character.isspace() or not character.isprintable() for character in proxy):
            raise ValueError
        url = urlsplit(proxy)
        if url.scheme.startswith("socks"):
            raise NotSent(
                f"cannot be reached (the proxy in the environment variable {variable} is a SOCKS proxy, "
                "which is not supported; name an http:// proxy, or list the host in no_proxy)"
            )
        rest = url.path.strip("/") or url.query or url.fragment
        if url.scheme not in ("http", "https") or not url.hostname or url.port == 0 or rest:
            raise ValueError
    except ValueError:
        raise NotSent(
            f"cannot be reached (the proxy in the environment variable {variable} is not a valid address, "
            "like http://proxy.example:3128; in a password, percent-encode what is no letter and no digit)"
        ) from None
    return f"{url.scheme}://{url.netloc}"


def named_address(url: str) -> SplitResult:
    """The parts of an address that the service names for files."""
    try:
        parts = urlsplit(url)
        web = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if web and "@" not in parts.netloc:
            return parts
    except ValueError:
        pass
    raise InvalidConnection("the service names an address for the file that is no https:// address")


def port_of(url: SplitResult) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]


def numeric(host: str) -> list[str]:
    """The address that a host name is, in any notation of one; empty if it has to be looked up."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return ["127.0.0.1"] if loopback(host) else []
    return addresses(found)


def addresses(found: Sequence[tuple[object, ...]]) -> list[str]:
    """What ``getaddrinfo`` has found, each once."""
    return list(dict.fromkeys(str(each[4][0]) for each in found if isinstance(each[4], tuple)))


def permit(scheme: str, found: Sequence[str], home: Sequence[str]) -> None:
    """Refuse to send a file to these addresses, unless the service, whose own are ``home``, is as near.

    The service chooses the address: without this it could have files, and requests, sent to whatever only
    this machine or its network can reach.
    """
    there = max((reach_of(address) for address in found), default=Reach.PUBLIC)
    here = max((reach_of(address) for address in home), default=Reach.PUBLIC)
    if there is Reach.NOBODY or there > here:
        what = {Reach.PRIVATE: "a private address", Reach.LOOPBACK: "this machine"}
        raise InvalidConnection(
            f"the service names {what.get(there, 'an address that no file store has')} for the file; "
            "set allow_insecure to true in the extra to accept it"
        )
    if scheme != "https" and there is not Reach.LOOPBACK:
        raise InvalidConnection(
            "the service names an http:// address for the file, which would cross the network unencrypted; "
            "set allow_insecure to true in the extra to accept it"
        )
