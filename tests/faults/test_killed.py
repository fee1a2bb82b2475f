"""Processes killed under load: what was answered with a redirect is counted, once."""

import os
import signal
import threading
from typing import Any

import httpx2
import pytest

from tests.houses import BROWSER, House, wait_for


class Visitors:
    """A few visitors who follow one link again and again, and count their redirects."""

    def __init__(self, house: House, path: str) -> None:
        self._url = house.edge_url + path
        self._stop = threading.Event()
        self.redirects = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._visit) for _ in range(4)]

    def _visit(self) -> None:
        with httpx2.Client(trust_env=False, timeout=5, headers={"user-agent": BROWSER}) as client:
            while not self._stop.is_set():
                try:
                    status = client.get(self._url).status_code
                except httpx2.HTTPError:
                    continue  # the edge is being started again; whoever was cut off got no redirect
                if status == 302:
                    with self._lock:
                        self.redirects += 1

    def __enter__(self) -> "Visitors":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        wanted = self.redirects + count
        wait_for(lambda: self.redirects >= wanted, 30)


@pytest.mark.parametrize("command", ["-m edge.shipper", "-m admin work", "valkey-server", "postgres -D"])
def test_no_click_is_lost_or_counted_twice(house: House, command: str) -> None:
    link = link_of(house)
    wait_for(lambda: house.visit(link["path"]).status_code == 302)  # a house that has just been hurt may need a second
    with Visitors(house, link["path"]) as visitors:
        for _ in range(2):
            visitors.wait_for_more(100)
            # Postgres may need a second start: the first one finds what the killed one's children still hold.
            wait_for(lambda: len(house.pids(command)) == 1, 20)
            pids = house.pids(command)
            os.kill(pids[0], signal.SIGKILL)
            wait_for(lambda: house.pids(command) not in ([], pids), 20)  # noqa: B023
        visitors.wait_for_more(100)
    expected = visitors.redirects + 1
    wait_for(lambda: counted(house, link["id"]) >= expected, 30)
    assert counted(house, link["id"]) == expected


def test_a_killed_edge_worker_counts_what_it_had_answered(house: House) -> None:
    """A visitor who was cut off may have been recorded without seeing the answer, so here more is right too."""
    link = link_of(house)
    with Visitors(house, link["path"]) as visitors:
        visitors.wait_for_more(100)
        [pid] = house.pids("--socket")
        os.kill(pid, signal.SIGKILL)
        visitors.wait_for_more(100)
    expected = visitors.redirects
    wait_for(lambda: counted(house, link["id"]) >= expected, 30)
    assert counted(house, link["id"]) <= expected + 4


def counted(house: House, link_id: str) -> int:
    try:
        return int(house.stats(link_id)["total"])
    except (httpx2.HTTPError, KeyError):
        return -1


def link_of(house: House) -> dict[str, Any]:
    """A new link, as soon as a house that has just been hurt makes one."""
    with house.api() as api:
        wait_for(lambda: answers(api), 30)
    return house.link()


def answers(api: httpx2.Client) -> bool:
    try:
        return api.get("/links").status_code == 200
    except httpx2.HTTPError:
        return False
