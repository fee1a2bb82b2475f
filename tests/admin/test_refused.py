"""What can't be stored: set aside with its reason, once, while everything else flows on."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from admin.database import Connection
from admin.stats.facts import Facts, facts_of
from admin.stats.places import Locate
from shared import clicks
from shared.clicks import Batch, Click
from shared.redis import Redis
from tests.admin.shipping import books, committed
from tests.admin.test_ingest import deliver, drain, record, stored

REFUSED = 666
"""The link whose clicks Postgres refuses, once it is told to."""


async def refuse(connection: Connection) -> None:
    await connection.execute(f"alter table clicks add constraint no_beast check (link_id <> {REFUSED})")


def mixed(count: int, refused: set[int]) -> list[bytes]:
    """Records, some of which Postgres refuses."""
    return [record(number, link_id=REFUSED if number in refused else 1) for number in range(count)]


async def aside(connection: Connection) -> list[tuple[str | None, int | None]]:
    rows = await connection.fetch("select spool_id, position from clicks_set_aside order by spool_id, position")
    return [(row["spool_id"], row["position"]) for row in rows]


async def test_a_record_that_postgres_refuses_is_set_aside_and_all_others_are_stored(
    connection: Connection, redis: Redis
) -> None:
    await refuse(connection)
    records = mixed(5, {2})
    for _ in range(3):
        await deliver(redis, Batch("s", 0, records))
        await deliver(redis, Batch("t", 0, [record(10), record(11)]))
        await drain(connection, redis)
    assert await stored(connection) == [0, 1, 3, 4, 10, 11]
    kept = await connection.fetch("select * from clicks_set_aside")
    assert [(row["spool_id"], row["position"], row["record"]) for row in kept] == [("s", 2, records[2])]
    assert "no_beast" in kept[0]["reason"]
    assert await committed(redis) == {"s": 5, "t": 2}
    assert (await books(connection, redis)).total == (7, 7, 0, 6, 1, 0, 0)


async def test_several_refused_records_in_several_batches_of_several_spools(
    connection: Connection, redis: Redis
) -> None:
    await refuse(connection)
    poisoned = {0, 1, 5, 8, 11}
    records = mixed(12, poisoned)
    for spool in ("s", "t"):
        for first in (0, 4, 2, 8):  # the third one repeats parts of the two before it
            await deliver(redis, Batch(spool, first, records[first : first + 4]))
    await deliver(redis, Batch("u", 0, [record(20)]))
    await drain(connection, redis)
    good = [number for number in range(12) if number not in poisoned]
    assert await stored(connection) == sorted([*good, *good, 20])
    assert await aside(connection) == [(spool, number) for spool in ("s", "t") for number in sorted(poisoned)]
    assert await committed(redis) == {"s": 12, "t": 12, "u": 1}
    await books(connection, redis)


async def test_what_is_set_aside_is_counted_once_however_often_its_transaction_is_tried(
    connection: Connection, redis: Redis
) -> None:
    await refuse(connection)
    before = REGISTRY.get_sample_value("linkwire_clicks_set_aside_total") or 0.0
    await deliver(redis, Batch("s", 0, [b"not JSON", *mixed(9, {4, 7})]))
    await drain(connection, redis)
    assert REGISTRY.get_sample_value("linkwire_clicks_set_aside_total") == before + 3
    assert await aside(connection) == [("s", 0), ("s", 5), ("s", 8)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from("....xp"), min_size=1, max_size=24),
    cuts=st.sets(st.integers(1, 23), max_size=6),
    again=st.integers(0, 23),
)
async def test_any_poison_in_any_cuts_is_set_aside_and_the_others_are_stored(
    connection: Connection, redis: Redis, kinds: list[str], cuts: set[int], again: int
) -> None:
    """x is no click, p one that Postgres refuses; from `again` on, all is delivered twice."""
    for table in ("clicks", "packs", "click_sources", "clicks_set_aside"):
        await connection.execute(f"delete from {table}")
    await connection.execute("alter table clicks drop constraint if exists no_beast")
    await refuse(connection)
    await redis.flushall()
    records = mixed(len(kinds), {number for number, kind in enumerate(kinds) if kind == "p"})
    records = [b"?" if kind == "x" else record for kind, record in zip(kinds, records, strict=True)]
    edges = sorted({0, len(kinds), *(cut for cut in cuts if cut < len(kinds))})
    for first, end in [*itertools.pairwise(edges), (min(again, len(kinds) - 1), len(kinds))]:
        await deliver(redis, Batch("s", first, records[first:end]))
    await drain(connection, redis)
    assert await stored(connection) == [number for number, kind in enumerate(kinds) if kind == "."]
    assert await aside(connection) == [("s", number) for number, kind in enumerate(kinds) if kind != "."]
    assert await committed(redis) == {"s": len(kinds)}
    await books(connection, redis)


async def test_a_click_that_nobody_expected_stops_no_others(
    connection: Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprised(click: Click, locate: Locate) -> Facts:
        if click.user_agent == "odd":
            raise KeyError(click.user_agent)
        return facts_of(click, locate)

    monkeypatch.setattr("admin.stats.maker.facts_of", surprised)
    await deliver(
        redis, Batch("s", 0, [record(number, agent="odd" if number == 3 else "curl/8") for number in range(6)])
    )
    await drain(connection, redis)
    assert await stored(connection) == [0, 1, 2, 4, 5]
    assert await aside(connection) == [("s", 3)]
    await books(connection, redis)


NONE: list[dict[str, str | int | bytes]] = [
    {"spool": "s"},
    {"first": 0, "records": b"[]"},
    {"spool": "\0", "first": 0, "records": b"[]"},
    {"spool": b"\xff", "first": 0, "records": b"[]"},
    {"spool": "s", "first": "first", "records": b"[]"},
    {"spool": "s", "first": 2**63 - 1, "records": b"[]"},
    {"spool": "".join(f"{number:x}" for number in range(100_000)), "first": 0, "records": b"[]"},
]


async def test_batches_that_are_none_are_set_aside_and_stop_nothing(connection: Connection, redis: Redis) -> None:
    for number, fields in enumerate(NONE):
        await deliver(redis, Batch("s", number, [record(number)]))
        await redis.xadd(clicks.STREAM, fields)  # type: ignore[arg-type]
    await drain(connection, redis)
    assert await stored(connection) == list(range(len(NONE)))
    assert await aside(connection) == [(None, None)] * len(NONE)
    assert await redis.xlen(clicks.STREAM) == 0
    await books(connection, redis)
