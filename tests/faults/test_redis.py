"""Redis restarted, wiped, full, and a stream that delivers anything in any order, under load."""

import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared import clicks
from shared.links import MARKER_KEY, Marker
from tests.faults.visitors import Visitors, assert_counted
from tests.houses import House, wait_for
from tests.servers import OwnRedis


@pytest.fixture(scope="module")
def redis_of_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    redis = OwnRedis(tmp_path_factory.mktemp("redis") / "home")
    yield redis
    redis.stop()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, redis_of_house: OwnRedis) -> Iterator[House]:
    """A running Linkwire on that Redis."""
    yield from House.running(tmp_path_factory.mktemp("house") / "home", REDIS_URL=redis_of_house.server.url)


@pytest.mark.parametrize("how", ["stopped", "killed", "wiped", "flushed"])
def test_redis_that_comes_back_or_lost_everything_costs_no_click(
    house: House, redis_of_house: OwnRedis, how: str
) -> None:
    link = house.link()
    wait_for(lambda: is_complete(redis_of_house) and house.visit(link["path"]).status_code == 302)
    with Visitors(house, link["path"]) as visitors:
        visitors.wait_for_more(1000)
        if how == "flushed":
            redis_of_house.client().flushall()
        else:
            number = signal.SIGTERM if how == "stopped" else signal.SIGKILL
            redis_of_house.restart(number, wiped=how == "wiped")
        wait_for(lambda: is_complete(redis_of_house), 20)
        visitors.wait_for_more(5000)
    assert (visitors.cut_off, visitors.failed) == (0, {})
    assert_counted(house, link["id"], visitors, before=1)


def is_complete(redis: OwnRedis) -> bool:
    """Whether all links are in it again."""
    client = redis.client()
    marker: Any = client.get(MARKER_KEY)
    info: Any = client.info("server")
    return Marker.epoch_of(marker, info["run_id"]) is not None


def test_a_full_redis_costs_no_click_and_takes_them_when_there_is_room(house: House, redis_of_house: OwnRedis) -> None:
    link = house.link()
    redis = redis_of_house.client()
    wait_for(lambda: house.visit(link["path"]).status_code == 302)
    with Visitors(house, link["path"]) as visitors:
        visitors.wait_for_more(1000)
        redis.config_set("maxmemory", 1)
        redis.config_set("maxmemory-policy", "noeviction")
        visitors.wait_for_more(10_000)
        assert house.stats(link["id"])["total"] < visitors.redirects
        redis.config_set("maxmemory", 0)
        visitors.wait_for_more(1000)
    assert (visitors.cut_off, visitors.failed) == (0, {})
    assert_counted(house, link["id"], visitors, before=1)


def test_batches_that_come_ten_times_and_in_the_wrong_order_count_once(house: House, redis_of_house: OwnRedis) -> None:
    link = house.link()
    wait_for(lambda: house.visit(link["path"]).status_code == 302)
    with Visitors(house, link["path"]) as visitors, Repeating(redis_of_house) as repeating:
        visitors.wait_for_more(3000)
        wait_for(lambda: repeating.repeated > 100, 30)
        visitors.wait_for_more(1000)
    assert_counted(house, link["id"], visitors, before=1)


class Repeating:
    """Puts what is on the stream there again and again, in any order, and things that are no batches between."""

    def __init__(self, redis: OwnRedis) -> None:
        self._redis = redis.client()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat)
        self.repeated = 0

    def _repeat(self) -> None:
        seen: list[dict[Any, Any]] = []
        chance = random.Random(7)
        while not self._stop.is_set():
            seen += [fields for _, fields in self._redis.xrange(clicks.STREAM, count=50)]  # type: ignore[union-attr,misc]
            for fields in chance.sample(seen, min(10, len(seen))):
                self._redis.xadd(clicks.STREAM, fields)
                self.repeated += 1
            self._redis.xadd(clicks.STREAM, {"junk": "x"})
            del seen[:-200]
            self._stop.wait(0.01)

    def __enter__(self) -> "Repeating":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_poisoned_batch_is_set_aside_and_the_rest_flows(
    new_house: Callable[..., House], redis_of_house: OwnRedis, tmp_path: Path
) -> None:
    own = OwnRedis(tmp_path / "own")
    house = new_house(REDIS_URL=own.server.url)
    try:
        house.start()
        house.wait_until_ready()
        link = house.link()
        with Visitors(house, link["path"]) as visitors:
            visitors.wait_for_more(500)
            own.client().xadd(clicks.STREAM, {"spool": "poison", "first": 0, "records": b'{"no": "click"}\nnor this'})
            visitors.wait_for_more(500)
        wait_for(lambda: house.stats(link["id"])["total"] == visitors.redirects, 30)
        spools = {spool["spool"]: spool for spool in house.pipeline()["spools"]}
        assert (spools["poison"]["setAside"], spools["poison"]["stored"]) == (2, 0)
        assert house.stop() == 0
    finally:
        own.stop()
