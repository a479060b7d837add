"""A bound over a whole exchange on a worker: httpx's time-outs are for each read, and a peer that sends one
byte within each of them, or one ``100 Continue`` after the other, would hold a process for ever."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpcore

from airflow_status_provider.transport.network import addresses
from airflow_status_provider.transport.within import within

T = TypeVar("T")


#: seconds that one address of a host with several may take to accept
ADDRESS_TIMEOUT = 2.0
#: the address of each host that has accepted last, which is tried first
_accepted: dict[tuple[str, int], str] = {}


def _addresses(host: str, port: int) -> list[str]:
    try:
        return addresses(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from None


class BoundedNetwork(httpcore.NetworkBackend):
    """httpcore's own sockets, none of which is waited for past ``give_up`` (monotonic seconds)."""

    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()
        self.give_up = float("inf")

    def left(self, timeout: float | None, error: type[Exception]) -> float:
        """The seconds that one step may take."""
        left = self.give_up - time.monotonic()
        if left <= 0:
            raise error("the answer took too long")
        return left if timeout is None else min(timeout, left)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        # a socket's own time-out holds for none of a name's resolution
        found = self._in_time(lambda: _addresses(host, port), self.left(timeout, httpcore.ConnectTimeout))
        last = _accepted.get((host, port))
        found.sort(key=lambda address: address != last)
        # one dead address of several, as with half-configured IPv6, costs little
        patience = timeout if len(found) == 1 else ADDRESS_TIMEOUT
        error: Exception = httpcore.ConnectError("the name has no address")
        for address in found:
            try:
                left = self.left(patience, httpcore.ConnectTimeout)
                stream = self._sockets.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
            else:
                _accepted[host, port] = address
                return _Stream(stream, self)
        raise error

    def _in_time(self, connect: Callable[[], T], seconds: float) -> T:
        try:
            return within(seconds, connect)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the connection timed out") from None


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, network: BoundedNetwork) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        while view:  # in pieces: the time-out of one call is for each of its writes
            self._stream.write(bytes(view[:PIECE]), self._network.left(timeout, httpcore.WriteTimeout))
            view = view[PIECE:]

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._network.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


#: bytes that are written at once
PIECE = 64 * 1024
