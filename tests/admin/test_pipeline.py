"""The pipeline: what became of every click, as it is counted and as the API tells it."""

import asyncio
import signal
import subprocess
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin import embedded
from admin.database import Connection
from admin.stats import pipeline
from admin.stats.pipeline import Numbers
from shared import clicks
from shared.clicks import Batch, SpoolReport
from shared.redis import Redis, open_redis
from tests.admin.conftest import Api, client_of, running, settings_of
from tests.admin.shipping import NOW_MS, SILENCE_S, assert_equations, books, pass_time, report, said, step
from tests.admin.test_ingest import deliver, drain, record
from tests.admin.test_sources import has
from tests.conftest import Servers

NUMBERS = {"served", "recorded", "dropped", "stored", "setAside", "inSpool", "lost"}


async def some_of_everything(connection: Connection, redis: Redis) -> None:
    """A spool with one of each, and a closed one."""
    await deliver(redis, Batch("open", 0, [record(0), b"no click", record(2)]))
    await has(connection, redis, "closed", 1)
    await report(redis, "open", said(9, dropped=3, earliest=5))
    await report(redis, "closed", said(1, is_finished=True))
    await step(connection, redis)


async def test_the_operator_sees_what_became_of_every_click(api: Api, connection: Connection, redis: Redis) -> None:
    await some_of_everything(connection, redis)
    for prefix in ("/v1", "/api/v1"):
        answer = await api.one.api.get(prefix + "/pipeline")
        assert answer.status_code == 200
        body = answer.json()
        assert set(body) == {"data", "meta"}
        assert body["meta"] == {"requestId": answer.headers["x-request-id"]}
        assert set(body["data"]) == {"id", "type", "attributes"}
        assert (body["data"]["id"], body["data"]["type"]) == ("pipeline", "pipeline")
        shown = body["data"]["attributes"]
        assert set(shown) == {"total", "spools", "losses", "isCurrent"}
        assert shown["isCurrent"] is True
        assert shown["losses"] == [{"spool": "open", "clicks": 2, "reason": "its shipper has not got them any more"}]
        opened = {
            "served": 12,
            "recorded": 9,
            "dropped": 3,
            "stored": 2,
            "setAside": 1,
            "inSpool": 4,
            "lost": 2,
        }
        assert {one["spool"]: one for one in shown["spools"]} == {
            "open": {"spool": "open", "host": "edge-1", "isOpen": True, **opened},
            "closed": {
                "spool": "closed",
                "host": "edge-1",
                "isOpen": False,
                **dict.fromkeys(NUMBERS, 0),
                "served": 1,
                "recorded": 1,
                "stored": 1,
            },
        }
        assert shown["total"] == {name: sum(one[name] for one in shown["spools"]) for name in sorted(NUMBERS)}
    await books(connection, redis)


async def test_for_all_others_there_is_no_such_route(api: Api) -> None:
    for prefix in ("/v1", "/api/v1"):
        answer = await api.other.api.get(prefix + "/pipeline")
        unknown = await api.other.api.get(prefix + "/nothing")
        assert (answer.status_code, answer.json()["error"]) == (404, unknown.json()["error"])
        assert (await api.nobody.get(prefix + "/pipeline")).status_code == 401


async def test_before_the_first_click_all_is_nothing(api: Api) -> None:
    shown = (await api.one.api.get("/v1/pipeline")).json()["data"]["attributes"]
    assert shown == {"total": dict.fromkeys(NUMBERS, 0), "spools": [], "losses": [], "isCurrent": True}


async def shown_with(redis_url: str, database_url: str, api: Api) -> dict[str, Any]:
    """What the operator sees through an API with another Redis."""
    async with running(settings_of(Servers("", redis_url), database_url)) as app:
        answer = await client_of(app, **api.one.api.headers).get("/v1/pipeline")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"]["attributes"])


@pytest.mark.parametrize("is_stuck", [True, False])
async def test_without_redis_it_shows_what_was_last_written_down(
    api: Api,
    connection: Connection,
    redis: Redis,
    database_url: str,
    own_valkey: tuple[embedded.Server, "subprocess.Popen[bytes]"],
    is_stuck: bool,
) -> None:
    await some_of_everything(connection, redis)
    await report(redis, "open", said(100, dropped=3, earliest=5))
    server, process = own_valkey
    process.send_signal(signal.SIGSTOP if is_stuck else signal.SIGKILL)
    if not is_stuck:
        process.wait()
    shown = await shown_with(server.url, database_url, api)
    assert shown["isCurrent"] is False
    assert [one["recorded"] for one in shown["spools"] if one["isOpen"]] == [9]
    assert shown["total"]["recorded"] == 10
    assert (await books(connection, redis)).total.recorded == 101


async def test_a_redis_that_does_not_answer_is_not_waited_for(
    connection: Connection, own_valkey: tuple[embedded.Server, "subprocess.Popen[bytes]"]
) -> None:
    server, process = own_valkey
    process.send_signal(signal.SIGSTOP)
    patient = open_redis(server.url, timeout_s=60.0)
    async with asyncio.timeout(15):
        assert not (await pipeline.show(connection, patient)).is_current
    await patient.aclose()


async def test_a_spool_that_postgres_does_not_know_yet_is_shown(connection: Connection, redis: Redis) -> None:
    await report(redis, "new", said(2, dropped=1))
    await report(redis, "no click", said(0))
    await report(redis, "no click, finished", said(0, is_finished=True))
    shown = await books(connection, redis)
    assert {spool.spool: spool.numbers.served for spool in shown.spools} == {"new": 3, "no click": 0}
    assert shown.total == (3, 2, 1, 0, 0, 2, 0)


async def test_what_is_stored_was_recorded_whatever_the_report_says(connection: Connection, redis: Redis) -> None:
    await has(connection, redis, "s", 5)
    assert (await books(connection, redis)).total == (5, 5, 0, 5, 0, 0, 0)
    await report(redis, "s", said(3, dropped=1))
    assert (await books(connection, redis)).total == (6, 5, 1, 5, 0, 0, 0)
    await report(redis, "s", said(3)._replace(served=9))  # begun, and neither recorded nor dropped
    assert (await books(connection, redis)).total == (9, 5, 4, 5, 0, 0, 0)


async def test_the_last_twenty_closed_spools_are_shown_and_all_are_in_the_sum(
    connection: Connection, redis: Redis
) -> None:
    for number in range(30):
        await deliver(redis, Batch(f"{number:02}", 0, [record(number)]))
    await drain(connection, redis)
    for number in range(25):
        await report(redis, f"{number:02}", said(1, is_finished=True))
        await step(connection, redis)
    shown = await pipeline.show(connection, redis)
    assert {spool.spool for spool in shown.spools if spool.is_open} == {"25", "26", "27", "28", "29"}
    assert [spool.spool for spool in shown.spools if not spool.is_open] == [f"{n:02}" for n in range(24, 4, -1)]
    assert shown.total == (30, 30, 0, 30, 0, 0, 0)


async def test_a_spool_that_was_closed_long_ago_is_not_counted_again_for_its_last_report(
    connection: Connection, redis: Redis
) -> None:
    await has(connection, redis, "silent", 2)
    await report(redis, "silent", said(4))
    await step(connection, redis)
    await pass_time(connection, SILENCE_S + 1)
    await step(connection, redis)
    for number in range(25):
        await deliver(redis, Batch(f"{number:02}", 0, [record(number)]))
        await drain(connection, redis)
        await report(redis, f"{number:02}", said(1, is_finished=True))
        await step(connection, redis)
    shown = await pipeline.show(connection, redis)
    assert "silent" in {spool.decode() for spool in await redis.hkeys(clicks.REPORTS_KEY)}  # type: ignore[union-attr]
    assert all(not spool.is_open for spool in shown.spools)
    assert shown.total == (29, 29, 0, 27, 0, 0, 2)


async def test_a_spool_that_is_closed_or_opened_meanwhile_is_in_the_sum_once(
    connection: Connection, redis: Redis, database_url: str
) -> None:
    await has(connection, redis, "s", 3)
    looking = await asyncpg.connect(database_url)
    is_over = asyncio.Event()

    async def turn() -> int:
        turns = 0
        while not is_over.is_set():
            await connection.execute("update click_sources set closed_at = case when closed_at is null then now() end")
            turns += 1
        return turns

    turning = asyncio.create_task(turn())
    for _ in range(200):
        assert (await pipeline.show(looking, redis)).total == (3, 3, 0, 3, 0, 0, 0)
    is_over.set()
    assert await turning > 20
    await looking.close()


COUNT = st.integers(0, 12)
ROW = st.tuples(COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, st.booleans())
REPORT = st.builds(
    SpoolReport, st.just(NOW_MS), st.just("edge-1"), COUNT, COUNT, COUNT, COUNT, st.booleans(), st.booleans()
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.dictionaries(st.sampled_from("abcdef"), ROW, max_size=6),
    said_of=st.dictionaries(st.sampled_from("abcdefgh"), REPORT, max_size=8),
)
async def test_whatever_is_known_adds_up(
    connection: Connection, redis: Redis, rows: dict[str, tuple[Any, ...]], said_of: dict[str, SpoolReport]
) -> None:
    await connection.execute("delete from click_sources")
    await redis.flushall()
    await connection.executemany(
        """
        insert into click_sources (spool_id, position, set_aside, lost, seen, served, recorded, dropped, closed_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, case when $9 then now() end)""",
        [(spool, *row) for spool, row in rows.items()],
    )
    for spool, what in said_of.items():
        await report(redis, spool, what)
    shown = await pipeline.show(connection, redis)
    summed = Numbers()
    for one in shown.spools:
        assert_equations(one.numbers)
        summed = summed.plus(one.numbers)
    assert_equations(shown.total)
    assert shown.total == summed
    assert {one.spool for one in shown.spools} == set(rows) | {
        spool for spool, what in said_of.items() if not what.is_finished
    }
    for one in shown.spools:
        if one.is_open and one.spool in said_of:
            assert one.numbers.served >= said_of[one.spool].served
            assert one.numbers.recorded >= said_of[one.spool].recorded
