# SPDX-License-Identifier: Apache-2.0
"""What the HTTP provider's HttpEventTrigger asks of each answer; it reloads this module for each, as it does."""

from __future__ import annotations

from typing import Any


async def is_done(response: Any) -> bool:
    return bool(response.json()["status"] == "DONE")
