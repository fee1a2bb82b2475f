"""The click that is kept of a visit, through the edge's whole application on a real Valkey: what is in it."""

import time
from pathlib import Path

import pytest

from shared.clicks import MAX_REFERRER, MAX_USER_AGENT, Click
from shared.entries import Entry
from shared.links import Address, Published
from tests.conftest import Servers
from tests.edge.publishing import PROMO, Publisher, living
from tests.edge.visiting import PROXY, STRANGER, TARGET, Edge, counted, edge_on, make_edge

edge = pytest.fixture(make_edge)


async def test_a_redirect_leaves_one_click_with_what_was_seen(edge: Edge) -> None:
    before_ms = time.time_ns() // 1_000_000
    await edge.visit(
        peer=STRANGER, headers=[("user-agent", "Mozilla/5.0 (X11)"), ("referer", "https://news.example/a?b=c")]
    )
    [click] = edge.clicks()
    assert before_ms <= click.at_ms <= time.time_ns() // 1_000_000
    assert click == Click(
        at_ms=click.at_ms,
        link_id=7,
        organization_id=3,
        method="GET",
        address=STRANGER,
        user_agent="Mozilla/5.0 (X11)",
        referrer="https://news.example/a?b=c",
    )


async def test_each_visit_leaves_a_click_in_the_order_of_the_visits(edge: Edge, publisher: Publisher) -> None:
    await publisher.change(Address("go.example", "/b"), Published(1, Entry(8, 4, TARGET)))
    for path, method in (("/promo", "GET"), ("/b", "HEAD"), ("/promo", "HEAD")):
        await edge.visit(path, method=method)
    assert [(click.link_id, click.organization_id, click.method) for click in edge.clicks()] == [
        (7, 3, "GET"),
        (8, 4, "HEAD"),
        (7, 3, "HEAD"),
    ]


async def test_what_a_visitor_does_not_say_is_empty(edge: Edge) -> None:
    await edge.visit()
    [click] = edge.clicks()
    assert (click.user_agent, click.referrer) == ("", "")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        pytest.param(b"a" * (MAX_USER_AGENT + 1), "a" * MAX_USER_AGENT, id="a long one is cut"),
        pytest.param(b"a" * MAX_USER_AGENT, "a" * MAX_USER_AGENT, id="one of the allowed length is whole"),
        pytest.param("Grüße 日本".encode(), "Grüße 日本", id="UTF-8 is read as such"),
        pytest.param("ü".encode() * (MAX_USER_AGENT + 1), "ü" * MAX_USER_AGENT, id="characters are counted, not bytes"),
        pytest.param(b"a\xffb", "a\N{REPLACEMENT CHARACTER}b", id="bytes that are no text are replaced"),
        pytest.param(b'"quoted"\t\\', '"quoted"\t\\', id="quotes and backslashes are kept"),
    ],
)
async def test_the_user_agent_is_kept_as_bounded_text(edge: Edge, sent: bytes, kept: str) -> None:
    answer = await edge.visit(headers=[("user-agent", sent)])
    assert answer.status_code == 302
    assert [click.user_agent for click in edge.clicks()] == [kept]


async def test_a_long_referrer_is_cut(edge: Edge) -> None:
    await edge.visit(headers=[("referer", "r" * (MAX_REFERRER + 1))])
    assert [click.referrer for click in edge.clicks()] == ["r" * MAX_REFERRER]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "kept"),
    [
        pytest.param(PROXY, ["203.0.113.7"], "203.0.113.7", id="a trusted proxy is believed"),
        pytest.param(STRANGER, ["203.0.113.7"], STRANGER, id="a stranger is not"),
        pytest.param(PROXY, ["1.1.1.1, 203.0.113.7"], "203.0.113.7", id="what a stranger told a proxy is not"),
        pytest.param(PROXY, ["203.0.113.7, 127.0.0.2"], "203.0.113.7", id="two trusted proxies"),
        pytest.param(PROXY, ["1.1.1.1", "203.0.113.7"], "203.0.113.7", id="the last of two headers was added last"),
        pytest.param("::1", ["2001:DB8::0:7"], "2001:db8::7", id="IPv6"),
        pytest.param(PROXY, [], PROXY, id="a proxy that says nothing"),
    ],
)
async def test_the_address_of_a_click_is_what_trusted_proxies_say(
    edge: Edge, peer: str, forwarded_for: list[str], kept: str
) -> None:
    await edge.visit(peer=peer, headers=[("x-forwarded-for", said) for said in forwarded_for])
    assert [click.address for click in edge.clicks()] == [kept]


async def test_the_setting_says_which_proxies_are_trusted(
    servers: Servers, publisher: Publisher, tmp_path: Path
) -> None:
    await publisher.put(PROMO, living())
    async with edge_on(servers.redis_url, tmp_path, LINKWIRE_TRUSTED_PROXIES="198.51.100.0/24") as edge:
        for peer in (STRANGER, PROXY):
            await edge.visit(peer=peer, headers=[("x-forwarded-for", "203.0.113.7")])
        assert [click.address for click in edge.clicks()] == ["203.0.113.7", PROXY]


async def test_a_spool_that_can_not_be_written_costs_the_click_and_never_the_redirect(
    servers: Servers, publisher: Publisher, tmp_path: Path
) -> None:
    await publisher.put(PROMO, living(to=TARGET))
    dropped = counted("linkwire_clicks_dropped_total")
    full = {"LINKWIRE_SPOOL_MAX_BYTES": str(32 * 1024 * 1024)}
    (tmp_path / "spool").mkdir()
    with (tmp_path / "spool" / "another-0000000000000000.clicks").open("wb") as file:
        file.truncate(32 * 1024 * 1024)
    async with edge_on(servers.redis_url, tmp_path, **full) as edge:
        assert (await edge.visit()).headers["location"] == TARGET
    assert counted("linkwire_clicks_dropped_total") - dropped == 1
