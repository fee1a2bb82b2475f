"""Orphans: what visitors look for and don't find is counted, and no storm makes it grow."""

import pytest

from edge import orphans
from edge.orphans import Orphans
from shared.entries import HostEntry
from shared.links import PublishedHost, orphans_key
from shared.redis import Redis, RedisError, open_redis
from tests.edge.publishing import Host, Publisher
from tests.edge.spools import be_patient
from tests.edge.visiting import Edge, make_edge
from tests.shared.waiting import until

patience = pytest.fixture(scope="module", autouse=True)(be_patient)


@pytest.fixture(autouse=True)
def told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.app.FLUSH_EVERY_S", 0.05)


edge = pytest.fixture(make_edge)


async def test_what_is_not_found_on_a_host_of_somebody_is_counted(
    edge: Edge, publisher: Publisher, redis: Redis
) -> None:
    await publisher.change(Host("go.example"), PublishedHost(1, HostEntry(organization_id=3)))
    for path in ("/Nothing", "/nothing?a", "/nothing", "/robots.txt", "/promo+", "/" + "x" * 300):
        await edge.visit(path)
        await edge.visit(path, host="other.example")

    async def is_counted() -> bool:
        return await redis.zrange(orphans_key("go.example"), 0, -1, withscores=True) == [
            (b"/Nothing", 1.0),
            (b"/robots.txt", 1.0),
            (b"/nothing", 2.0),
        ]

    await until(is_counted)
    assert await redis.keys("orphans:*") == [b"orphans:go.example"]
    assert await redis.ttl(orphans_key("go.example")) > 0
    assert edge.clicks() == []


async def test_storms_are_bounded_here_and_in_redis(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_KEPT", 600)
    sketch = Orphans(redis)
    for _ in range(2):
        sketch.see("go.example", "/often")
        for number in range(1000):
            sketch.see("go.example", f"/{number}")
            sketch.see(f"{number}.example", "/a")
    await sketch.flush()
    assert await redis.zcard(orphans_key("go.example")) == 500
    assert len(await redis.keys("orphans:*")) == 200
    for number in range(500):
        sketch.see("go.example", f"/later-{number}")
    await sketch.flush()
    assert await redis.zcard(orphans_key("go.example")) == 600
    assert await redis.zscore(orphans_key("go.example"), "/often") == 2.0


async def test_what_can_not_be_told_is_gone(redis: Redis) -> None:
    nobody = open_redis("redis://127.0.0.1:1", timeout_s=0.2)
    sketch = Orphans(nobody)
    sketch.see("go.example", "/a")
    with pytest.raises(RedisError):
        await sketch.flush()
    await sketch.flush()
    await nobody.aclose()
