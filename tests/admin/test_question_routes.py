"""The routes of questions: each answer is what a plain look at the clicks says, and nobody sees those of others."""

import asyncio
import csv
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx2
import pytest

from admin.database import Connection, open_pool
from admin.errors import QueryTooLarge, Unavailable
from admin.links.transfer.cells import unguarded
from admin.stats import answering, carriers, single_routes, singles
from admin.stats.asked import DIMENSIONS
from admin.stats.classify import REASONS, Class
from admin.stats.facts import group_of
from admin.stats.packs import Packs
from admin.stats.rows import COLUMNS, Row
from admin.stats.words import Words
from tests.admin.conftest import Api, Tenant, client_of, key_of, made
from tests.admin.people import error_of

ZONE = ZoneInfo("Asia/Kathmandu")
PLACES = ["", "BR\tRio", "BR\t", "NP\tKathmandu", "US\tWashington, D. C."]
HOSTS = ["", "google.com", "news.example.com", "t.co", "mail.google.com", "t.me"]
PLATFORMS = ["mobile\tios\tsafari", "desktop\tlinux\tfirefox", ""]
CAMPAIGNS = ["", "news\tmail\tspring\t\t", "=1+1\tads\t\t\t"]
FACTS = ("country", "city", "referrer", "device", "os", "browser", "language", "utmSource", "utmMedium", "utmCampaign")


class Seen(NamedTuple):
    """A click, as its texts."""

    at: datetime
    link: int
    class_: Class
    location: str = ""
    referrer: str = ""
    platform: str = ""
    language: str = ""
    campaign: str = ""
    rule: int | None = None
    variant: int | None = None
    is_scan: bool = False
    visitor: int | None = None
    message: str = ""

    def has(self, name: str) -> str:
        """What the API calls it."""
        parts = {
            "location": ("country", "city"),
            "platform": ("device", "os", "browser"),
            "campaign": ("utmSource", "utmMedium", "utmCampaign", "utmTerm", "utmContent"),
        }
        for word, names in parts.items():
            if name in names:
                return (str(getattr(self, word)).split("\t") + [""] * 5)[names.index(name)]
        if name in ("rule", "variant"):
            return str(getattr(self, name) or "")
        return {
            "referrer": self.referrer,
            "referrerGroup": group_of(self.referrer),
            "language": self.language,
            "message": self.message,
            "class": self.class_.name.lower(),
            "qr": "true" if self.is_scan else "false",
        }[name]


async def store(connection: Connection, organization_id: int, clicks: list[Seen]) -> None:
    """As ingest does."""
    referrers = {host: f"{host}\t{group_of(host)}" if host else "" for host in HOSTS}
    languages = {one.language: f"{one.language}\t" if one.language else "" for one in clicks}
    texts = {text for one in clicks for text in (one.location, one.platform, one.campaign)}
    texts |= {*referrers.values(), *languages.values()}
    words = await Words().numbers(connection, texts)
    for message in sorted({one.message for one in clicks} - {""}):
        links = {one.link: False for one in clicks if one.message == message}
        await carriers.carry(connection, organization_id, f"{organization_id}{message}", links, is_email=True)
    messages = {row["public_id"]: row["id"] for row in await connection.fetch("select public_id, id from carriers")}
    reasons = {kind: number for number, kind in enumerate(REASONS.values())}
    rows = [
        Row(
            clicked_at=one.at,
            link_id=one.link,
            organization_id=organization_id,
            visitor=one.visitor,
            location=words[one.location],
            referrer=words[referrers[one.referrer]],
            platform=words[one.platform],
            language=words[languages[one.language]],
            campaign=words[one.campaign],
            agent=0,
            rule_id=one.rule,
            variant_id=one.variant,
            class_=one.class_,
            reason=reasons[one.class_],
            version=1,
            is_head=one.class_ == Class.HEAD,
            is_prefetch=False,
            is_internal=False,
            is_use=False,
            is_scan=one.is_scan,
            address=None,
            click_id=None,
            message_id=messages.get(f"{organization_id}{one.message}"),
        )
        for one in clicks
    ]
    packs = Packs()
    await packs.load(connection)
    async with connection.transaction():
        await connection.copy_records_to_table("clicks", records=rows, columns=COLUMNS)
        await packs.add(connection, rows)


def some(chance: random.Random, links: list[int], count: int) -> list[Seen]:
    """Clicks of the last seventy days."""
    now = datetime.now(UTC).replace(microsecond=0)
    found = []
    for _ in range(count):
        at = now - timedelta(milliseconds=chance.randrange(70 * 86_400_000))
        day = at.astimezone(ZONE).toordinal()
        number = chance.randrange(len(links))
        found.append(
            Seen(
                at,
                links[number],
                chance.choice([Class.HUMAN, Class.HUMAN, Class.HUMAN, Class.REPEAT, Class.CRAWLER, Class.HEAD]),
                chance.choice(PLACES),
                chance.choice(HOSTS),
                chance.choice(PLATFORMS),
                chance.choice(["", "pt-BR", "ne"]),
                chance.choice(CAMPAIGNS),
                chance.choice([None, 1, 2]),
                chance.choice([None, 1]),
                chance.random() < 0.2,
                chance.choice([None, day * 10 + chance.randrange(8)]),
                ["", "m", "n"][number],
            )
        )
    return found


class World(NamedTuple):
    """Links of an organization in Nepal, and their clicks."""

    tenant: Tenant
    links: dict[str, dict[str, Any]]
    ids: dict[str, int]
    clicks: list[Seen]

    async def asks(self, path: str, **parameters: Any) -> Any:
        answer = await self.tenant.api.get(f"/v1/stats{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["success"] and body["meta"]["requestId"] == answer.headers["x-request-id"]
        return body["data"]


@pytest.fixture
async def world(api: Api, connection: Connection) -> World:
    await api.one.api.patch("/v1/stats/settings", json={"timezone": "asia/kathmandu"})
    links = {
        "a": await made(api.one.api, path="/a", title="=A", tags=["x", "y"], folder="f"),
        "b": await made(api.one.api, path="/b", tags=["x"], hostname="go.example.com"),
        "c": await made(api.one.api, path="/c", folder="f"),
    }
    theirs = await made(api.other.api, path="/theirs")
    rows = await connection.fetch("select public_id, id from links")
    ids = {row["public_id"]: row["id"] for row in rows}
    numbers = {name: ids[link["id"]] for name, link in links.items()}
    chance = random.Random(3)
    clicks = some(chance, list(numbers.values()), 500)
    await store(connection, api.one.organization_id, clicks)
    await store(connection, api.other.organization_id, some(chance, [ids[theirs["id"]]], 30))
    return World(api.one, links, numbers, clicks)


Keeps = Callable[[World, Seen], bool]
FILTERS: list[tuple[dict[str, str], Keeps]] = [
    ({}, lambda world, one: True),
    ({"country": "br"}, lambda world, one: one.has("country") == "BR"),
    ({"country": "BR,"}, lambda world, one: one.has("country") in ("BR", "")),
    (
        {"exclude[country]": "BR", "device": "mobile"},
        lambda w, one: one.has("country") != "BR" and one.has("os") == "ios",
    ),
    ({"city": '"Washington, D. C."'}, lambda world, one: "D. C." in one.has("city")),
    ({"referrerGroup": "search,direct"}, lambda world, one: one.has("referrerGroup") in ("search", "direct")),
    ({"exclude.referrerGroup": "search"}, lambda world, one: one.has("referrerGroup") != "search"),
    ({"referrerGroup": "messenger"}, lambda world, one: one.referrer == "t.me"),
    ({"utmSource": "=1+1", "qr": "true"}, lambda world, one: one.has("utmSource") == "=1+1" and one.is_scan),
    ({"exclude.utmCampaign": ",spring"}, lambda world, one: False),
    ({"tag": "x"}, lambda world, one: one.link in (world.ids["a"], world.ids["b"])),
    ({"folder": "f", "domain": "localhost"}, lambda world, one: one.link != world.ids["b"]),
    ({"linkId": "b", "rule": "1,"}, lambda world, one: one.link == world.ids["b"] and one.rule in (None, 1)),
    ({"linkId": "a", "exclude[variant]": "1"}, lambda world, one: one.link == world.ids["a"] and one.variant is None),
    ({"language": "PT_br", "class": "all"}, lambda world, one: one.has("language") == "pt-BR"),
    ({"class": "crawler,head"}, lambda world, one: True),
    ({"messageId": "m"}, lambda world, one: one.message == "m"),
    ({"messageId": "n", "linkId": "c", "class": "all"}, lambda w, one: one.message == "n" and one.link == w.ids["c"]),
    ({"messageId": "n", "linkId": "a"}, lambda world, one: False),
]


@pytest.mark.parametrize(
    ("query", "keeps"), FILTERS, ids=lambda value: "&".join(value) if isinstance(value, dict) else ""
)
async def test_every_answer_is_what_a_plain_look_says(world: World, query: dict[str, str], keeps: Keeps) -> None:
    if "linkId" in query:
        query = query | {"linkId": world.links[query["linkId"]]["id"]}
    if "messageId" in query:
        query = query | {"messageId": f"{world.tenant.organization_id}{query['messageId']}"}
    today = datetime.now(ZONE).date()
    since = today - timedelta(days=29)
    classes = {name.upper() for name in query.get("class", "human").split(",")}
    in_time = [one for one in world.clicks if one.at.astimezone(ZONE).date() >= since and keeps(world, one)]
    wanted = [one for one in in_time if one.class_.name in classes or "ALL" in classes]

    found = await world.asks("", **query)
    assert found["range"]["timezone"] == "Asia/Kathmandu" and found["range"]["begin"].endswith("T18:15:00.000Z")
    assert found["total"] == len(wanted)
    assert found["visitors"] == len({one.visitor for one in wanted} - {None})
    assert found["anonymous"] == sum(one.visitor is None for one in wanted)
    assert found["scans"] == sum(one.is_scan for one in wanted)
    assert +Counter(found["classes"]) == Counter(one.has("class") for one in in_time)

    for interval in ("day", "week", "hour"):
        series = await world.asks("/timeseries", interval=interval, **query)
        assert series["total"] == len(wanted) == sum(point["total"] for point in series["points"])
        assert ("visitors" in series["points"][0]) == (interval != "hour")
        if interval == "day":
            days = Counter(one.at.astimezone(ZONE).date().isoformat() for one in wanted)
            assert [point["total"] for point in series["points"]] == [
                days[(since + timedelta(days=number)).isoformat()] for number in range(30)
            ]
            assert series["points"][-1]["local"] == f"{today}T00:00:00+05:45"
            assert sum(point["visitors"] for point in series["points"]) == found["visitors"]

    for by in DIMENSIONS:
        if (by in ("rule", "variant") and "linkId" not in query) or by == "link":
            continue
        taken = in_time if by == "class" and "class" not in query else wanted
        values = Counter(one.has(by) for one in taken)
        if by == "message":
            values = Counter(
                {name and f"{world.tenant.organization_id}{name}": count for name, count in values.items()}
            )
        broken = await world.asks("/breakdown", by=by, limit=1000, **query)
        assert {item["value"]: item["total"] for item in broken["items"]} == dict(values), by
        assert (broken["total"], broken["other"]) == (len(taken), 0)
        few = await world.asks("/breakdown", by=by, limit=1, **query)
        assert few["items"] == broken["items"][:1] and few["total"] == len(taken)
        assert few["other"] == len(taken) - sum(item["total"] for item in few["items"])

    clicks: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = (await world.tenant.api.get("/v1/stats/clicks", params=query | {"cursor": cursor, "limit": 99})).json()
        clicks += answer["data"]
        cursor = answer["meta"]["cursor"]["next"]
        assert answer["meta"]["cursor"]["hasMore"] == (cursor is not None)
    assert len(clicks) == len(wanted)
    assert [click["at"] for click in clicks] == sorted((click["at"] for click in clicks), reverse=True)
    for name in (*FACTS, "referrerGroup", "class"):
        assert Counter(click[name] for click in clicks) == Counter(one.has(name) for one in wanted), name
    messages = Counter((click["messageId"] or "").removeprefix(str(world.tenant.organization_id)) for click in clicks)
    assert messages == Counter(one.message for one in wanted)
    assert Counter(click["ruleId"] for click in clicks) == Counter(one.rule for one in wanted)
    assert {click["reason"] for click in clicks} <= set(REASONS)


async def test_links_are_broken_down_by_id_and_those_that_are_gone_together(world: World, api: Api) -> None:
    humans = [
        one for one in world.clicks if one.class_ == Class.HUMAN and one.at > datetime.now(UTC) - timedelta(days=60)
    ]
    counts = Counter(one.link for one in humans)
    since = {"startDate": min(one.at for one in humans).isoformat(), "by": "link"}
    before = await world.asks("/breakdown", **since)
    assert {item["value"]: item["total"] for item in before["items"]} == {
        link["id"]: counts[world.ids[name]] for name, link in world.links.items()
    }
    [first] = [item for item in before["items"] if item["value"] == world.links["b"]["id"]]
    assert first["link"] == {"id": first["value"], "shortUrl": world.links["b"]["shortUrl"], "title": None}
    await api.one.api.delete(f"/v1/links/{world.links['a']['id']}")
    deleted = await world.asks("/breakdown", **since)
    shown = {item["value"]: "link" in item for item in deleted["items"]}
    assert shown == {link["id"]: name != "a" for name, link in world.links.items()}
    assert (await world.asks("", linkId=world.links["a"]["id"]))["total"] > 0
    for name in ("a", "c"):
        await api.one.api.delete(f"/v1/links/{world.links[name]['id']}?purge=true")
    gone = await world.asks("/breakdown", **since)
    assert {item["value"]: item["total"] for item in gone["items"]} == {
        "": counts[world.ids["a"]] + counts[world.ids["c"]],
        world.links["b"]["id"]: counts[world.ids["b"]],
    }
    assert gone["total"] == before["total"]
    assert sum(item["share"] for item in gone["items"]) == pytest.approx(1, abs=0.001)
    answer = await api.one.api.get("/v1/stats", params={"linkId": world.links["a"]["id"]})
    assert error_of(answer) == (404, "RESOURCE_NOT_FOUND")


async def test_the_time_before_is_compared(world: World) -> None:
    today = datetime.now(ZONE).date()
    found = await world.asks("", compare="true", country="BR")
    earlier = [
        one
        for one in world.clicks
        if today - timedelta(days=59) <= one.at.astimezone(ZONE).date() < today - timedelta(days=29)
        and one.has("country") == "BR"
        and one.class_ == Class.HUMAN
    ]
    assert found["previous"]["total"] == len(earlier) > 0
    assert found["previous"]["range"]["end"] == found["range"]["begin"]
    assert "previous" not in await world.asks("", compare="false")


async def test_what_happens_now_is_told_by_the_minute(api: Api, connection: Connection) -> None:
    await made(api.one.api)
    now = datetime.now(UTC).replace(microsecond=0)
    ages = [timedelta(seconds=1), timedelta(seconds=2), timedelta(minutes=5), timedelta(minutes=31)]
    clicks = [Seen(now - age, 1, Class.HUMAN, visitor=number // 2) for number, age in enumerate(ages)]
    await store(connection, api.one.organization_id, [*clicks, Seen(now, 1, Class.TOOL)])
    found = (await api.one.api.get("/v1/stats/live")).json()["data"]
    assert (found["total"], found["visitors"], len(found["points"])) == (3, 2, 30)
    assert sum(point["total"] for point in found["points"]) == 3
    assert sum(point["total"] for point in found["points"][-2:]) == 2
    assert datetime.fromisoformat(found["points"][-1]["start"]) <= datetime.now(UTC)
    assert (await api.one.api.get("/v1/stats/live?class=all")).json()["data"]["total"] == 4
    assert (await api.other.api.get("/v1/stats/live?class=all")).json()["data"]["total"] == 0
    assert error_of(await api.one.api.get("/v1/stats/live?startDate=2026-01-01")) == (400, "VALIDATION_ERROR")


async def test_nobody_sees_the_clicks_of_others(world: World, api: Api) -> None:
    mine = world.links["a"]["id"]
    for path in ("", "/timeseries", "/breakdown", "/clicks", "/live", "/export"):
        answer = await api.other.api.get(f"/v1/stats{path}", params={"linkId": mine})
        assert error_of(answer) == (404, "RESOURCE_NOT_FOUND"), path
    found = (await api.other.api.get("/v1/stats?class=all&startDate=2026-01-01")).json()["data"]
    assert found["total"] == 30
    for scope in ({"folder": "f"}, {"tag": "x"}, {"domain": "go.example.com"}):
        assert (await api.other.api.get("/v1/stats", params=scope)).json()["data"]["total"] == 0
    cursor = (await api.one.api.get("/v1/stats/clicks?limit=1&class=all")).json()["meta"]["cursor"]["next"]
    rows = (await api.other.api.get("/v1/stats/clicks", params={"cursor": cursor, "class": "all"})).json()["data"]
    assert len(rows) <= 30 and mine not in {row["linkId"] for row in rows}


@pytest.mark.parametrize(
    ("path", "query", "fields"),
    [
        ("", {"startDate": "1926-01-01", "timezone": "Mars/Olympus", "limit": "5"}, {"startDate", "timezone", "limit"}),
        ("", {"startDate": "2026-03-02", "endDate": "2026-03-01"}, {"endDate"}),
        ("", {"startDate": "2015-01-01"}, {"startDate"}),
        ("/timeseries", {"interval": "hour", "startDate": "2024-01-01"}, {"interval"}),
        ("/timeseries", {"interval": "second", "class": "people"}, {"interval", "class"}),
        ("/breakdown", {"by": "colour", "limit": "1000000000"}, {"by", "limit"}),
        ("/breakdown", {"by": "rule"}, {"by"}),
        ("/clicks", {"cursor": "!"}, {"cursor"}),
        ("/clicks", {"cursor": "MS4yLjMuNA=="}, {"cursor"}),
        ("/clicks", {"cursor": "OTk5OTk5OTk5OTk5OTk5OS4wLjk5OTk5OTk5OTk5OTk5OTk5OTkuMQ"}, {"cursor"}),
        ("/export", {"format": "xlsx", "exclude[moon]": "1"}, {"format", "exclude.moon"}),
    ],
)
async def test_what_is_asked_wrongly_is_refused(api: Api, path: str, query: dict[str, str], fields: set[str]) -> None:
    answer = await api.one.api.get(f"/v1/stats{path}", params=query)
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert {detail["field"] for detail in answer.json()["error"]["details"]} == fields


async def test_a_walk_meets_each_click_once_whatever_comes_meanwhile(api: Api, connection: Connection) -> None:
    link = await made(api.one.api)
    link_id = await connection.fetchval("select id from links")
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    alike = [Seen(at, link_id, Class.HUMAN)] * 7
    others = [Seen(at, link_id, Class.HUMAN, city) for city in ("BR\tRio", "BR\tA", "BR\tB", "BR\tC")]
    older = [Seen(at - timedelta(days=days), link_id, Class.HUMAN, "PT\t") for days in (1, 9, 20)]
    await store(connection, api.one.organization_id, [*alike, *others, *older])
    for more in ({}, {"linkId": link["id"]}):
        seen: list[tuple[str, str, str]] = []
        cursor: str | None = ""
        while cursor is not None:
            # What comes meanwhile is of the same moment, too; and what was seen already is judged again.
            late = Seen(at, link_id, Class.CRAWLER, f"XX\t{len(seen)}{more}")
            await store(connection, api.one.organization_id, [late])
            await connection.execute("update clicks set reason = reason, version = version + 1 where version < 90")
            query = {"cursor": cursor, "limit": "2", "class": "human"} | more
            answer = (await api.one.api.get("/v1/stats/clicks", params=query)).json()
            seen += [(click["at"], click["country"], click["city"]) for click in answer["data"]]
            cursor = answer["meta"]["cursor"]["next"]
        assert Counter(seen).total() == 14
        assert sorted(city for _, _, city in seen) == sorted(["A", "B", "C", "Rio", *[""] * 10])


async def test_clicks_that_are_not_kept_are_counted_but_not_shown(world: World, connection: Connection) -> None:
    until = datetime.now(UTC) - timedelta(days=9, hours=1)
    await connection.execute("insert into foldings values ($1, $2)", world.tenant.organization_id, until)
    kept = [one for one in world.clicks if one.at >= until]
    listed = await world.asks("/clicks", **{"class": "all", "limit": "1000"})
    assert len(listed) == len(kept) > 10
    lines = (await world.tenant.api.get("/v1/stats/export?class=all&format=ndjson")).text.splitlines()
    assert [json.loads(line) for line in lines] == listed
    for path in ("", "/timeseries", "/breakdown"):
        answer = await world.tenant.api.get(f"/v1/stats{path}", params={"country": "BR"})
        assert error_of(answer) == (422, "CLICKS_NOT_KEPT"), path
    recent = {"country": "BR", "startDate": (until + timedelta(days=2)).date().isoformat()}
    assert (await world.asks("", **recent))["visitors"] is not None
    found = await world.asks("", **{"class": "all"})
    assert found["visitors"] is None and found["total"] > 0
    series = await world.asks("/timeseries", **{"class": "all"})
    assert "visitors" not in series["points"][0] and series["total"] == found["total"]


async def test_exports_have_what_the_list_has(
    world: World, api: Api, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(singles, "_AT_ONCE", 30)
    query = {"country": "BR", "class": "all"}
    listed = (await api.one.api.get("/v1/stats/clicks", params=query | {"limit": "1000"})).json()["data"]
    files = {
        kind: await api.one.api.get("/v1/stats/export", params=query | {"format": kind}) for kind in singles.FORMATS
    }
    assert files["json"].json() == listed and len(listed) > 60
    assert [json.loads(line) for line in files["ndjson"].text.splitlines()] == listed
    assert files["csv"].headers["content-type"] == "text/csv; charset=utf-8"
    assert files["csv"].headers["content-disposition"] == 'attachment; filename="clicks.csv"'
    assert files["json"].headers["content-type"] == "application/json"
    rows = list(csv.DictReader(io.StringIO(files["csv"].text.removeprefix("\ufeff"))))
    assert list(rows[0]) == list(singles.COLUMNS) and set(singles.COLUMNS) == set(listed[0])
    shown = {None: "", True: "true", False: "false"}
    for row, click in zip(rows, listed, strict=True):
        assert {name: unguarded(cell) for name, cell in row.items()} == {
            name: shown.get(value, str(value))
            if not isinstance(value, int | str) or isinstance(value, bool)
            else str(value)
            for name, value in click.items()
        }
    assert "'=1+1" in {row["utmSource"] for row in rows} and not any(
        cell[:1] in ("=", "+", "-", "@") for row in rows for cell in row.values()
    )
    nothing = {kind: (await api.one.api.get(f"/v1/stats/export?city=X&format={kind}")).text for kind in singles.FORMATS}
    assert nothing["csv"].count("\n") == 1 and nothing["json"] == "[]\n" and nothing["ndjson"] == ""
    monkeypatch.setattr(single_routes._turns, "_wait_s", 0.01)
    async with single_routes._turns, single_routes._turns:
        assert error_of(await api.one.api.get("/v1/stats/export")) == (503, "SERVICE_UNAVAILABLE")


async def test_what_takes_too_long_is_refused_with_advice(
    api: Api, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "STATEMENT_S", 0.05)
    async with connection.transaction():
        await connection.execute("lock table clicks")
        for path in ("/clicks", "/live", "?country=BR"):
            answer = await api.one.api.get(f"/v1/stats{path}")
            assert error_of(answer) == (422, "QUERY_TOO_LARGE")
            assert "shorter range" in answer.json()["error"]["message"]
        # A file has asked for nothing yet when it waits for whoever changes the months.
        assert error_of(await api.one.api.get("/v1/stats/export")) == (503, "SERVICE_UNAVAILABLE")
    assert (await api.one.api.get("/v1/stats/clicks")).status_code == 200
    pool = await open_pool(database_url)
    monkeypatch.setattr(answering, "STATEMENT_S", 0.2)
    with pytest.raises(QueryTooLarge):
        async with answering.moment(pool, within_s=0.25) as taken:
            for _ in range(100):  # each of them is quick enough
                await taken.execute("select pg_sleep(0.02)")
    with pytest.raises(Unavailable):
        async with answering.moment(pool, within_s=0.1) as taken:
            await taken.execute("select pg_sleep(0.15)")
    pool.terminate()


async def test_how_clicks_are_counted_is_for_administrators_to_say(api: Api, connection: Connection) -> None:
    default = {"timezone": "UTC", "addresses": "none", "heedsOptOut": False, "internal": [], "keptDays": None}
    assert (await api.one.api.get("/v1/stats/settings")).json()["data"] == default
    change = {
        "internal": ["192.0.2.7/24", "2001:DB8::1", "::ffff:192.0.2.0/120"],
        "keptDays": 90,
        "heeds_opt_out": True,
    }
    wanted = default | {"internal": ["192.0.2.0/24", "2001:db8::1/128"], "keptDays": 90, "heedsOptOut": True}
    assert (await api.one.api.patch("/v1/stats/settings", json=change)).json()["data"] == wanted
    await asyncio.gather(
        api.one.api.patch("/v1/stats/settings", json={"timezone": "europe/BERLIN"}),
        api.one.api.patch("/v1/stats/settings", json={"keptDays": None}),
        api.one.api.patch("/v1/stats/settings", json={"addresses": "full"}),
    )
    wanted |= {"timezone": "Europe/Berlin", "keptDays": None, "addresses": "full"}
    assert (await api.one.api.get("/v1/stats/settings")).json()["data"] == wanted
    assert (await api.other.api.get("/v1/stats/settings")).json()["data"] == default
    assert (await api.one.api.get("/v1/stats")).json()["data"]["range"]["timezone"] == "Europe/Berlin"
    told = (await api.one.api.get("/v1/audit-log?action=stats_settings.changed&sortOrder=asc")).json()["data"]
    assert len(told) == 4 and told[0]["attributes"]["details"]["kept_days"] == 90
    reader = client_of(api.app, await key_of(connection, api.one.organization, "stats:read"))
    assert (await reader.get("/v1/stats/settings")).status_code == 200
    assert (await reader.patch("/v1/stats/settings", json={"keptDays": 7})).status_code == 403
    for name, value in (
        ("timezone", "Mars"),
        ("timezone", None),
        ("addresses", "some"),
        ("internal", ["x"]),
        ("internal", ["fe80::1%a,b"]),
        ("internal", ["192.0.2.1"] * 101),
        ("keptDays", 6),
        ("keptDays", 36_501),
        ("heedsOptOut", "yes"),
        ("colour", "red"),
    ):
        answer = await api.one.api.patch("/v1/stats/settings", json={name: value})
        assert error_of(answer) == (400, "VALIDATION_ERROR"), (name, value)
        assert answer.json()["error"]["details"][0]["field"].startswith(name)
    assert (await api.one.api.get("/v1/stats/settings")).json()["data"] == wanted


async def of_all(client: httpx2.AsyncClient, link: dict[str, Any], **more: str) -> httpx2.Response:
    return await client.get("/v1/public/stats", params={"hostname": link["hostname"], "path": link["path"]} | more)


async def test_anybody_sees_the_counts_of_a_link_that_shows_them(world: World, api: Api) -> None:
    link = world.links["a"]
    assert error_of(await of_all(api.nobody, link)) == (404, "RESOURCE_NOT_FOUND")
    await api.one.api.patch(f"/v1/links/{link['id']}", json={"isPublicStats": True})
    found = (await of_all(api.nobody, link)).json()["data"]
    whole = await world.asks("", linkId=link["id"])
    assert found["total"] == whole["total"] == sum(day["total"] for day in found["days"]) > 0
    assert set(found) == {"total", "timezone", "days", "countries"} and len(found["days"]) == 30
    countries = await world.asks("/breakdown", linkId=link["id"], by="country")
    assert found["countries"] == [{"country": item["value"], "total": item["total"]} for item in countries["items"]]
    same = {"hostname": "LOCALHOST", "path": f"{link['path']}/"}
    assert (await of_all(api.nobody, same)).json()["data"] == found
    for other in (world.links["b"], {"hostname": "localhost", "path": "/nothing"}):
        assert error_of(await of_all(api.nobody, other)) == (404, "RESOURCE_NOT_FOUND")
    for wrong, fields in (
        ({"path": "/a"}, {"hostname"}),
        ({}, {"hostname", "path"}),
        ({"hostname": "a b", "path": "/\0", "days": "1"}, {"hostname", "path", "days"}),
    ):
        answer = await api.nobody.get("/v1/public/stats", params=wrong)
        assert error_of(answer) == (400, "VALIDATION_ERROR")
        assert {detail["field"] for detail in answer.json()["error"]["details"]} == fields
    await api.one.api.delete(f"/v1/links/{link['id']}")
    assert error_of(await of_all(api.nobody, link)) == (404, "RESOURCE_NOT_FOUND")
    statuses = {(await of_all(api.nobody, link)).status_code for _ in range(60)}
    assert statuses == {404, 429}
    elsewhere = client_of(api.app, **{"X-Forwarded-For": "203.0.113.9"})
    assert (await of_all(elsewhere, link)).status_code == 404
