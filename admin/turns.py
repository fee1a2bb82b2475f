"""Turns: for work that only a few may do at once, because each takes much of something."""

import asyncio
import contextlib
from collections.abc import Iterator
from types import TracebackType

from admin.errors import RateLimited, Unavailable

_LOOK_AGAIN_S = 5


class Turns:
    """Used as a context manager: entered when it is one's turn. Raises `Unavailable` for whoever waits too long.

    So those who wait don't grow in number; the client is told to come again.
    """

    def __init__(self, at_once: int, *, wait_s: float, sorry: str) -> None:
        self._at_once = at_once
        self._wait_s = wait_s
        self._sorry = sorry
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # tests have one each, processes one
            self._loop, self._free = loop, asyncio.Semaphore(self._at_once)
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise Unavailable(self._sorry) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free.release()


class OneEach:
    """For what nobody may do twice at once, so that nobody takes the turns of all."""

    def __init__(self, *, sorry: str) -> None:
        self._sorry = sorry
        self._doing: set[int] = set()

    @contextlib.contextmanager
    def of(self, who: int) -> Iterator[None]:
        """Raises `RateLimited`, without waiting, for whoever is doing it already."""
        if who in self._doing:
            raise RateLimited(_LOOK_AGAIN_S, self._sorry)
        self._doing.add(who)
        try:
            yield
        finally:
            self._doing.remove(who)
