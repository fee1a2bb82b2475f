"""What does the whole way of a click cost, from the request to the row that is counted?

`make bench-way`. Promise: 70 us of CPU for a click, of all processes together; aim for 45.

Everything as it is run, with servers of its own: an edge with one worker and its shipper, Valkey, the worker, Postgres.
Each link is followed once, so that the edge remembers it and nothing is new to anybody; that is not counted. Then all
of them rest, which is measured, too. Then visitors come through a proxy, on connections that stay open, as fast as they
are answered or at a pace, with what visitors have: many browsers, addresses, referrers, languages and campaigns. What
the processes use is counted until the last click is stored and its packs are folded, with what they would use at rest.
The visitors' own CPU is not counted. In the end as many clicks must be stored and counted as were answered.
"""

import argparse
import asyncio
import json
import random
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import asyncpg
import redis as redis_py

from admin import database, embedded
from admin.database import Connection
from benchmarks.ingest import check, clicks_of, organization_of, stored
from benchmarks.redirect import HEADERS
from benchmarks.servers import (
    HOST,
    cpu_of_all_s,
    cpu_s,
    destination,
    publish,
    random_paths,
    started,
    started_edge,
    started_worker,
)
from shared.clicks import Click
from shared.entries import Entry

RESULTS = Path(__file__).parent / "results"
REST_S = 10
"""As often as the worker tends what it has stored."""
STORED_WITHIN_S = 120
PROMISED_US, AIMED_US = 70, 45


class Running(NamedTuple):
    """The processes that a click goes through."""

    port: int
    connection: Connection
    used_s: dict[str, Callable[[], float]]
    """What each of them has used of a CPU."""


class Used(NamedTuple):
    """What processes have used of a CPU in a while."""

    took_s: float
    cpu_s: dict[str, float]


class Meter:
    """Measures from its making on."""

    def __init__(self, running: Running) -> None:
        self._running, self._begun = running, time.monotonic()
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {name: used_s() for name, used_s in self._running.used_s.items()}

    def read(self) -> Used:
        """What was used since then."""
        used = {name: after - self._before[name] for name, after in self._now().items()}
        return Used(time.monotonic() - self._begun, used)


def main() -> None:
    """Measure and tell."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clicks", type=int, default=600_000)
    arguments.add_argument("--pace", type=int, default=0, help="clicks a second; 0: as fast as they are answered")
    arguments.add_argument("--connections", type=int, default=32)
    arguments.add_argument("--links", type=int, default=40_000, help="fewer than half of what an edge remembers")
    told = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(_measure(Path(directory), told.links, told.pace, told.clicks, told.connections))
    for name, value in figures.items():
        print(f"{name:44} {value:12,.1f}")
    print(f"promised: {PROMISED_US} us of CPU a click, of all; aimed at: {AIMED_US} us")
    RESULTS.joinpath("way.json").write_text(json.dumps(figures, indent=2) + "\n")


async def _measure(home: Path, links: int, pace: int, count: int, connections: int) -> dict[str, float]:
    (home / "logs").mkdir()
    paths = random_paths(links)
    async with (
        started(embedded.postgres(home)) as (postgres_url, postgres),
        started(embedded.valkey(home)) as (redis_url, valkey),
    ):
        connection = await asyncpg.connect(postgres_url)
        await database.migrate(connection)
        publish(redis_py.Redis.from_url(redis_url), _entries(paths))
        with ExitStack() as stack:
            worker = stack.enter_context(started_worker(home, postgres_url, redis_url))
            edge = stack.enter_context(started_edge(home, redis_url))
            running = Running(
                edge.port,
                connection,
                {
                    "the edge": lambda: cpu_s([edge.parent, *edge.workers]),
                    "the shipper": lambda: cpu_s(edge.shipper),
                    "Valkey": lambda: cpu_of_all_s([valkey]),
                    "the worker": lambda: cpu_of_all_s([worker]),
                    "Postgres": lambda: cpu_of_all_s([postgres]),
                },
            )
            clicks = clicks_of(random.Random(7), len(paths))
            warm = (_request(click, path) for click, path in zip(clicks, paths, strict=False))
            answered = _visit(edge.port, warm, 0, connections)
            await _settled(connection, answered)
            rest = await _rest(running)
            requests = (_request(click, paths[click.link_id - 1]) for click in islice(clicks, count))
            figures = await _way(running, rest, answered, requests, pace, connections)
        await check(connection, answered + count)
        await connection.close()
    return figures


async def _rest(running: Running) -> Used:
    """What all of them use while nobody comes."""
    meter = Meter(running)
    await asyncio.sleep(REST_S)
    return meter.read()


async def _way(
    running: Running, rest: Used, before: int, requests: Iterable[bytes], pace: int, connections: int
) -> dict[str, float]:
    """What these requests cost, after so many others."""
    meter = Meter(running)
    count = _visit(running.port, requests, pace, connections)
    came_s = meter.read().took_s
    stored_s = await _settled(running.connection, before + count)
    used = meter.read()
    at_rest = sum(rest.cpu_s.values()) / rest.took_s
    return {
        "clicks": count,
        "clicks a second": count / came_s,
        "until all of them were stored, s": stored_s,
        **{f"CPU of {name}, us a click": used_s * 1e6 / count for name, used_s in used.cpu_s.items()},
        "CPU of all, us a click": sum(used.cpu_s.values()) * 1e6 / count,
        "of these at rest, us a click": at_rest * used.took_s * 1e6 / count,
        **{f"at rest: CPU of {name}, ms a second": used_s * 1e3 / rest.took_s for name, used_s in rest.cpu_s.items()},
        "at rest: CPU of all, ms a second": at_rest * 1e3,
    }


async def _settled(connection: Connection, count: int) -> float:
    """Wait until so many clicks are stored, and then until their packs are folded; how long they took to be stored."""
    begun = time.monotonic()
    while await stored(connection) < count:
        if time.monotonic() > begun + STORED_WITHIN_S:
            raise SystemExit(f"only {await stored(connection)} of {count} clicks were stored in {STORED_WITHIN_S} s")
        await asyncio.sleep(0.2)
    stored_s = time.monotonic() - begun
    while await connection.fetchval("select exists (select from packs where is_part)"):  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    return stored_s


def _visit(port: int, requests: Iterable[bytes], pace: int, connections: int) -> int:
    """Send requests, so many a second (0: as fast as they are answered); how many there were.

    A connection has one request at a time. Its answer is read when its turn comes again.
    """
    free = deque(socket.create_connection(("127.0.0.1", port)) for _ in range(connections))
    asked = deque[socket.socket]()
    begun, number = time.monotonic(), 0
    for number, request in enumerate(requests, start=1):
        client = free.popleft() if free else _answered(asked.popleft())
        if pace and (early_s := begun + number / pace - time.monotonic()) > 0:
            time.sleep(early_s)
        client.sendall(request)
        asked.append(client)
    for client in asked:
        _answered(client).close()
    return number


def _answered(client: socket.socket) -> socket.socket:
    """The connection, when a redirect has come on it."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        received = client.recv(4096)
        if not received:
            raise SystemExit("the edge has closed a connection")
        answer += received
    if not answer.startswith(b"HTTP/1.1 302 "):
        raise SystemExit(f"the edge has not redirected: {answer.decode('latin-1')}")
    return client


def _entries(paths: list[str]) -> dict[str, Entry]:
    return {
        path: Entry(number, organization_of(number), destination(path)) for number, path in enumerate(paths, start=1)
    }


def _request(click: Click, path: str) -> bytes:
    """What a browser sends that clicks so, and a proxy passes on."""
    query = "&".join(part for part in ("qr=1" * click.is_scan, click.campaign) if part)
    lines = {
        **HEADERS,
        "Host": HOST,
        "X-Forwarded-For": click.address,
        "User-Agent": click.user_agent,
        "Referer": click.referrer,
        "Accept-Language": click.accept_language,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{click.method} {path}{'?' * bool(query)}{query} HTTP/1.1\r\n{head}\r\n".encode()


if __name__ == "__main__":
    main()
