"""Load: visitors who follow a link as fast as they can, and know exactly what they were answered."""

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter

import asyncpg
import httpx2

from tests.houses import House, wait_for


class Visitors:
    """A few threads of visitors. Used as a context manager; ends when it is left.

    `redirects` were answered with 302. `cut_off` were sent and not answered: they may be recorded or not. `failed` are
    all other answers. A connection that is refused is neither: nothing was sent.
    """

    def __init__(self, house: House, path: str, *, threads: int = 4, keep_alive: bool = True, padding: int = 0) -> None:
        self._port = int(house.environment["LINKWIRE_EDGE_PORT"])
        self._keep_alive = keep_alive
        close = "" if keep_alive else "Connection: close\r\n"
        lines = f"Host: localhost\r\nUser-Agent: Mozilla/5.0 (X11)\r\nX-Padding: {'x' * padding}\r\n{close}\r\n"
        self._request = f"GET {path} HTTP/1.1\r\n{lines}".encode()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.redirects = 0
        self.cut_off = 0
        self.failed: Counter[bytes] = Counter()
        self._threads = [threading.Thread(target=self._visit) for _ in range(threads)]

    def _visit(self) -> None:
        while not self._stop.is_set():
            try:
                connection = socket.create_connection(("127.0.0.1", self._port), timeout=15)
            except OSError:
                time.sleep(0.01)  # nobody listens at the moment
                continue
            with connection:
                while not self._stop.is_set() and self._asked(connection):
                    pass

    def _asked(self, connection: socket.socket) -> bool:
        """Ask once; whether the connection can be used again."""
        answer = b""
        with contextlib.suppress(OSError):
            connection.sendall(self._request)
            while b"\r\n\r\n" not in answer and (data := connection.recv(65536)):
                answer += data
        with self._lock:
            if not answer:
                self.cut_off += 1
            elif answer.startswith(b"HTTP/1.1 302 "):
                self.redirects += 1
            else:
                self.failed[answer[:12]] += 1
        return answer.startswith(b"HTTP/1.1 302 ") and b"connection: close" not in answer

    def __enter__(self) -> "Visitors":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        """Return when so many more were redirected."""
        wanted = self.redirects + count
        wait_for(lambda: self.redirects >= wanted, 30)


def assert_counted(house: House, link_id: str, visitors: Visitors, *, before: int = 0) -> None:
    """What was answered with a redirect is stored, once; nothing was dropped or lost; the equations hold."""
    expected = visitors.redirects + before

    def is_settled() -> bool:
        try:
            total, counted = house.pipeline()["total"], house.stats(link_id)["total"]
        except (OSError, KeyError, AssertionError, httpx2.HTTPError):
            return False
        return bool(total["inSpool"] == 0 and total["recorded"] == total["stored"] and counted >= expected)

    wait_for(is_settled, 40)
    assert expected <= house.stats(link_id)["total"] <= expected + visitors.cut_off, house.pipeline()
    for numbers in (house.pipeline()["total"], *house.pipeline()["spools"]):
        assert_equations(numbers)
    assert_counters_are_what_rows_say(house)
    assert {name: house.pipeline()["total"][name] for name in ("dropped", "lost", "setAside")} == {
        "dropped": 0,
        "lost": 0,
        "setAside": 0,
    }


def assert_counters_are_what_rows_say(house: House) -> None:
    """Of every organization, class and level of time."""

    async def different() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(house.servers["DATABASE_URL"])
        try:
            return await connection.fetch(
                """
                with rows as (select organization_id, class, count(*) as clicks from clicks group by 1, 2),
                     counted as (
                         select organization_id, class, sum(clicks) as clicks from packs
                          where link_id = 0 and level = 0 group by 1, 2)
                select * from rows full join counted using (organization_id, class)
                 where rows.clicks is distinct from counted.clicks"""
            )
        finally:
            await connection.close()

    assert asyncio.run(different()) == []


def assert_equations(numbers: dict[str, int]) -> None:
    """Of `GET /v1/pipeline`."""
    assert numbers["served"] == numbers["recorded"] + numbers["dropped"], numbers
    dealt_with = numbers["stored"] + numbers["setAside"] + numbers["inSpool"] + numbers["lost"]
    assert numbers["recorded"] == dealt_with, numbers
