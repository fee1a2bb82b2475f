"""No link leads to what is blocked, and hosts that look like others are told."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.database import Connection, Pool
from admin.links import safety
from admin.links.destinations import BadDestination, normal_destination
from admin.links.safety import BadPattern, Pattern, lookalikes
from tests.admin.conftest import Api, client_of, key_of, made, running, settings_of
from tests.conftest import Servers
from tests.shared.waiting import until

EVIL = "https://evil.example/"


@pytest.mark.parametrize(
    ("pattern", "means", "means_not"),
    [
        ("evil.example", "https://evil.example/ http://a.b.evil.example:8080/c?d#e", "https://notevil.example/"),
        ("EVIL.example../", "https://evil.example/a", "https://example/"),
        ("*.evil.example.", "https://a.evil.example/a", "https://evil.example/"),
        ("http://evil.example", "http://evil.example/a", "https://evil.example/a"),
        ("bücher.example", "https://xn--bcher-kva.example/", "https://b.example/"),
        ("2130706433", "http://127.0.0.1/a", "http://127.0.0.2/"),
        ("[2606:4700::0:1111]", "http://[2606:4700::1111]:80/", "http://[2606:4700::1112]/"),
        ("zip", "https://a.zip/", "https://zip.example/"),
        ("*.evil.example", "https://a.evil.example/", "https://evil.example/ https://a-evil.example/"),
        ("pay*l.example", "https://paypal.example/ https://payl.example/", "https://a.paypal.example/"),
        (
            "evil.example/login",
            "https://evil.example/login?a=b#c https://a.evil.example/LOG%69N",
            "https://evil.example/",
        ),
        ("evil.example/login*", "https://evil.example/login/a", "https://evil.example/a/login"),
        ("*/wp-*.php", "https://a.example/wp-login.php?b http://[::1]/a/wp-b.php", "https://a.example/wp-login.phpx"),
        ("evil.example/a?b=*", "https://evil.example/a?B=c", "https://evil.example/a https://evil.example/axb=c"),
        ("evil.example/[a]", "https://evil.example/[a]", "https://evil.example/a"),
        ("evil.example/ä", "https://evil.example/%C3%A4", "https://evil.example/a"),
    ],
)
def test_what_a_pattern_means(pattern: str, means: str, means_not: str) -> None:
    for url, is_meant in [(url, True) for url in means.split()] + [(url, False) for url in means_not.split()]:
        destination = normal_destination(url, may_be_private=True)
        assert Pattern.of(pattern).means(destination) is is_meant, url
    assert Pattern.of(str(Pattern.of(pattern))) == Pattern.of(pattern)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "*", "*/*", "**", "*.*", "http://*", "https://", "/a", "?a", "ev il.example", "evil.example/\n"),
        *("evil.example:80", "*.example:80", "ftp://evil.example", "user@evil.example/a", "evil.example/a#b"),
        *("*ü.example", "[::1", "1.2.3.4.5", "a" * 2001),
    ],
)
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(BadPattern):
        Pattern.of(text)


LABELS = st.text("ab", min_size=1, max_size=2)
HOSTS = st.lists(LABELS, min_size=1, max_size=3).map(".".join)


@given(HOSTS, st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=2))
def test_whatever_a_pattern_means_is_found_by_the_end_of_its_host(host: str, wildcards: list[tuple[int, int]]) -> None:
    text = host
    for begin, end in wildcards:
        text = text[:begin] + "*" + text[max(begin, end) :]
    pattern = Pattern.of(f"{text}/a")
    assert pattern.means(f"http://{host}/a")
    assert pattern.end_of_host == "" or f".{host}".endswith(f".{pattern.end_of_host}")


def test_no_destination_keeps_a_pattern_busy() -> None:
    begun_at = time.process_time()
    assert not Pattern.of("evil.example/" + "a*" * 30 + "b").means(EVIL + "a" * 4000)
    assert time.process_time() - begun_at < 1


async def test_private_destinations_are_for_those_who_said_so(
    api: Api, servers: Servers, database_url: str, connection: Connection
) -> None:
    inside = {"destination": "http://10.0.0.7/", "fallbackUrl": "http://wiki.local/"}
    key = api.one.api.headers["authorization"].removeprefix("Bearer ")
    async with running(settings_of(servers, database_url, LINKWIRE_PRIVATE_DESTINATIONS="1")) as app:
        for client, status in ((api.one.api, 400), (client_of(app, key), 201)):
            answer = await client.post("/v1/links", json=inside)
            assert answer.status_code == status, answer.text
            if status == 400:
                assert [one["field"] for one in answer.json()["error"]["details"]] == ["destination", "fallbackUrl"]
            many = await client.post("/v1/links/bulk", json={"links": [inside]})
            assert [one["status"] for one in many.json()["data"]] == [status]
    listed = await api.one.api.get("/v1/links", params={"destination": "http://0xa000007/"})
    assert len(listed.json()["data"]) == 2
    changed = await api.one.api.patch(f"/v1/links/{listed.json()['data'][0]['id']}", json={"title": "a"})
    assert changed.status_code == 200


async def block(connection: Connection, *patterns: str) -> None:
    for pattern in patterns:
        async with connection.transaction():
            await safety.block(connection, Pattern.of(pattern), "")


async def test_no_link_comes_back_that_leads_to_what_is_blocked(api: Api, connection: Connection) -> None:
    link = await made(api.one.api, destination="https://fine.example/", fallbackUrl=EVIL)
    await api.one.api.delete(f"/v1/links/{link['id']}")
    await block(connection, "evil.example")
    refused = (await api.one.api.post(f"/v1/links/{link['id']}/restore")).json()["error"]
    assert (refused["code"], refused["details"][0]["field"]) == ("DESTINATION_BLOCKED", "fallbackUrl")
    await connection.execute("update links set reported_at = now()")  # so it leads nowhere
    assert (await api.one.api.post(f"/v1/links/{link['id']}/restore")).status_code == 200


async def test_no_link_is_made_on_the_host_of_the_api(
    servers: Servers, database_url: str, api: Api, connection: Connection
) -> None:
    link = await made(api.one.api)
    more = {"LINKWIRE_API_URL": "https://api.example.com"}
    async with running(settings_of(servers, database_url, **more)) as app:
        client = client_of(app, await key_of(connection, api.one.organization))
        there = {"destination": "https://fine.example/", "hostname": "API.example.com:443"}
        many = (await client.post("/v1/links/bulk", json={"links": [there]})).json()["data"][0]
        moved = (await client.patch(f"/v1/links/{link['id']}", json={"hostname": "api.example.com"})).json()
        for answer in ((await client.post("/v1/links", json=there)).json(), many, moved):
            assert answer["error"]["details"] == [{"field": "hostname", "message": "This is the hostname of the API."}]
    await made(api.one.api, hostname="localhost")  # where it is the default domain, too


async def test_no_link_is_made_or_changed_that_leads_to_what_is_blocked(api: Api, connection: Connection) -> None:
    await block(connection, "evil.example", "*/login.php")
    link = await made(api.one.api)
    rule = {"when": {"country": "DE"}, "destination": EVIL}
    sent: list[tuple[dict[str, Any], list[str]]] = [
        ({"destination": "https://a.evil.example/b"}, ["destination"]),
        ({"destination": "https://fine.example/login.php", "fallbackUrl": EVIL}, ["destination", "fallbackUrl"]),
        ({"rules": [rule]}, ["rules.0.destination"]),
        ({"variants": [{"destination": "https://fine.example/"}, {"destination": EVIL}]}, ["variants.1.destination"]),
    ]
    for fields, names in sent:
        new = {"destination": "https://fine.example/"} | fields
        for answer in (
            await api.one.api.post("/v1/links", json=new),
            await api.one.api.patch(f"/v1/links/{link['id']}", json=fields),
            await api.one.api.put("/v1/links", json=new | {"externalId": "a"}),
        ):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "DESTINATION_BLOCKED"), answer.text
            assert [detail["field"] for detail in error["details"]] == names
    many = {"links": [{"destination": EVIL}, {"destination": "https://fine.example/"}]}
    results = (await api.one.api.post("/v1/links/bulk", json=many)).json()["data"]
    assert [result["status"] for result in results] == [400, 201]
    assert results[0]["error"]["code"] == "DESTINATION_BLOCKED"
    assert await safety.unblock(connection, Pattern.of("EVIL.example"))
    assert not await safety.unblock(connection, Pattern.of("evil.example"))
    await made(api.one.api, destination=EVIL)


async def test_what_is_blocked_is_told_beside_other_mistakes(api: Api, connection: Connection) -> None:
    await block(connection, "evil.example")
    await made(api.other.api, hostname="theirs.example")
    answer = await api.one.api.post("/v1/links", json={"destination": EVIL, "hostname": "theirs.example"})
    assert answer.json()["error"]["code"] == "VALIDATION_ERROR"
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == ["hostname", "destination"]


async def test_no_page_of_a_host_is_one_that_is_blocked(api: Api, connection: Connection) -> None:
    await block(connection, "evil.example")
    domain = (await api.one.api.post("/v1/domains", json={"hostname": "go.example"})).json()["data"]
    for name in ("rootUrl", "notFoundUrl", "expiredUrl", "faviconUrl"):
        answer = await api.one.api.patch(f"/v1/domains/{domain['id']}", json={name: EVIL})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "DESTINATION_BLOCKED"
        assert [detail["field"] for detail in answer.json()["error"]["details"]] == [name]


async def test_whoever_blocks_waits_for_links_that_are_being_made(pool: Pool, connection: Connection) -> None:
    """So those that are stopped with the pattern are all that lead there."""
    async with pool.acquire() as maker:
        making = maker.transaction()
        await making.start()
        assert await safety.blocked(maker, [EVIL]) == set()
        blocking = asyncio.create_task(block(connection, "evil.example"))

        async def is_waiting() -> bool:
            return bool(await maker.fetchval("select exists (select from pg_locks where not granted)"))

        await until(is_waiting)
        assert not blocking.done()
        await making.rollback()
        await blocking
        assert await safety.blocked(maker, [EVIL, "https://fine.example/"]) == {EVIL}


async def test_thousands_of_patterns_cost_little(connection: Connection) -> None:
    await connection.execute(
        "insert into blocked_destinations (pattern, host, reason) select host, host, '' from ("
        "select 'host' || number || '.example' as host from generate_series(1, 20000) as number) as hosts"
    )
    destinations = [f"https://a.host{number}.example/" for number in range(19_500, 20_500)]
    await connection.execute("analyze blocked_destinations")
    begun_at = time.process_time()
    assert len(await safety.blocked(connection, destinations)) == 501
    assert time.process_time() - begun_at < 0.5


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("аррӏе.com", "can be taken for apple"),
        ("www.ѕсоре.example", "can be taken for scope"),
        ("ɡoogle.com", "can be taken for google"),
        ("twıtter.com", "can be taken for twitter"),
        ("paypаl.com", "mixes alphabets"),
        ("gοogle.com", "mixes alphabets"),
        ("россияελλάδα.example", "mixes alphabets"),
        ("한국россия.example", "mixes alphabets"),
    ],
)
def test_a_host_that_looks_like_another_one_is_told(host: str, told: str) -> None:
    [warning] = lookalikes([("fallbackUrl", normal_destination(f"https://{host}/"))])
    assert told in warning and host in warning and "fallbackUrl" in warning and "xn--" in warning


@pytest.mark.parametrize(
    "host",
    [
        *("example.com", "bücher.example", "россия.example", "россия-24.example", "россия.com", "ελλάδα.example"),
        *("日本google.example", "カタカナ漢字ひらがなabc.example", "한국漢字.example", "ร้านshop.example"),
        *("عربي.example", "😀.example"),
    ],
)
def test_other_hosts_are_not(host: str) -> None:
    assert list(lookalikes([("destination", normal_destination(f"https://{host}/"))])) == []


@given(st.text(min_size=1, max_size=20))
def test_of_any_host_something_can_be_told(label: str) -> None:
    try:
        destination = normal_destination(f"https://{label}.example/")
    except BadDestination:
        return
    assert len(list(lookalikes([("destination", destination)]))) <= 1


async def test_what_looks_like_another_host_is_accepted_with_a_warning(api: Api) -> None:
    answer = await api.one.api.post("/v1/links", json={"destination": "https://аррӏе.com/", "redirectStatus": 308})
    assert answer.status_code == 201
    assert ["308" in answer.json()["meta"]["warnings"][0], "apple" in answer.json()["meta"]["warnings"][1]] == [
        True
    ] * 2
