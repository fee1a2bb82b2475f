"""A worker's application without a socket, visits to it, and what they leave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
from prometheus_client import REGISTRY
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.app import build
from edge.heads import click_of
from edge.segments import COUNTS_SUFFIX, Record, SpoolReader
from edge.settings import EdgeSettings
from shared.addresses import Proxies
from shared.clicks import Click
from shared.settings import load
from shared.tasks import end
from tests.conftest import Servers
from tests.edge.publishing import PROMO, Publisher, living
from tests.shared.waiting import until

TARGET = "https://example.com/landing"
PROXY = "127.0.0.1"  # trusted by default
STRANGER = "198.51.100.9"


class Edge:
    """One worker's application, and visits to it."""

    def __init__(self, app: ASGIApp, settings: EdgeSettings) -> None:
        self.app = app
        self._settings = settings
        self.spool_directory = settings.spool_directory

    async def visit(
        self,
        path: str = "/promo",
        *,
        method: str = "GET",
        host: str | None = "go.example",
        peer: str = PROXY,
        raw_path: bytes | None = None,
        headers: list[tuple[str, str | bytes]] | None = None,
        content: bytes = b"",
    ) -> httpx2.Response:
        """One request. `raw_path` is sent as it is, where httpx2 would have tidied it; no `host`, no Host header."""
        app = self.app if raw_path is None else _with_raw_path(self.app, raw_path)
        transport = httpx2.ASGITransport(app=app, client=(peer, 50000))
        async with httpx2.AsyncClient(transport=transport, trust_env=False) as visitor:
            request = visitor.build_request(method, "http://go.example" + path, content=content)
            del request.headers["host"], request.headers["user-agent"]
            fields = [*([("host", host)] if host is not None else []), *(headers or [])]
            sent = [(_bytes(name), _bytes(value)) for name, value in fields]
            request.headers = httpx2.Headers([*request.headers.raw, *sent])
            return await visitor.send(request)

    def clicks(self) -> list[Click]:
        """What is in the spool, as the shipper would ship it."""
        clicks = []
        for reader in self.spools():
            for record in reader.read(2**30):
                clicks.append(click_of(Record.from_bytes(record), Proxies(self._settings.trusted_proxies)))
            reader.close()
        return clicks

    def spools(self) -> list[SpoolReader]:
        paths = self.spool_directory.glob("*" + COUNTS_SUFFIX)
        return [SpoolReader(self.spool_directory, path.stem) for path in paths]


def _bytes(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


def _with_raw_path(app: ASGIApp, raw_path: bytes) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "raw_path": raw_path}, receive, send)

    return wrapped


@contextlib.asynccontextmanager
async def edge_on(url: str, home: Path, **environment: str) -> AsyncIterator[Edge]:
    """An edge that runs, with what its settings are read from."""
    settings = load(EdgeSettings, {"LINKWIRE_HOME": str(home), "REDIS_URL": url, **environment}, home)
    app = build(settings).app
    async with app.router.lifespan_context(app):
        yield Edge(app, settings)
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__qualname__", "") == "Lookup.follow":
            await end(task)


async def until_ready(edge: Edge) -> None:
    async def is_ready() -> bool:
        return (await edge.visit("/readyz")).status_code == 200

    await until(is_ready)


async def make_edge(servers: Servers, publisher: Publisher, tmp_path: Path) -> AsyncIterator[Edge]:
    """Make it a fixture: an edge that is ready, with one link at go.example/promo."""
    await publisher.complete()
    await publisher.put(PROMO, living(to=TARGET))
    async with edge_on(servers.redis_url, tmp_path) as edge:
        await until_ready(edge)
        yield edge


def counted(name: str, **labels: str) -> float:
    """What a metric says."""
    return REGISTRY.get_sample_value(name, labels) or 0.0
