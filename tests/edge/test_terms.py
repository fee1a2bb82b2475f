"""Visits of links with terms: what shared/rules.py decides is what happens, and what is recorded."""

import itertools
import re
import time
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.addresses import Proxies, networks
from shared.click_ids import click_ids
from shared.entries import Entry, HostEntry, Preview, Rule, Terms, Variant
from shared.links import Address, Published, PublishedHost
from shared.rules import decide, with_query
from shared.visitor import Visitor
from tests.edge.publishing import OTHER, PROMO, Host, Publisher
from tests.edge.spools import be_patient
from tests.edge.visiting import TARGET, Edge, make_edge

patience = pytest.fixture(scope="module", autouse=True)(be_patient)
edge = pytest.fixture(make_edge)

ELSEWHERE = "https://example.com/elsewhere"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
    "Mobile/15E148 Safari/604.1"
)
WHATSAPP = "WhatsApp/2.23.20.0"


def with_terms(version: int = 2, **terms: Any) -> Published:
    """A link with these terms."""
    return Published(version, Entry(7, 3, TARGET, terms=Terms(**terms)))


async def visit(edge: Edge, path: str = "/promo", agent: str = CHROME, **more: Any) -> httpx2.Response:
    return await edge.visit(path, headers=[("user-agent", agent), *more.pop("headers", [])], **more)


NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("terms", "status", "says"),
    [
        ({"state": "archived"}, 410, "closed"),
        ({"state": "disabled"}, 410, "closed"),
        ({"state": "reported"}, 410, "closed"),
        ({"expires_at_ms": NOW_MS - HOUR_MS}, 410, "closed"),
        ({"starts_at_ms": NOW_MS + HOUR_MS}, 410, "not open yet"),
    ],
    ids=["archived", "disabled", "reported", "expired", "not started"],
)
async def test_a_link_that_leads_nowhere_now_says_so_or_leads_to_its_fallback(
    edge: Edge, publisher: Publisher, terms: dict[str, Any], status: int, says: str
) -> None:
    await publisher.change(PROMO, with_terms(**terms))
    answer = await visit(edge)
    assert answer.status_code == status
    assert says in answer.text
    await publisher.change(OTHER, with_terms(**terms, fallback=ELSEWHERE))
    answer = await visit(edge, "/other")
    is_stopped = terms.get("state") in ("disabled", "reported")
    assert answer.headers.get("location") == (None if is_stopped else ELSEWHERE)
    assert edge.clicks() == []


async def test_within_its_time_it_leads_on(edge: Edge, publisher: Publisher) -> None:
    terms: dict[str, Any] = {"starts_at_ms": NOW_MS - HOUR_MS, "expires_at_ms": NOW_MS + HOUR_MS, "fallback": ELSEWHERE}
    await publisher.change(PROMO, with_terms(**terms))
    assert (await visit(edge)).headers["location"] == TARGET
    [click] = edge.clicks()
    assert (click.link_id, click.rule_id, click.variant_id, click.is_use, click.has_id) == (7, 0, 0, False, False)


async def test_the_host_says_where_those_go_whose_link_is_over(edge: Edge, publisher: Publisher) -> None:
    await publisher.change(PROMO, with_terms(state="archived"))
    await publisher.change(Host("go.example"), PublishedHost(2, HostEntry(expired=ELSEWHERE)))
    assert (await visit(edge)).headers["location"] == ELSEWHERE
    await publisher.change(OTHER, with_terms(state="archived", fallback=TARGET))
    assert (await visit(edge, "/other")).headers["location"] == TARGET


async def test_rules_send_visitors_where_they_belong_and_are_recorded(edge: Edge, publisher: Publisher) -> None:
    rules = (
        Rule(4, {"device": ["mobile"], "language": ["pt"]}, ELSEWHERE + "/pt"),
        Rule(2, {"device": ["mobile"]}, ELSEWHERE),
    )
    await publisher.change(PROMO, with_terms(rules=rules))
    portuguese = [("accept-language", "pt-BR,pt;q=0.9")]
    answers = [
        await visit(edge),
        await visit(edge, agent=PHONE),
        await visit(edge, agent=PHONE, headers=portuguese),
        await visit(edge, headers=portuguese),
    ]
    assert [answer.headers["location"] for answer in answers] == [TARGET, ELSEWHERE, ELSEWHERE + "/pt", TARGET]
    assert [click.rule_id for click in edge.clicks()] == [0, 2, 4, 0]
    assert {answer.headers["cache-control"] for answer in answers} == {"private, no-store"}


async def test_a_visitor_is_whom_the_last_of_several_headers_names(edge: Edge, publisher: Publisher) -> None:
    await publisher.change(PROMO, with_terms(rules=(Rule(4, {"address": ["203.0.113.9"]}, ELSEWHERE),)))
    for said in (["203.0.113.1", "203.0.113.9"], ["203.0.113.9", "127.0.0.1"], ["203.0.113.1, 203.0.113.9"]):
        headers: list[tuple[str, str]] = [("x-forwarded-for", addresses) for addresses in said]
        assert (await visit(edge, headers=headers)).headers["location"] == ELSEWHERE, said
    assert {click.address for click in edge.clicks()} == {"203.0.113.9"}


async def test_a_visitor_keeps_the_variant_behind_whatever_proxy(edge: Edge, publisher: Publisher) -> None:
    variants = (Variant(1, 1, "https://a.example/"), Variant(2, 1, "https://b.example/"))
    await publisher.change(PROMO, with_terms(variants=variants))
    seen = set()
    for number in range(20):
        client = [("x-forwarded-for", f"203.0.113.{number}")]
        first = (await visit(edge, headers=client)).headers["location"]
        assert (await visit(edge, headers=client)).headers["location"] == first
        seen.add(first)
    assert seen == {"https://a.example/", "https://b.example/"}
    by_variant = {1: "https://a.example/", 2: "https://b.example/"}
    assert {by_variant[click.variant_id] for click in edge.clicks()} == seen


async def test_crawlers_of_social_networks_see_the_preview(edge: Edge, publisher: Publisher) -> None:
    preview = Preview('<b>"Sale"</b>', "All week & more", "https://example.com/i.png")
    await publisher.change(PROMO, with_terms(preview=preview))
    answer = await visit(edge, agent=WHATSAPP)
    assert answer.status_code == 200
    assert '<meta property="og:title" content="&lt;b&gt;&quot;Sale&quot;&lt;/b&gt;">' in answer.text
    assert '<meta property="og:description" content="All week &amp; more">' in answer.text
    assert '<meta property="og:image" content="https://example.com/i.png">' in answer.text
    assert "<b>" not in answer.text
    assert edge.clicks() == []
    assert (await visit(edge)).headers["location"] == TARGET
    await publisher.change(OTHER, with_terms(fallback=ELSEWHERE))
    assert (await visit(edge, "/other", agent=WHATSAPP)).headers["location"] == TARGET


async def test_the_query_goes_along_if_the_link_wants_it(edge: Edge, publisher: Publisher) -> None:
    await publisher.change(PROMO, with_terms(query_policy="append"))
    answer = await visit(edge, "/promo?a=1&qr=1&b=2")
    assert answer.headers["location"] == TARGET + "?a=1&b=2"
    [click] = edge.clicks()
    assert click.is_scan


async def test_the_destination_is_told_the_id_of_the_click(edge: Edge, publisher: Publisher) -> None:
    key = "0123456789abcdef" * 2
    await publisher.change(PROMO, with_terms(click_id_parameter="click", click_id_key=key))
    locations = [(await visit(edge)).headers["location"] for _ in range(2)]
    [reader] = edge.spools()
    assert locations == [f"{TARGET}?click={click_ids(key).seal(reader.spool, number)}" for number in (0, 1)]
    reader.close()
    await publisher.change(OTHER, with_terms(click_id_parameter="click"))
    assert (await visit(edge, "/other")).headers["location"] == TARGET  # nothing to seal it with
    assert [click.has_id for click in edge.clicks()] == [True, True, False]


@pytest.mark.parametrize(
    ("entry", "headers"),
    [
        (Entry(7, 3, TARGET, 301), {"cache-control": None}),
        (Entry(7, 3, TARGET, 308, 60), {"cache-control": "private, max-age=60"}),
        (Entry(7, 3, TARGET, 307), {"cache-control": "private, no-store"}),
        (Entry(7, 3, TARGET, 302, 60, "noindex"), {"cache-control": "private, max-age=60", "x-robots-tag": "noindex"}),
        (Entry(7, 3, TARGET, 301, 60, terms=Terms(click_id_parameter="c")), {"cache-control": "private, no-store"}),
    ],
    ids=str,
)
async def test_status_and_headers_are_the_links(
    edge: Edge, publisher: Publisher, entry: Entry, headers: dict[str, str | None]
) -> None:
    await publisher.change(PROMO, Published(2, entry))
    answer = await visit(edge)
    assert answer.status_code == entry.status
    assert {name: answer.headers.get(name) for name in headers} == headers


# Where a link leads, for whoever asks first.


@pytest.mark.parametrize(
    ("terms", "status", "says", "says_not"),
    [
        ({}, 200, TARGET, "sent elsewhere"),
        ({"rules": (Rule(1, {"os": ["ios"]}, ELSEWHERE),)}, 200, "sent elsewhere", ELSEWHERE),
        ({"password_hash": "$argon2id$"}, 200, "protected", TARGET),
        ({"state": "reported"}, 410, "closed", TARGET),
        ({"expires_at_ms": 1}, 410, "closed", TARGET),
        ({"starts_at_ms": 2**53}, 410, "not open yet", TARGET),
        ({"click_limit": 1}, 200, "limited number", TARGET),
    ],
    ids=str,
)
async def test_a_plus_behind_the_path_shows_where_the_link_leads(
    edge: Edge, publisher: Publisher, terms: dict[str, Any], status: int, says: str, says_not: str
) -> None:
    await publisher.change(PROMO, with_terms(**terms))
    answer = await visit(edge, "/promo+")
    assert answer.status_code == status
    assert says in answer.text
    assert says_not not in answer.text
    assert "location" not in answer.headers
    assert edge.clicks() == []
    assert (await visit(edge, "/nothing+")).status_code == 404


async def test_what_shows_a_destination_shows_it_as_text(edge: Edge, publisher: Publisher) -> None:
    await publisher.change(PROMO, Published(2, Entry(7, 3, 'https://example.com/?a=<script>&b="')))
    page = (await visit(edge, "/promo+")).text
    assert "<script>" not in page
    assert re.search(r'href="https://example.com/\?a=&lt;script&gt;&amp;b=&quot;"', page)


# The edge and the explainer (shared/rules.py) agree.

_VALUES: dict[str, list[Any]] = {
    "country": ["DE", "US"],
    "device": ["mobile", "desktop", "bot"],
    "os": ["ios", "windows"],
    "browser": ["chrome", "safari"],
    "language": ["pt", "de-DE"],
    "query": ["a", "a=1"],
    "referrer": ["news.example", "direct"],
    "address": ["203.0.113.0/24", "::/0"],
    "time": [{"days": ["mon", "tue", "wed"]}, {"after": "2020-01-01T00:00:00Z"}],
}
_WHEN = st.dictionaries(st.sampled_from(sorted(_VALUES)), st.none(), min_size=1, max_size=3).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.lists(st.sampled_from(_VALUES[name]), min_size=1, max_size=2) for name in names}
    )
)
_RULES = st.lists(_WHEN, max_size=3).map(
    lambda whens: tuple(Rule(id, when, f"https://example.com/{id}") for id, when in enumerate(whens, start=1))
)
_VARIANTS = st.lists(st.integers(0, 3), max_size=3).map(
    lambda weights: tuple(Variant(9 + id, weight, f"https://v.example/{id}") for id, weight in enumerate(weights))
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rules=_RULES,
    variants=_VARIANTS,
    policy=st.sampled_from(["none", "append", "override"]),
    agent=st.sampled_from([CHROME, PHONE, WHATSAPP, "", "curl/8", "\u00e9 agent"]),
    language=st.sampled_from(["", "pt-BR,de;q=0.5", "de-DE", "*;q=x"]),
    referrer=st.sampled_from(["", "https://news.example/a", "about:blank"]),
    query=st.sampled_from(["", "a=1", "a=2&b=%20", "a", "qr=1"]),
    address=st.sampled_from(["203.0.113.9", "8.8.8.8", "2001:db8::1", "nonsense"]),
)
async def test_where_the_edge_sends_a_visitor_is_where_the_explainer_says(
    edge: Edge,
    publisher: Publisher,
    rules: tuple[Rule, ...],
    variants: tuple[Variant, ...],
    policy: str,
    agent: str,
    language: str,
    referrer: str,
    query: str,
    address: str,
) -> None:
    terms = Terms(rules=rules, variants=variants, query_policy=policy, fallback=ELSEWHERE)
    entry = Entry(7, 3, TARGET, terms=terms)
    place = Address("go.example", f"/{next(_numbers)}")
    await publisher.put(place, Published(1, entry))
    sent: list[tuple[str, str | bytes]] = [
        ("user-agent", agent.encode()),
        ("accept-language", language),
        ("referer", referrer),
        ("x-forwarded-for", address),
    ]
    answer = await edge.visit(f"{place.path}?{query}", headers=sent)
    client = Proxies(networks("127.0.0.1")).client_of("127.0.0.1", address)
    visitor = Visitor(client, agent, language, referrer, query, time.time_ns() // 1_000_000)
    decision = decide(entry, visitor)
    assert answer.headers["location"] == with_query(decision.destination, query, policy)
    click = edge.clicks()[-1]
    assert (click.rule_id, click.variant_id) == (decision.rule_id, decision.variant_id)


_numbers = itertools.count()
