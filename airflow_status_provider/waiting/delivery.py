"""Whether a socket delivers: what status reads find out about it.

1. An open socket proves nothing. A frame that carries news of jobs confirms it; what was confirmed of an
   account's shared socket holds for its next connection, too.
2. A status read that finds an end which the open socket should have reported, and does not report within
   ``MISS_GRACE`` seconds, shows that the socket is not reliable: all its waits are then polled at their own
   interval, until it has reported ``REGAIN`` ends in a row.
"""

from __future__ import annotations

from collections import OrderedDict

#: seconds within which a frame may follow a read that has found the same end
MISS_GRACE = 2.0
#: ends that an unreliable socket must report in a row before it is relied on again
REGAIN = 5
#: accounts remembered in a process
REMEMBERED = 1024


class Delivery:
    """What is known of one socket, or of all the sockets that an account had one after the other."""

    __slots__ = ("_reported", "confirmed", "unreliable")

    def __init__(self) -> None:
        self.confirmed = False
        self.unreliable = False
        self._reported = 0

    def confirm(self) -> None:
        """A frame with news has come."""
        self.confirmed = not self.unreliable

    def reported(self) -> None:
        """The socket has reported an end."""
        self._reported += 1
        if self._reported >= REGAIN:
            self.unreliable = False

    def missed(self) -> None:
        """The socket has not reported an end that it should have reported."""
        self.confirmed, self.unreliable, self._reported = False, True, 0


_known: OrderedDict[str, Delivery] = OrderedDict()


def delivery_of(digest: str) -> Delivery:
    """What this process knows of the shared socket of an account."""
    found = _known.setdefault(digest, Delivery())
    _known.move_to_end(digest)
    if len(_known) > REMEMBERED:
        _known.popitem(last=False)
    return found
