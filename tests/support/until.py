"""Waiting for what another task does, where there is no event to wait for. A deadline, never a fixed time."""

from __future__ import annotations

from collections.abc import Callable

import trio


async def until(condition: Callable[[], object], *, seconds: float = 5) -> None:
    """Return as soon as ``condition()`` holds; raises trio.TooSlowError."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)
