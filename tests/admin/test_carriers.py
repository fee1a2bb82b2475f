"""Clicks of links in messages: who scans a message is no visitor, however its clicks come in."""

import random
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.database import Connection
from admin.stats import bursts, carriers, ingest, questions, visitor_days
from admin.stats.bursts import WITHIN, Clicked
from admin.stats.carriers import Carriers
from admin.stats.classify import REASONS, Class
from admin.stats.source import EVERY_CLASS, Question
from shared.clicks import Batch, Click
from shared.redis import Redis
from tests.admin.test_ingest import AT_MS, deliver, drain
from tests.admin.test_reclassify import reclassified
from tests.houses import BROWSER

AT = datetime.fromtimestamp(AT_MS / 1000, UTC)
WIDE = Question(7, datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), EVERY_CLASS)


async def sent(
    connection: Connection,
    message: str,
    links: Mapping[int, bool],
    *,
    at_s: float | None = -3600,
    is_email: bool = True,
) -> None:
    """A message with these links (of each, whether no person sees it), handed over so long after `AT`, or not yet."""
    await connection.execute(
        """
        insert into organizations (id, public_id, name, tier, plan) overriding system value
        values (7, 'o', 'o', 'free', 'free') on conflict do nothing"""
    )
    await carriers.carry(connection, 7, message, links, is_email=is_email)
    if at_s is not None:
        await carriers.sent(connection, message, AT + timedelta(seconds=at_s))


def click(at_s: float, link_id: int, *, address: str = "188.100.2.2", method: str = "GET") -> bytes:
    return Click(AT_MS + round(at_s * 1000), link_id, 7, method, address, BROWSER, "").to_bytes()


async def reasons(connection: Connection) -> list[tuple[int, str]]:
    """Link and reason of each click in their order, after a comparison of rows and packs."""
    rows = await connection.fetch("select link_id, reason, class from clicks order by clicked_at, link_id")
    counted: dict[Class, int] = {}
    for row in rows:
        assert REASONS[list(REASONS)[row["reason"]]] == row["class"]
        counted[Class(row["class"])] = counted.get(Class(row["class"]), 0) + 1
    assert (await questions.totals(connection, WIDE)).clicks == counted
    return [(row["link_id"], list(REASONS)[row["reason"]]) for row in rows]


async def ingested(connection: Connection, redis: Redis, *batches: list[bytes]) -> None:
    """One after the other, each by a worker that knows nothing of the others."""
    for records in batches:
        await deliver(redis, Batch(secrets.token_hex(8), 0, records))
        await drain(connection, redis)


async def test_each_sign_of_a_scanner_tells_it(connection: Connection, redis: Redis) -> None:
    await sent(connection, "read", {1: False, 2: False})
    await sent(connection, "pot", {3: True, 4: False})
    await sent(connection, "soon", {5: False}, at_s=6)
    await sent(connection, "waits", {6: False}, at_s=None)
    await sent(connection, "hosted", {7: False}, at_s=-30)
    await sent(connection, "chat", {8: False}, at_s=4, is_email=False)
    records = [
        *(click(0, 1), click(60, 2), click(0, 3), click(60, 4), click(7, 5), click(0, 6)),
        *(click(0, 7, address="52.95.110.1"), click(6, 8), click(0, 9)),
    ]
    await ingested(connection, redis, records)
    assert sorted(await reasons(connection)) == [
        (1, "human"),
        (2, "human"),
        (3, "scanner-honeypot"),
        (4, "human"),
        (5, "scanner-too-soon"),
        (6, "scanner-before-sent"),
        (7, "scanner-network"),
        (8, "human"),
        (9, "human"),
    ]
    stored = await connection.fetch("select link_id, message_id, network from clicks order by link_id")
    assert [row["message_id"] is None for row in stored] == [False] * 8 + [True]
    assert [row["network"] for row in stored] == [None] * 6 + [1] + [None] * 2


async def test_the_first_click_of_a_burst_is_judged_again_when_the_second_comes(
    connection: Connection, redis: Redis
) -> None:
    await sent(connection, "m", {1: False, 2: False})
    await sent(connection, "other", {3: False})
    await ingested(connection, redis, [click(0, 1), click(0.5, 3), click(30, 1)])
    assert await reasons(connection) == [(1, "human"), (3, "human"), (1, "human")]
    await ingested(connection, redis, [click(2, 2)])
    assert await reasons(connection) == [
        (1, "scanner-many-links"),
        (3, "human"),
        (2, "scanner-many-links"),
        (1, "human"),
    ]
    await ingested(connection, redis, [click(32.001, 2)])
    assert (await reasons(connection))[-2:] == [(1, "human"), (2, "human")]


async def test_a_click_of_another_class_makes_a_burst_too(connection: Connection, redis: Redis) -> None:
    await sent(connection, "m", {1: False, 2: False})
    await ingested(connection, redis, [click(0, 1)], [click(1, 2, method="HEAD")])
    assert await reasons(connection) == [(1, "scanner-many-links"), (2, "method")]


async def test_the_visitors_of_a_day_are_counted_again(connection: Connection, redis: Redis) -> None:
    await sent(connection, "m", {1: False, 2: False})
    humans = Question(7, AT - timedelta(days=1), AT + timedelta(days=1))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("admin.stats.visitors._KEPT", timedelta(days=36500))
        await ingested(connection, redis, [click(0, 1)])
        lane = await ingest.Lane.begin(connection)
        await lane.tend(connection, datetime.now(UTC))
        assert await connection.fetchval("select count(*) from visitor_days where firsts is not null") == 1
        assert await questions.visitors(connection, humans, [humans.begin]) == [1]
        await ingested(connection, redis, [click(1, 2)])
        assert await questions.visitors(connection, humans, [humans.begin]) == [0]
        days = await visitor_days.counted(connection, 7, 0, humans.begin, humans.end)
        assert days == []


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), parts=st.integers(1, 5))
async def test_however_clicks_come_in_they_are_judged_as_if_all_were_known(
    connection: Connection, redis: Redis, seed: int, parts: int
) -> None:
    await connection.execute("truncate clicks, packs, carriers, carried_links, click_sources cascade")
    chance = random.Random(seed)
    for message in range(3):
        await sent(connection, f"m{message}", {message * 10 + link: False for link in range(3)})
    # Nobody has an address, so that there are no repeats, which may depend on the order.
    clicks = [(chance.randrange(6_000) / 1000 * 3, chance.randrange(3) * 10 + chance.randrange(3)) for _ in range(25)]
    records = [
        click(at_s, link_id, address="", method=chance.choice(["GET", "GET", "HEAD"])) for at_s, link_id in clicks
    ]
    await ingested(connection, redis, *(records[part::parts] for part in range(parts)))
    first = await reasons(connection)
    assert (await reclassified(connection)).changed == 0
    assert await reasons(connection) == first


@given(
    clicks=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 9_000)).map(
            lambda one: Clicked(one[0], one[1], AT + timedelta(milliseconds=one[2]))
        ),
        max_size=40,
    )
)
def test_links_are_near_that_are_clicked_within_two_seconds(clicks: list[Clicked]) -> None:
    assert bursts.links_near(clicks) == [
        {other.link_id for other in clicks if other.message_id == one.message_id and abs(other.at - one.at) <= WITHIN}
        for one in clicks
    ]


async def test_what_was_sent_meanwhile_is_known_and_of_several_attempts_the_first_counts(
    connection: Connection,
) -> None:
    await sent(connection, "m", {1: True, 2: False}, at_s=None)
    known = Carriers()
    assert (await known.of(connection, [1, 2, 3]))[1].sent_at is None
    await carriers.sent(connection, "m", AT)
    await carriers.sent(connection, "m", AT + timedelta(hours=1))
    found = await known.of(connection, [1, 2, 3])
    assert {link: (one.sent_at, one.is_email, one.is_honeypot) for link, one in found.items()} == {
        1: (AT, True, True),
        2: (AT, True, False),
    }
    await connection.execute("truncate carried_links")
    assert await known.of(connection, [2, 3, 1]) == found


async def test_a_click_keeps_its_class_when_its_message_is_gone(connection: Connection, redis: Redis) -> None:
    await sent(connection, "m", {1: False, 2: False})
    await ingested(connection, redis, [click(0, 1), click(1, 2)])
    before = await reasons(connection)
    await connection.execute("truncate carriers cascade")
    assert (await reclassified(connection)).changed == 0
    assert await reasons(connection) == before


async def test_a_visitor_who_comes_again_after_a_burst_is_a_visit(connection: Connection, redis: Redis) -> None:
    await sent(connection, "m", {1: False, 2: False})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("admin.stats.visitors._KEPT", timedelta(days=36500))
        lane = await ingest.Lane.begin(connection)
        for number, record in enumerate([click(0, 1), click(1, 2), click(5, 1)]):
            await deliver(redis, Batch(f"s{number}", 0, [record]))
            assert await ingest.step(connection, redis, lane, wait_ms=1000)
    assert await reasons(connection) == [(1, "scanner-many-links"), (2, "scanner-many-links"), (1, "human")]


async def test_a_burst_is_the_reason_also_of_what_came_too_soon(connection: Connection, redis: Redis) -> None:
    await sent(connection, "m", {1: False, 2: False}, at_s=-2)
    await ingested(connection, redis, [click(0, 1)])
    assert await reasons(connection) == [(1, "scanner-too-soon")]
    await ingested(connection, redis, [click(1, 2)])
    assert await reasons(connection) == [(1, "scanner-many-links"), (2, "scanner-many-links")]
    assert (await reclassified(connection)).changed == 0


async def test_busy_links_and_closed_buckets_are_counted_so_too(
    connection: Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin.stats.packs.BUSY", 2)
    await sent(connection, "m", {1: False, 2: False}, at_s=-9000)
    await ingested(connection, redis, [click(-7200, 1), click(-7100, 1)], [click(0, 1)])
    lane = await ingest.Lane.begin(connection)
    await lane.tend(connection, datetime.now(UTC))
    await ingested(connection, redis, [click(1, 2)])
    expected = {Class.HUMAN: 2, Class.SCANNER: 1}
    assert (await questions.totals(connection, replace(WIDE, link_id=1))).clicks == expected
    levels = await connection.fetch(
        "select level, class, sum(clicks)::int as clicks from packs where link_id = 0 group by level, class"
    )
    assert {(row["level"], row["class"]): row["clicks"] for row in levels} == {
        (level, class_): 2 for level in range(4) for class_ in (Class.HUMAN, Class.SCANNER)
    }


async def test_messages_of_others_are_none_of_ones_own(connection: Connection, redis: Redis) -> None:
    await sent(connection, "m", {1: False, 2: False})
    await sent(connection, "n", {3: False})
    await ingested(connection, redis, [click(0, 1), click(1, 3)])
    assert {reason for _, reason in await reasons(connection)} == {"human"}


async def test_who_opts_out_is_told_by_the_message_alone(connection: Connection, redis: Redis) -> None:
    await sent(connection, "m", {1: False}, at_s=-30)
    await connection.execute("insert into counting (organization_id, heeds_opt_out) values (7, true)")
    told = [
        Click(AT_MS, 1, 7, "GET", "52.95.110.1", BROWSER, "", has_opted_out=has_opted_out).to_bytes()
        for has_opted_out in (True, False)
    ]
    await ingested(connection, redis, told)
    rows = await connection.fetch("select message_id, network, visitor, class from clicks order by class")
    assert [(row["message_id"] is None, row["network"], row["class"]) for row in rows] == [
        (False, None, Class.HUMAN),
        (False, 1, Class.SCANNER),
    ]
