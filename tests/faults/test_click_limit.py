"""A click limit under load: exactly as many redirects as it says, also when Redis loses everything meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.visitors import Visitors
from tests.houses import House, wait_for
from tests.servers import OwnRedis


@pytest.fixture(scope="module")
def redis_of_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    redis = OwnRedis(tmp_path_factory.mktemp("redis") / "home")
    yield redis
    redis.stop()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, redis_of_house: OwnRedis) -> Iterator[House]:
    """A running Linkwire on that Redis, with two edge workers."""
    home: Path = tmp_path_factory.mktemp("house") / "home"
    yield from House.running(home, REDIS_URL=redis_of_house.server.url, LINKWIRE_EDGE_WORKERS="2")


def test_64_visitors_at_once_get_exactly_as_many_redirects_as_there_are(house: House) -> None:
    link = house.link(clickLimit=1000)
    with Visitors(house, link["path"], threads=64) as visitors:
        wait_for(lambda: visitors.failed[b"HTTP/1.1 410"] > 100)
    assert (visitors.redirects, visitors.cut_off) == (1000, 0)
    assert set(visitors.failed) == {b"HTTP/1.1 410"}
    wait_for(lambda: house.stats(link["id"])["total"] == 1000)


@pytest.mark.parametrize("how", ["flushed", "wiped"])
def test_a_redis_that_lost_its_counts_grants_none_too_many(house: House, redis_of_house: OwnRedis, how: str) -> None:
    link = house.link(clickLimit=3000)
    with Visitors(house, link["path"], threads=8) as visitors:
        visitors.wait_for_more(500)
        if how == "flushed":
            redis_of_house.client().flushall()
        else:
            redis_of_house.restart(wiped=True)
        wait_for(lambda: visitors.failed[b"HTTP/1.1 410"] > 100, 60)
    # A use that was granted and whose answer was lost with Redis is gone.
    assert 2990 <= visitors.redirects <= 3000
    assert set(visitors.failed) <= {b"HTTP/1.1 410", b"HTTP/1.1 503"}
    wait_for(lambda: house.stats(link["id"])["total"] == visitors.redirects)
