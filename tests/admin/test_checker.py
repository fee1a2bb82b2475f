"""Whether there still is something where links lead is asked once a day, politely, and told."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from admin import worker
from admin.database import Connection
from admin.fetch import Fetcher, resolver
from admin.links import checker
from admin.links.checker import Checker, Standing
from shared.links import MARKER_KEY
from shared.redis import Redis
from tests.admin.conftest import Api, made, settings_of
from tests.admin.hosts import LOOPBACK, Hosts, hosts, page
from tests.conftest import Servers
from tests.shared.waiting import until

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def there() -> AsyncIterator[Hosts]:
    """Two hosts, a.example.com and b.example.com, with nothing on them."""
    async with hosts() as found:
        for name in ("a.example.com", "b.example.com"):
            found.names.has(name, "A", "127.0.0.1")
        yield found


def checker_of(there: Hosts, *, pause_s: float = 0.0, may_reach: bool = True) -> Checker:
    names = resolver(there.names.address)
    return Checker(Fetcher(names, LOOPBACK if may_reach else ()), pause_s=pause_s)


async def leading(api: Api, there: Hosts, path: str, host: str = "a.example.com", **fields: Any) -> dict[str, Any]:
    """A link to this path of the web server."""
    return await made(api.one.api, destination=f"http://{host}:{there.pages.port}{path}", **fields)


async def enrolled(connection: Connection) -> None:
    """All links are known to the checker, and due."""
    await connection.execute("update links set created_at = now() - interval '2 hours'")
    await checker.enrol(connection)
    await connection.execute("update destination_checks set due_at = now()")


async def a_day_passes(connection: Connection) -> None:
    await connection.execute(
        "update destination_checks"
        " set due_at = due_at - interval '1 day', failed_since = failed_since - interval '1 day'"
    )


async def told(api: Api, link: dict[str, Any]) -> tuple[str, bool]:
    """What the API says of a link's destination: how it is, and whether it was asked for."""
    shown = (await api.one.api.get(f"/v1/links/{link['id']}")).json()["data"]
    return shown["destinationStatus"], shown["destinationCheckedAt"] is not None


def asked(there: Hosts) -> list[str]:
    return [f"{request.method} {request.target}" for request in there.pages.asked]


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ("", "unchecked"),
        ("200", "ok"),
        ("204 403 429 401 451 304", "ok"),
        ("404", "unchecked"),
        ("200 404", "ok"),
        ("404 410", "dead"),
        ("404 200 404", "ok"),
        ("404 500 404", "dead"),
        ("500 timeout", "unchecked"),
        ("500 timeout dns", "dead"),
        ("200 503 http connection", "dead"),
        ("dns dns 200 dns dns", "ok"),
        ("404 404 dns", "dead"),
        ("404 404 200", "ok"),
        ("private private private", "unchecked"),
        ("200 redirects private redirects redirects", "ok"),
        ("404 private 404", "unchecked"),
    ],
)
def test_what_a_destination_is_after_one_outcome_a_day(outcomes: str, status: str) -> None:
    standing = Standing()
    for day, outcome in enumerate(outcomes.split()):
        standing = standing.after(outcome, AT + timedelta(days=day))
    assert standing.status == status


def test_failures_in_a_row_make_nothing_dead_before_two_days() -> None:
    standing = Standing()
    for hours in (0, 20, 40, 47):
        standing = standing.after("500", AT + timedelta(hours=hours))
        assert standing.status == "unchecked"
    assert standing.after("500", AT + timedelta(hours=48)).status == "dead"


async def test_a_destination_is_asked_for_once_a_day_and_what_it_says_is_told(
    api: Api, there: Hosts, connection: Connection
) -> None:
    pages = {
        "/ok": page(),
        "HEAD /no-head": page(status=501),
        "GET /no-head": page(b"a" * 9999),
        "/gone": page(status=410),
    }
    there.pages.pages.update(pages)
    links = {path: await leading(api, there, path) for path in ("/ok", "/no-head", "/gone", "/none")}
    twin = await leading(api, there, "/ok")
    nowhere = await made(api.one.api, destination="https://nowhere.example.com/")
    check = checker_of(there)
    await enrolled(connection)
    assert await check.step(connection) == 6
    assert await check.step(connection) == 0
    expected = [f"{method} {path}" for path in ("/gone", "/no-head", "/none") for method in ("HEAD", "GET")]
    assert asked(there) == [*expected, "HEAD /ok"]
    assert {request.headers["user-agent"] for request in there.pages.asked} == {"linkwire (bot)"}
    for link, status in (
        (links["/ok"], "ok"),
        (twin, "ok"),
        (links["/no-head"], "ok"),
        (links["/gone"], "unchecked"),
        (nowhere, "unchecked"),
    ):
        assert await told(api, link) == (status, True)
    there.pages.pages["/none"] = page()
    for _ in range(2):
        await a_day_passes(connection)
        assert await check.step(connection) == 6
    assert [(await told(api, link))[0] for link in (*links.values(), twin, nowhere)] == [
        *("ok", "ok", "dead", "ok"),
        *("ok", "dead"),
    ]
    fresh = await made(api.one.api)
    for status, there_are in (("dead", {links["/gone"]["id"], nowhere["id"]}), ("unchecked", {fresh["id"]})):
        for query in ({"destinationStatus": status}, {"query[destinationStatus]": status}):
            listed = (await api.one.api.get("/v1/links", params=query)).json()
            assert {link["id"] for link in listed["data"]} == there_are
            assert listed["meta"]["pagination"]["totalCount"] == len(there_are)
    assert (await api.one.api.get("/v1/links?destinationStatus=gone")).status_code == 400


async def test_a_link_that_leads_elsewhere_is_unchecked_and_due(api: Api, there: Hosts, connection: Connection) -> None:
    there.pages.pages["/ok"] = page()
    link = await leading(api, there, "/ok")
    await enrolled(connection)
    await checker_of(there).step(connection)
    await api.one.api.patch(f"/v1/links/{link['id']}", json={"title": "a"})
    assert await told(api, link) == ("ok", True)
    changed = await api.one.api.patch(f"/v1/links/{link['id']}", json={"destination": "https://nowhere.example.com/"})
    assert changed.json()["data"]["destinationStatus"] == "unchecked"
    assert await told(api, link) == ("unchecked", False)
    assert await checker_of(there).step(connection) == 1


async def test_what_died_with_its_worker_is_asked_for_by_another(
    api: Api, there: Hosts, connection: Connection
) -> None:
    is_asked, never = asyncio.Event(), asyncio.Event()

    async def hang(_writer: asyncio.StreamWriter) -> None:
        is_asked.set()
        await never.wait()

    there.pages.pages["/ok"] = hang
    link = await leading(api, there, "/ok")
    await enrolled(connection)
    dying = asyncio.create_task(checker_of(there).step(connection))
    await is_asked.wait()
    dying.cancel()
    await asyncio.wait([dying])
    there.pages.pages["/ok"] = page()
    assert await checker_of(there).step(connection) == 0
    await connection.execute(f"update destination_checks set due_at = due_at - interval '{checker._LEASE_S} seconds'")
    assert await checker_of(there).step(connection) == 1
    assert await told(api, link) == ("ok", True)


async def test_what_is_learned_of_where_a_link_led_before_is_not_told(
    api: Api, there: Hosts, connection: Connection
) -> None:
    link = await leading(api, there, "/ok")

    async def change(writer: asyncio.StreamWriter) -> None:
        await api.one.api.patch(f"/v1/links/{link['id']}", json={"destination": "https://nowhere.example.com/"})
        writer.write(page())

    there.pages.pages["/ok"] = change
    await enrolled(connection)
    assert await checker_of(there).step(connection) == 1
    assert asked(there) == ["HEAD /ok"]
    assert await told(api, link) == ("unchecked", False)
    assert await checker_of(there).step(connection) == 1


async def test_a_host_is_left_alone_behind_each_request_and_others_do_not_wait(
    api: Api, there: Hosts, connection: Connection
) -> None:
    asked_at: dict[str, float] = {}

    def noting(path: str) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
        async def note(writer: asyncio.StreamWriter) -> None:
            asked_at[path] = time.monotonic()
            writer.write(page())

        return note

    for path, host in (("/1", "a.example.com"), ("/2", "a.example.com"), ("/3", "b.example.com")):
        there.pages.pages[path] = noting(path)
        await leading(api, there, path, host)
    await enrolled(connection)
    await checker_of(there, pause_s=0.5).step(connection)
    assert asked_at["/2"] - asked_at["/1"] >= 0.5
    assert asked_at["/3"] < asked_at["/2"]


async def test_a_host_is_asked_for_a_few_destinations_in_a_step(
    api: Api, there: Hosts, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker, "_PER_HOST", 2)
    for number in range(5):
        there.pages.pages[f"/{number}"] = page()
        await leading(api, there, f"/{number}")
    await enrolled(connection)
    counts = []
    while await checker_of(there).step(connection):
        counts.append(len(there.pages.asked))
    assert counts == [2, 4, 5]


async def test_links_that_lead_nowhere_are_not_asked_for(api: Api, there: Hosts, connection: Connection) -> None:
    for number, fields in enumerate(({"archived": True}, {"disabled": True}, {}, {})):
        url = f"http://a.example.com:{there.pages.port}/"
        await made(api.one.api, destination=url, path=f"/{number}", **fields)
    gone = (await api.one.api.get("/v1/links?path=/2")).json()["data"][0]
    await api.one.api.delete(f"/v1/links/{gone['id']}")
    await connection.execute("update links set reported_at = now() where path = '/3'")
    await enrolled(connection)
    assert await checker_of(there).step(connection) == 4
    assert await checker_of(there).step(connection) == 0
    assert asked(there) == []


async def test_private_networks_are_not_asked_and_nothing_is_said_of_them(
    api: Api, there: Hosts, connection: Connection
) -> None:
    link = await leading(api, there, "/ok")
    await enrolled(connection)
    for _ in range(4):
        await checker_of(there, may_reach=False).step(connection)
        await a_day_passes(connection)
    assert asked(there) == []
    assert (await told(api, link))[0] == "unchecked"


async def test_a_link_is_enrolled_when_its_page_has_had_time_to_appear(api: Api, connection: Connection) -> None:
    await made(api.one.api)
    old = await made(api.one.api)
    await connection.execute(
        "update links set created_at = now() - interval '61 minutes' where public_id = $1", old["id"]
    )
    for _ in range(2):
        await checker.enrol(connection)
        rows = await connection.fetch("select public_id from destination_checks join links on links.id = link_id")
        assert [row["public_id"] for row in rows] == [old["id"]]
    await api.one.api.delete(f"/v1/links/{old['id']}?purge=true")
    assert await connection.fetchval("select count(*) from destination_checks") == 0


@pytest.mark.parametrize("is_on", ["1", "0"])
async def test_the_worker_asks_unless_it_is_told_not_to(
    api: Api, there: Hosts, connection: Connection, servers: Servers, database_url: str, redis: Redis, is_on: str
) -> None:
    there.pages.pages["/ok"] = page()
    link = await leading(api, there, "/ok")
    await connection.execute("update links set created_at = now() - interval '2 hours'")
    more = {
        "LINKWIRE_DNS_SERVER": ":".join(map(str, there.names.address)),
        "LINKWIRE_REACHABLE_NETWORKS": "127.0.0.0/8",
        "LINKWIRE_CHECK_DESTINATIONS": is_on,
    }
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(settings_of(servers, database_url, **more), stop))

    async def is_ok() -> bool:
        return await told(api, link) == ("ok", True)

    async def is_complete() -> bool:
        return bool(await redis.exists(MARKER_KEY))

    await until(is_ok if is_on == "1" else is_complete)
    stop.set()
    await working
    assert await connection.fetchval("select count(*) from destination_checks") == int(is_on)
