"""Links in a real Redis, written in the format of `shared.links` as admin writes them, but one step at a time."""

import asyncio
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from shared.entries import Entry
from shared.links import (
    CHANGES_COUNTER,
    CHANGES_STREAM,
    MARKER_KEY,
    Address,
    Marker,
    Published,
    PublishedHost,
    host_key,
)
from shared.redis import Redis, run_id

PROMO = Address("go.example", "/promo")
OTHER = Address("go.example", "/other")


def living(version: int = 1, *, link_id: int = 7, to: str = "https://example.com/") -> Published:
    """What Redis holds for a link that lives."""
    return Published(version, Entry(link_id, 3, to))


class Host(NamedTuple):
    """A host, to be published like an address."""

    hostname: str

    @property
    def key(self) -> str:
        return host_key(self.hostname)


class Publisher:
    """Each method is one of the steps that publishing is made of, so that a test can leave one out."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def complete(self, epoch: str = "first", *, run: str | None = None) -> None:
        """Say that every link is in Redis, on the run of the server that answers now, or on another one."""
        run = run or run_id(await self._redis.info("server"))
        await self._redis.set(MARKER_KEY, Marker(epoch, run).to_bytes())

    async def void(self) -> None:
        """Take the marker away."""
        await self._redis.delete(MARKER_KEY)

    async def put(self, address: Address | Host, published: Published | PublishedHost) -> None:
        """Write a value and tell nobody."""
        await self._redis.set(address.key, published.to_bytes())

    async def drop(self, address: Address | Host) -> None:
        """Take a value away and tell nobody."""
        await self._redis.delete(address.key)

    async def announce(self, address: Address | Host, published: Published | PublishedHost, *, step: int = 1) -> None:
        """Put a change on the stream. A step beyond 1 loses the changes between."""
        number = await self._redis.incrby(CHANGES_COUNTER, step)
        await self._redis.xadd(CHANGES_STREAM, {"key": address.key, "value": published.to_bytes()}, id=f"{number}-0")

    async def change(self, address: Address | Host, published: Published | PublishedHost) -> None:
        """Write a value and announce it: all that an ordinary publication does."""
        await self.put(address, published)
        await self.announce(address, published)


class Gate:
    """A wire to a real server on which answers can be held back, to make "meanwhile" a matter of order, not of luck."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._is_open = asyncio.Event()
        self._is_open.set()
        self.held = asyncio.Event()
        """An answer has left the server and waits here."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False

    @property
    def url(self) -> str:
        """Like the server's URL, but through the gate."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return self._target._replace(netloc=f":{self._target.password}@127.0.0.1:{port}").geturl()

    def hold(self) -> None:
        """Let no more answers through."""
        self._is_open.clear()
        self.held.clear()

    def release(self) -> None:
        """Let them through again, those that wait first."""
        self._is_open.set()

    def cut(self) -> None:
        """End all connections, and let nobody connect."""
        self._is_cut = True
        for task in self._tasks:
            task.cancel()

    def mend(self) -> None:
        """Let them connect again."""
        self._is_cut = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, asked: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        if self._is_cut:
            answers.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        answered, asks = await asyncio.open_connection(self._target.hostname, self._target.port)
        asking = asyncio.create_task(self._pass_on(asked, asks, is_held=False))
        try:
            await self._pass_on(answered, answers, is_held=True)
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            asking.cancel()
            await asyncio.wait([asking])
            for writer in (asks, answers):
                writer.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_held: bool) -> None:
        while data := await source.read(65536):
            if is_held and not self._is_open.is_set():
                self.held.set()
                await self._is_open.wait()
            target.write(data)
            await target.drain()
