"""Processes killed under load: what was answered with a redirect is counted, once."""

import os
import signal
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.faults.visitors import Visitors, assert_counted
from tests.houses import House, wait_for


@pytest.mark.parametrize("command", ["-m edge.shipper", "-m admin work", "postgres -D", "--socket"])
def test_no_click_is_lost_or_counted_twice(house: House, command: str) -> None:
    kill_twice(house, command)


def test_nor_when_the_valkey_of_the_house_is_killed(new_house: Callable[..., House]) -> None:
    house = new_house()
    house.start()
    house.wait_until_ready()
    kill_twice(house, "valkey-server")
    assert house.stop() == 0


def kill_twice(house: House, command: str) -> None:
    link = link_of(house)
    wait_for(lambda: house.visit(link["path"]).status_code == 302)  # a house that has just been hurt may need a second
    with Visitors(house, link["path"]) as visitors:
        for _ in range(2):
            visitors.wait_for_more(1000)
            # Postgres may need a second start: the first one finds what the killed one's children still hold.
            wait_for(lambda: len(house.pids(command)) == 1, 20)
            pids = house.pids(command)
            os.kill(pids[0], signal.SIGKILL)
            wait_for(lambda: house.pids(command) not in ([], pids), 20)  # noqa: B023
        visitors.wait_for_more(1000)
    if command != "--socket":
        assert visitors.cut_off == 0
    assert_counted(house, link["id"], visitors, before=1)


def test_the_edges_parent_takes_its_children_with_it_and_all_are_started_again(house: House) -> None:
    link = link_of(house)
    with Visitors(house, link["path"]) as visitors:
        visitors.wait_for_more(1000)
        [parent] = [pid for pid in house.pids("-m edge") if pid not in house.pids("edge.shipper", "--socket")]
        children = house.pids("edge.shipper", "--socket")
        assert len(children) == 2
        os.kill(parent, signal.SIGKILL)
        wait_for(lambda: not set(children) & set(house.pids("-m edge")), 20)
        visitors.wait_for_more(1000)
        assert len(house.pids("edge.shipper", "--socket")) == 2
    assert_counted(house, link["id"], visitors)


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
