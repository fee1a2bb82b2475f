"""Tasks: ending them for certain."""

import asyncio
from typing import Any


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and return when all of them have ended; what they raised stays with them.

    Not for tasks that have something to wait for when they are cancelled: they are cancelled again meanwhile.

    Cancels again until it is so: on Python 3.11 `asyncio.wait_for`, which redis-py sends its commands with, loses a
    cancellation that arrives together with its result.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.1)
