"""A worker of the edge on a real socket, in the test's own event loop, and raw bytes sent to it."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from edge.app import Worker, build
from edge.connection import Connection
from edge.heads import click_of
from edge.segments import COUNTS_SUFFIX, Record, SpoolReader
from edge.settings import EdgeSettings
from shared.addresses import Proxies
from shared.clicks import Click
from shared.settings import load

DATE = b"Sat, 21 Nov 2026 12:00:00 GMT"


class RunningEdge:
    """A worker that answers on a port of the loopback interface."""

    def __init__(self, worker: Worker, settings: EdgeSettings, port: int, state: ServerState) -> None:
        self.worker = worker
        self.settings = settings
        self.port = port
        self.state = state
        self.clients: list[Client] = []
        self.readers: dict[str, SpoolReader] = {}

    def new_clicks(self) -> list[Click]:
        """What was recorded since this was last asked."""
        clicks = []
        for path in self.settings.spool_directory.glob("*" + COUNTS_SUFFIX):
            reader = self.readers.setdefault(path.stem, SpoolReader(self.settings.spool_directory, path.stem))
            records = [Record.from_bytes(record) for record in reader.read(2**30)]
            clicks += [click_of(record, Proxies(self.settings.trusted_proxies)) for record in records]
        return clicks

    async def connect(self) -> "Client":
        """A connection to it."""
        ours = socket.socket()
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_connect(ours, ("127.0.0.1", self.port))
        self.clients.append(Client(ours, self))
        return self.clients[-1]

    async def say(self, *chunks: bytes) -> bytes:
        """All that is answered to these bytes, each chunk in a read of its own, until the connection is closed.

        After the last chunk the client closes its half.
        """
        client = await self.connect()
        try:
            for chunk in chunks:
                await client.send(chunk)
            client.finish()
            return await client.rest()
        finally:
            client.close()


class Client:
    """One connection, as a visitor has it."""

    def __init__(self, ours: socket.socket, edge: RunningEdge) -> None:
        self.socket = ours
        self._address = ours.getsockname()
        self._edge = edge
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send, and wait until the other end has read it, so that what follows is another read."""
        with contextlib.suppress(ConnectionError):
            await self._loop.sock_sendall(self.socket, data)
            while not self._is_read():
                await asyncio.sleep(0)

    def _is_read(self) -> bool:
        for connection in self._edge.state.connections:
            if isinstance(connection, Connection) and connection.client == self._address:
                theirs = connection.transport.get_extra_info("socket")
                return theirs is None or theirs.fileno() < 0 or not _unread(theirs.fileno())
        return _is_left(self.socket)

    def finish(self) -> None:
        """Close our half."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    async def receive(self, ends: bytes = b"\r\n\r\n") -> bytes:
        """What arrives until these bytes do; by default the next answer, if it has no body."""
        received = b""
        async with asyncio.timeout(10):
            while not received.endswith(ends):
                data = await self._loop.sock_recv(self.socket, 65536)
                assert data, received
                received += data
        return received

    async def rest(self) -> bytes:
        """Everything until the connection is closed, which it is to be within ten seconds."""
        received = b""
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while data := await self._loop.sock_recv(self.socket, 65536):
                    received += data
        return received

    def close(self) -> None:
        self.socket.close()


def _is_left(ours: socket.socket) -> bool:
    """Whether the other end has answered or is gone; before it has accepted us, it has not."""
    try:
        return ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) is not None
    except BlockingIOError:
        return False
    except OSError:
        return True


def _unread(fd: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])


@contextlib.asynccontextmanager
async def running_edge(
    redis_url: str, home: Path, environment: Mapping[str, str] | None = None, *, fast: bool = True
) -> AsyncIterator[RunningEdge]:
    """A worker as `python -m edge` runs it; if not `fast`, one that has only the way through redirect.py."""
    settings = load(EdgeSettings, {"LINKWIRE_HOME": str(home), "REDIS_URL": redis_url, **(environment or {})}, home)
    worker = build(settings)
    http: Any = worker.protocol  # it is only ever called
    config = uvicorn.Config(worker.app, ws="none", access_log=False, log_config=None, log_level="error", http=http)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", DATE)]

    def protocol() -> asyncio.Protocol:
        way = worker.protocol if fast else partial(Connection, worker.protocol.args[0])
        return way(config=config, server_state=state, app_state={}, _loop=asyncio.get_running_loop())

    async with worker.app.router.lifespan_context(worker.app):
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        edge = RunningEdge(worker, settings, port, state)
        try:
            yield edge
        finally:
            server.close()
            for client in edge.clients:
                client.close()
            for reader in edge.readers.values():
                reader.close()
            for connection in list(state.connections):
                connection.transport.abort()
            for task in list(state.tasks):
                task.cancel()
            await asyncio.sleep(0)


def get(path: str = "/promo", host: str = "go.example", *headers: str, method: str = "GET") -> bytes:
    """The bytes of an ordinary request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges) if begin < end]
