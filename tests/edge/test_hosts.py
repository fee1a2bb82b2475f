"""Hosts: what their policy says of paths, what they have beside links, and that edges follow their changes."""

import asyncio
from typing import Any

import pytest

from edge.lookup import Lookup, Unavailable
from shared.entries import HostEntry
from shared.links import Address, PublishedHost
from shared.redis import Redis
from tests.conftest import Servers
from tests.edge.lookups import looking_up
from tests.edge.publishing import Gate, Host, Publisher, living
from tests.edge.spools import be_patient
from tests.edge.visiting import TARGET, Edge, make_edge
from tests.shared.waiting import until

patience = pytest.fixture(scope="module", autouse=True)(be_patient)
edge = pytest.fixture(make_edge)

GO = Host("go.example")
ELSEWHERE = "https://example.com/elsewhere"


async def test_a_host_that_changes_is_known_anew(lookup: Lookup, publisher: Publisher) -> None:
    assert await lookup.find_host("go.example") == HostEntry()
    for version, host in enumerate((HostEntry(root=TARGET), None, HostEntry(folds_case=True)), start=1):
        await publisher.change(GO, PublishedHost(version, host))

        async def is_known(host: HostEntry = host or HostEntry()) -> bool:  # noqa: B008
            return await lookup.find_host("go.example") == host

        await until(is_known)


async def test_known_hosts_cost_no_question_and_a_storm_of_others_is_forgotten(
    lookup: Lookup, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.lookup._HOSTS", 10)
    for number in range(30):
        await lookup.find_host(f"{number}.example")
        await lookup.find_host("go.example")
    assert len(lookup._hosts) == 10
    lookup._redis = None  # type: ignore[assignment]  # whoever asks it fails
    assert await lookup.find_host("go.example") == HostEntry()


async def test_a_host_that_can_not_be_known_is_said_to_be(lookup: Lookup, publisher: Publisher, redis: Redis) -> None:
    await redis.set(GO.key, b"1 [")
    with pytest.raises(Unavailable):
        await lookup.find_host("go.example")
    await publisher.void()
    await until(lambda: not lookup.is_complete)
    assert await lookup.find_host("other.example") == HostEntry()  # so far
    assert "other.example" not in lookup._hosts


async def test_an_answer_of_a_host_that_was_overtaken_or_is_of_another_epoch_is_not_remembered(
    servers: Servers, publisher: Publisher
) -> None:
    await publisher.complete()
    async with Gate(servers.redis_url) as gate, looking_up(servers.redis_url, through=gate.url) as lookup:
        await until(lambda: lookup.is_complete)
        await lookup.find_host("other.example")  # so that it is connected
        gate.hold()
        asking = asyncio.create_task(lookup.find_host("go.example"))
        await gate.held.wait()  # Redis has answered, and the answer is on its way
        await publisher.change(GO, PublishedHost(1, HostEntry(root=TARGET)))
        await until(lambda: lookup._last == 1)
        gate.release()
        assert await asking == HostEntry()
        assert await lookup.find_host("go.example") == HostEntry(root=TARGET)
        await publisher.put(GO, PublishedHost(2, HostEntry(root=ELSEWHERE)))  # and nobody is told
        assert await lookup.find_host("go.example") == HostEntry(root=TARGET)
        await publisher.complete("another")
        await until(lambda: not lookup._hosts)
        assert await lookup.find_host("go.example") == HostEntry(root=ELSEWHERE)


async def test_a_remembered_link_leads_on_while_its_host_can_not_be_known(
    edge: Edge, publisher: Publisher, redis: Redis
) -> None:
    assert (await edge.visit()).headers["location"] == TARGET
    await redis.set(GO.key, b"1 [")
    await publisher.announce(GO, PublishedHost(1, None))

    async def is_unknown() -> bool:
        return (await edge.visit("/other")).status_code == 503

    await until(is_unknown)
    assert (await edge.visit("/promo/")).headers["location"] == TARGET


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        (HostEntry(), "/Promo", 404),
        (HostEntry(), "/promo/", 302),
        (HostEntry(folds_case=True), "/Promo", 302),
        (HostEntry(folds_case=True), "/PROMO/", 302),
        (HostEntry(keeps_slash=True), "/promo", 302),
        (HostEntry(keeps_slash=True), "/promo/", 404),
        (HostEntry(keeps_slash=True, folds_case=True), "/PROMO/", 404),
    ],
    ids=str,
)
async def test_the_policy_of_a_host_says_which_paths_are_one(
    edge: Edge, publisher: Publisher, host: HostEntry, path: str, status: int
) -> None:
    await publisher.change(GO, PublishedHost(1, host))
    assert (await edge.visit("/promo")).status_code == 302  # remembered
    assert (await edge.visit(path)).status_code == status


@pytest.mark.parametrize(
    ("host", "path", "status", "says"),
    [
        ({"root": ELSEWHERE}, "/", 302, ELSEWHERE),
        ({"root": ELSEWHERE}, "/nothing", 404, None),
        ({"not_found": ELSEWHERE}, "/nothing", 302, ELSEWHERE),
        ({"not_found": ELSEWHERE}, "/", 302, ELSEWHERE),
        ({"robots_txt": "User-agent: *\nDisallow: /\n"}, "/robots.txt", 200, "User-agent: *\nDisallow: /\n"),
        ({}, "/robots.txt", 404, None),
        ({"favicon": ELSEWHERE}, "/favicon.ico", 302, ELSEWHERE),
        ({"apple_app_site_association": "{}"}, "/.well-known/apple-app-site-association", 200, "{}"),
        ({"assetlinks": "[]"}, "/.well-known/assetlinks.json", 200, "[]"),
        ({"proof": "abc"}, "/.well-known/linkwire-verification", 200, "abc"),
        ({}, "/.well-known/linkwire-verification", 404, None),
        ({"proof": "abc"}, "/.well-known/other", 404, None),
    ],
    ids=str,
)
async def test_what_a_host_has_beside_its_links(
    edge: Edge, publisher: Publisher, host: dict[str, Any], path: str, status: int, says: str | None
) -> None:
    await publisher.change(GO, PublishedHost(1, HostEntry(**host)))
    answer = await edge.visit(path)
    assert answer.status_code == status
    if says:
        assert says == (answer.text if status == 200 else answer.headers["location"])
    assert (await edge.visit(path, host="other.example")).status_code == 404
    assert (await edge.visit(path, method="POST")).status_code in (302, 404, 405)
    assert edge.clicks() == []


async def test_the_kinds_of_documents_are_told(edge: Edge, publisher: Publisher) -> None:
    host = HostEntry(assetlinks="[]", robots_txt="a", proof="b")
    await publisher.change(GO, PublishedHost(1, host))
    assert (await edge.visit("/.well-known/assetlinks.json")).headers["content-type"] == "application/json"
    assert (await edge.visit("/robots.txt")).headers["cache-control"] == "public, max-age=3600"
    assert (await edge.visit("/.well-known/linkwire-verification")).headers["cache-control"] == "no-store"


async def test_a_host_serves_its_own_links_only(edge: Edge, publisher: Publisher) -> None:
    await publisher.change(Address("other.example", "/theirs"), living(link_id=9))
    assert (await edge.visit("/theirs")).status_code == 404
    assert (await edge.visit("/promo", host="other.example")).status_code == 404
