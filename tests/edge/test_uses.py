"""Uses of links with a click limit: never one too many, and none where nobody knows how many there were."""

import asyncio

import pytest

from edge.lookup import Lookup, Unavailable
from edge.uses import Uses
from shared.entries import Entry, Terms
from shared.links import UNCOUNTED_KEY, Published, uses_key
from shared.redis import Redis, open_redis, run_id
from tests.edge.publishing import OTHER, PROMO, Publisher
from tests.edge.spools import be_patient
from tests.edge.test_terms import CHROME, ELSEWHERE, WHATSAPP, visit
from tests.edge.visiting import TARGET, Edge, make_edge

patience = pytest.fixture(scope="module", autouse=True)(be_patient)
edge = pytest.fixture(make_edge)


async def count_from(redis: Redis, uses: int, link_id: int = 7) -> str:
    """Say how often the link was used; where that is said."""
    key = uses_key(run_id(await redis.info("server")), link_id)
    await redis.set(key, uses)
    return key


async def test_64_visitors_at_once_get_exactly_as_many_as_there_are(redis: Redis, lookup: Lookup) -> None:
    key = await count_from(redis, 0)
    uses = [Uses(redis, lookup, timeout_s=5) for _ in range(4)]
    taken = await asyncio.gather(*[uses[number % 4].take(7, 1000) for number in range(1100)])
    assert taken.count(True) == 1000
    assert await redis.get(key) == b"1000"
    assert await uses[0].take(7, 1001)
    assert not await uses[0].take(7, 10)


async def test_without_a_count_nobody_is_let_through_and_one_is_asked_for(
    redis: Redis, lookup: Lookup, publisher: Publisher
) -> None:
    uses = Uses(redis, lookup, timeout_s=5)
    with pytest.raises(Unavailable):
        await uses.take(7, 1000)
    assert await redis.smembers(UNCOUNTED_KEY) == {b"7"}
    await redis.set(uses_key("0" * 40, 7), 0)  # of another run of the server
    with pytest.raises(Unavailable):
        await uses.take(7, 1000)
    await count_from(redis, 0)
    assert await uses.take(7, 1)


async def test_another_server_in_the_place_of_ours_grants_nothing(redis: Redis, lookup: Lookup) -> None:
    await redis.set(uses_key("0" * 40, 7), 0)  # as our server had said, and the other one was told in time
    lookup._run = "0" * 40
    with pytest.raises(Unavailable):
        await Uses(redis, lookup, timeout_s=5).take(7, 1000)


async def test_while_the_links_are_not_complete_or_redis_is_away_nobody_is(redis: Redis, lookup: Lookup) -> None:
    await count_from(redis, 0)
    nobody = open_redis("redis://127.0.0.1:1", timeout_s=0.2)
    with pytest.raises(Unavailable):
        await Uses(nobody, lookup).take(7, 1)
    await nobody.aclose()
    lookup._doubt()
    with pytest.raises(Unavailable):
        await Uses(redis, lookup).take(7, 1)


async def test_people_use_it_up_and_programs_do_not(edge: Edge, publisher: Publisher, redis: Redis) -> None:
    await count_from(redis, 0)
    entry = Entry(7, 3, TARGET, terms=Terms(click_limit=2, fallback=ELSEWHERE))
    await publisher.change(PROMO, Published(2, entry))
    for agent, method in ((WHATSAPP, "GET"), (CHROME, "HEAD"), ("curl/8.0", "GET"), (CHROME, "GET"), (CHROME, "GET")):
        assert (await visit(edge, agent=agent, method=method)).headers["location"] == TARGET
    assert (await visit(edge)).headers["location"] == ELSEWHERE
    assert (await visit(edge, agent=WHATSAPP)).headers["location"] == TARGET
    assert [click.is_use for click in edge.clicks()] == [False, False, False, True, True, False]
    await publisher.change(OTHER, Published(3, entry._replace(terms=Terms(click_limit=3))))  # its limit, elsewhere
    assert (await visit(edge, "/other")).headers["location"] == TARGET
    assert (await visit(edge, "/other")).status_code == 410
    await redis.flushall()
    assert (await visit(edge)).status_code == 503
