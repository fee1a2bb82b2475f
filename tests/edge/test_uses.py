"""Uses of links with a click limit: never one too many, and none where nobody knows how many there were."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edge.lookup import Lookup, Unavailable
from edge.segments import SEGMENT_SUFFIX
from edge.uses import Uses
from shared.entries import Entry, HostEntry, Preview, Terms
from shared.links import UNCOUNTED_KEY, Published, PublishedHost, uses_key
from shared.redis import Redis, open_redis, run_id
from tests.conftest import Servers
from tests.edge.publishing import OTHER, PROMO, Host, Publisher
from tests.edge.spools import be_patient
from tests.edge.test_terms import ELSEWHERE, WHATSAPP, visit
from tests.edge.visiting import TARGET, Edge, edge_on, make_edge, until_ready
from tests.shared.waiting import until

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
    assert [await uses[0].is_left(7, limit) for limit in (1002, 1001)] == [True, False]
    assert await redis.get(key) == b"1001"


async def test_without_a_count_nobody_is_let_through_and_one_is_asked_for(
    redis: Redis, lookup: Lookup, publisher: Publisher
) -> None:
    uses = Uses(redis, lookup, timeout_s=5)
    for ask in (uses.take, uses.is_left):
        with pytest.raises(Unavailable):
            await ask(7, 1000)
        assert await redis.smembers(UNCOUNTED_KEY) == {b"7"}
        await redis.delete(UNCOUNTED_KEY)
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
    programs: list[dict[str, Any]] = [
        {"agent": WHATSAPP},
        {"agent": "curl/8.0"},
        {"method": "HEAD"},
        {"headers": [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch")]},
        {"headers": [("purpose", "preview")]},
        {"headers": [("x-purpose", "preview")]},
        {"headers": [("x-moz", "prefetch")]},
    ]
    for program in programs:
        assert (await visit(edge, **program)).headers["location"] == TARGET
    for _ in range(2):
        assert (await visit(edge)).headers["location"] == TARGET
    assert [click.is_use for click in edge.clicks()] == [False] * len(programs) + [True] * 2
    for anybody in ({}, *programs):
        assert (await visit(edge, **anybody)).headers["location"] == ELSEWHERE
    assert len(edge.clicks()) == len(programs) + 2
    await publisher.change(OTHER, Published(3, entry._replace(terms=Terms(click_limit=3))))  # its limit, elsewhere
    assert (await visit(edge, "/other")).headers["location"] == TARGET
    assert (await visit(edge, "/other")).status_code == 410
    await redis.flushall()
    for anybody in ({}, *programs):
        assert (await visit(edge, **anybody)).status_code == 503


async def test_what_is_used_up_is_neither_asked_for_a_password_nor_shown(
    edge: Edge, publisher: Publisher, redis: Redis
) -> None:
    await count_from(redis, 1)
    preview = Preview("Sale")
    for version, limit in enumerate((2, 1), start=2):
        terms = [Terms(click_limit=limit, password_hash="$argon2id$"), Terms(click_limit=limit, preview=preview)]
        for address, each in zip((PROMO, OTHER), terms, strict=True):
            await publisher.change(address, Published(version, Entry(7, 3, TARGET, terms=each)))
        status = 200 if limit == 2 else 410

        async def is_so(status: int = status) -> bool:
            answers = await visit(edge), await visit(edge, "/other", agent=WHATSAPP)
            return [answer.status_code for answer in answers] == [status, status]

        await until(is_so)
    await publisher.change(Host("go.example"), PublishedHost(1, HostEntry(expired=ELSEWHERE)))

    async def goes_where_the_host_says() -> bool:
        return (await visit(edge)).headers.get("location") == ELSEWHERE

    await until(goes_where_the_host_says)
    assert edge.clicks() == []


async def test_a_use_that_can_not_be_recorded_is_not_served(
    servers: Servers, publisher: Publisher, redis: Redis, tmp_path: Path
) -> None:
    await publisher.complete()
    await count_from(redis, 0)
    await publisher.put(PROMO, Published(2, Entry(7, 3, TARGET, terms=Terms(click_limit=9))))
    (tmp_path / "spool").mkdir()
    with (tmp_path / "spool" / f"another{SEGMENT_SUFFIX}").open("wb") as other:
        other.truncate(2**32)  # more than all may have, and nothing on the disk
    async with edge_on(servers.redis_url, tmp_path) as edge:
        await until_ready(edge)
        assert (await visit(edge)).status_code == 503
        assert (await visit(edge, agent=WHATSAPP)).headers["location"] == TARGET
