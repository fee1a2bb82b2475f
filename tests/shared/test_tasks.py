"""Ending tasks, also those that lose a cancellation."""

import asyncio
import contextlib

from shared.tasks import end


async def test_a_task_that_loses_cancellations_is_ended_all_the_same() -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while lost < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled() and lost == 3


async def test_what_a_task_raised_stays_with_it() -> None:
    async def fail() -> None:
        raise LookupError

    task = asyncio.create_task(fail())
    with contextlib.suppress(LookupError):
        await task
    await end(task)
    assert isinstance(task.exception(), LookupError)
