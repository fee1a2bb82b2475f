"""Waiting for what must happen, instead of sleeping for as long as it might take."""

import asyncio
import inspect
import time
from collections.abc import Callable

POLL_S = 0.005


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Return as soon as the condition (plain, or a coroutine function) holds; fail when it does not in time."""
    deadline = time.monotonic() + within_s
    await asyncio.sleep(0)  # tasks that were made just now begin, also when the condition holds already
    while True:
        held = condition()
        if inspect.isawaitable(held):
            held = await held
        if held:
            return
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(POLL_S)
