"""What is kept for each event loop, and how long."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any


def forget_closed(by_loop: MutableMapping[asyncio.AbstractEventLoop, Any]) -> None:
    """Let go of loops that ended without an orderly shutdown: what is kept for them refers to them, so that a
    weak reference to a loop as the key does not help."""
    for loop in [loop for loop in by_loop if loop.is_closed()]:
        del by_loop[loop]
