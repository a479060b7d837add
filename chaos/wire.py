# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy between client and service, with the faults that only a network has."""

from __future__ import annotations

import asyncio
import contextlib
import random

from tests.waiting.world import Wire

#: seconds for which a connection that lost something hangs on
HOLE = 300.0
MODES = ("refuse", "hole", "truncate", "slow", "dribble", "reset")


class FaultyWire(Wire):
    """``mode``: refuse (nobody listens), hole (half-open: nothing passes, nothing closes), truncate (the
    connection ends in the middle of an answer), slow (each piece is late), dribble (a few bytes at a time),
    reset (RST instead of an answer), or "" for none."""

    def __init__(self, target: str, chance: random.Random) -> None:
        super().__init__(target)
        self.mode = ""
        self._chance = chance
        self._gone = asyncio.Event()

    async def cut(self) -> None:
        await super().cut()
        self._gone.set()
        self._gone = asyncio.Event()

    async def become(self, mode: str) -> None:
        if "refuse" in (mode, self.mode) and mode != self.mode:
            await (self.cut() if mode == "refuse" else self.mend())
        self.mode = mode

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        swallowed = False
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                swallowed = swallowed or self.mode == "hole"
                if swallowed:
                    continue  # once something is lost, a TCP connection says nothing any more
                if self.mode == "reset":
                    break
                if self.mode == "truncate" and self._chance.random() < 0.5:
                    writer.write(data[: self._chance.randrange(len(data))])
                    writer.close()  # a FIN, as if that had been all
                    return
                if self.mode == "slow":
                    await asyncio.sleep(self._chance.uniform(0.0, 3.0))
                if self.mode == "dribble":
                    for at in range(0, min(len(data), 60), 20):
                        writer.write(data[at : at + 20])
                        await asyncio.sleep(self._chance.uniform(0.0, 0.5))
                    data = data[60:]
                writer.write(data)
                await writer.drain()
            if swallowed:
                # the end of one side does not reach the other either
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._gone.wait(), HOLE)
        writer.transport.abort()
