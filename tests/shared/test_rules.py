"""Rules: the story of a visit in its order, what the explainer says of it, and what is added to a destination."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import can_ada
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.entries import STATES, Entry, Preview, Rule, Terms, Variant
from shared.rules import (
    MAX_DESTINATION_LENGTH,
    OUTCOMES,
    REASONS,
    Decision,
    decide,
    explained,
    meets,
    used_up,
    with_query,
    with_utm,
)
from shared.visitor import MAX_PARAMETERS, Visitor
from tests.houses import BROWSER
from tests.shared.entries import ENTRIES

NOW_MS = 1_767_614_400_000
"""2026-01-05T12:00:00Z"""
HOME = "https://example.com/"


def visitor(user_agent: str = BROWSER, address: str = "8.8.8.8", query: str = "", at_ms: int = NOW_MS) -> Visitor:
    return Visitor(address, user_agent, "en", "", query, at_ms)


def entry(**terms: Any) -> Entry:
    return Entry(7, 1, HOME, terms=Terms(**terms))


ON_DESKTOPS = Rule(3, {"device": ["desktop"]}, "https://example.com/desktop")
IN_BRAZIL = Rule(4, {"country": ["BR"], "device": ["desktop"]}, "https://example.com/br")
EVERYWHERE = Rule(5, {"os": ["linux"], "country": ["US"]}, "https://example.com/us")
HALVES = (Variant(6, 1, "https://example.com/a"), Variant(7, 1, "https://example.com/b"))
EVERYTHING = entry(
    state="archived",
    starts_at_ms=NOW_MS + 1,
    expires_at_ms=NOW_MS,
    fallback="https://example.com/instead",
    password_hash="argon2",
    preview=Preview("Spring"),
    rules=(IN_BRAZIL, EVERYWHERE, ON_DESKTOPS),
    variants=(*HALVES, Variant(8, 0, "https://example.com/never")),
)
TWITTER = visitor("Twitterbot/1.0")


def without(**terms: Any) -> Entry:
    return EVERYTHING._replace(terms=EVERYTHING.terms._replace(**terms))


STARTED = {"state": "", "starts_at_ms": NOW_MS}
OPEN = {**STARTED, "expires_at_ms": NOW_MS + 1}
PUBLIC = {**OPEN, "password_hash": ""}


@pytest.mark.parametrize(
    ("link", "who", "decision"),
    [
        (EVERYTHING, visitor(), ("gone", "archived", "https://example.com/instead")),
        (without(state="disabled"), visitor(), ("gone", "disabled", "")),
        (without(state="reported"), visitor(), ("gone", "reported", "")),
        (without(state=""), visitor(), ("not_started", "not_started", "https://example.com/instead")),
        (without(**STARTED), visitor(), ("gone", "expired", "https://example.com/instead")),
        (without(**OPEN), TWITTER, ("password", "password")),
        (without(**PUBLIC), TWITTER, ("preview", "preview")),
        (without(**PUBLIC), visitor(), ("redirect", "rule", "https://example.com/us", 5)),
        (without(**PUBLIC, preview=Preview()), TWITTER, ("redirect", "variant", "https://example.com/a", 0, 6)),
        (without(**PUBLIC, rules=()), visitor("curl/8.5"), ("redirect", "variant", "https://example.com/b", 0, 7)),
        (without(**PUBLIC, rules=(IN_BRAZIL,)), visitor(), ("redirect", "variant", "https://example.com/a", 0, 6)),
        (without(**PUBLIC, rules=(), variants=()), visitor(), ("redirect", "destination", HOME)),
        (Entry(7, 1, HOME), visitor(), ("redirect", "destination", HOME)),
        (entry(variants=(Variant(1, 0, "https://example.com/a"),)), visitor(), ("redirect", "destination", HOME)),
    ],
)
def test_the_first_thing_that_is_to_be_said_of_a_visit_decides(link: Entry, who: Visitor, decision: Any) -> None:
    assert decide(link, who) == Decision(*decision)


def test_a_password_that_was_given_is_not_asked_for_and_a_limit_that_is_reached_ends_a_redirect() -> None:
    link = without(**OPEN)
    assert decide(link, visitor(), has_password_passed=True).reason == "rule"
    assert decide(link, TWITTER, has_password_passed=True).reason == "preview"
    assert used_up(link) == Decision("gone", "used_up", "https://example.com/instead")


@pytest.mark.parametrize(
    ("terms", "destination"),
    [
        ({"expires_at_ms": 0}, "https://host.example/"),
        ({"expires_at_ms": 0, "fallback": "https://link.example/"}, "https://link.example/"),
        ({"starts_at_ms": NOW_MS + 1}, "https://host.example/"),
        ({"state": "archived"}, "https://host.example/"),
        *[({"state": state, "fallback": "https://link.example/"}, "") for state in ("disabled", "reported")],
    ],
)
def test_who_finds_no_link_goes_where_the_link_says_or_the_host_unless_it_was_stopped(
    terms: dict[str, Any], destination: str
) -> None:
    assert decide(entry(**terms), visitor(), host_expired="https://host.example/").destination == destination
    if not terms.get("state"):
        assert used_up(entry(**terms), host_expired="https://host.example/").destination == destination


@given(st.permutations([IN_BRAZIL, EVERYWHERE, ON_DESKTOPS, Rule(9, {"planet": ["earth"]}, HOME)]))
def test_the_first_rule_that_is_met_says_where_to_go(rules: list[Rule]) -> None:
    met = [rule for rule in rules if rule.id in (3, 5)]
    assert decide(entry(rules=tuple(rules), variants=HALVES), visitor()).rule_id == met[0].id


def test_a_visitor_meets_all_conditions_or_none_of_the_rule() -> None:
    assert meets(visitor(), {"country": ["BR", "US"], "device": ["desktop"]})
    assert not meets(visitor(), {"country": ["BR"], "device": ["desktop"]})
    assert not meets(visitor(), {"country": ["US"], "device": ["desktop"], "planet": ["earth"]})


_WHO = st.builds(
    Visitor,
    st.ip_addresses().map(str) | st.text(max_size=9),
    st.sampled_from([BROWSER, "Twitterbot/1.0"]) | st.text(max_size=20),
    st.sampled_from(["", "pt-BR,pt;q=0.9", "de"]),
    st.sampled_from(["", "https://example.com/"]),
    st.sampled_from(["", "a=1", "qr=1"]),
    st.integers(0, 253_402_300_799_999),
)
_INSTANTS = st.none() | st.integers(0, 253_402_300_799_999)
_CONDITIONS = st.dictionaries(
    st.sampled_from(["country", "device", "language", "referrer", "query", "address", "time", "planet"]),
    st.lists(
        st.sampled_from(["DE", "desktop", "bot", "pt", "direct", "example.com", "a=1", "10.0.0.0/8", 7]), max_size=3
    ),
    max_size=2,
)
_LINKS = st.builds(
    lambda link, terms, starts, expires, whens: link._replace(
        terms=terms._replace(
            starts_at_ms=starts,
            expires_at_ms=expires,
            rules=tuple(rule._replace(when=when) for rule, when in zip(terms.rules, whens, strict=False)),
        )
    ),
    ENTRIES,
    ENTRIES.map(lambda link: link.terms._replace(state="", password_hash="")) | ENTRIES.map(lambda link: link.terms),
    _INSTANTS,
    _INSTANTS,
    st.lists(_CONDITIONS, min_size=3, max_size=3),
)


@given(ENTRIES | _LINKS, _WHO, st.booleans(), st.sampled_from(["", "https://host.example/"]))
def test_any_visit_of_any_link_is_decided_always_alike_and_leads_where_the_link_says(
    link: Entry, who: Visitor, has_passed: bool, host_expired: str
) -> None:
    decision = decide(link, who, has_password_passed=has_passed, host_expired=host_expired)
    assert decision == decide(link, who, has_password_passed=has_passed, host_expired=host_expired)
    assert decision.outcome in OUTCOMES and decision.reason in REASONS
    assert decision.is_open is (decision.outcome not in ("gone", "not_started"))
    parts = {(rule.destination, rule.id, 0) for rule in link.terms.rules}
    parts |= {(variant.destination, 0, variant.id) for variant in link.terms.variants}
    if decision.outcome == "redirect":
        assert decision[2:] in {(link.destination, 0, 0), *parts}
    elif decision.outcome in ("gone", "not_started"):
        assert decision[2:] in {(link.terms.fallback, 0, 0), (host_expired, 0, 0), ("", 0, 0)}
    else:
        assert decision[2:] == ("", 0, 0)


@given(_LINKS, _WHO, st.booleans())
def test_what_is_explained_is_what_is_decided(link: Entry, who: Visitor, has_passed: bool) -> None:
    decision = decide(link, who, has_password_passed=has_passed)
    told = list(explained(link, who, decision))
    rules = [line.partition(":")[0] for line in told if line.startswith("Rule ")]
    is_past_the_rules = decision.outcome == "redirect"
    met = (
        [number for number, rule in enumerate(link.terms.rules, 1) if meets(who, rule.when)]
        if is_past_the_rules
        else []
    )
    tried = (met[0] if met else len(link.terms.rules)) if is_past_the_rules else 0
    assert rules == [
        f"Rule {number} is {'met' if met and number == tried else 'not met'}" for number in range(1, tried + 1)
    ]
    assert (decision.reason == "rule") is bool(met)
    assert any(line.startswith("Variant ") for line in told) is (decision.reason == "variant")
    assert any("expired at" in line for line in told) is (decision.reason == "expired")
    assert any("starts at" in line for line in told) is (decision.reason == "not_started")
    assert any(line == f"The link is {decision.reason}." for line in told) is (decision.reason in STATES)
    assert (told[-1] == f"The visitor goes to {decision.destination}") is bool(decision.destination)


def test_an_explanation_names_what_was_compared() -> None:
    link = without(**OPEN, click_limit=10)
    assert list(explained(link, visitor(), used_up(link))) == [
        "The click limit of 10 is reached.",
        "The visitor goes to https://example.com/instead",
    ]
    assert list(explained(link, visitor(), decide(link, visitor(), has_password_passed=True))) == [
        "The link can be followed at 2026-01-05T12:00:00.000Z.",
        "It has a password, which the visitor has given.",
        'Rule 1 is not met: country "US" does not match ["BR"]; device "desktop" matches ["desktop"].',
        'Rule 2 is met: os "linux" matches ["linux"]; country "US" matches ["US"].',
        f"The visitor goes to {link.terms.rules[1].destination}",
    ]
    link = entry(rules=(Rule(1, {"planet": ["earth"]}, HOME),), variants=(Variant(2, 30, HOME), Variant(3, 0, HOME)))
    assert list(explained(link, visitor(), decide(link, visitor()))) == [
        "The link can be followed at 2026-01-05T12:00:00.000Z.",
        "Rule 1 is not met: planet is no condition that is known here.",
        "Variant 2 is this visitor's; it has 30 of 30 parts of the visitors.",
        "The visitor goes to https://example.com/",
    ]


def _drawn(*weights: int, link_id: int = 7) -> list[int]:
    """How often each of these was drawn by 4,000 visitors."""
    variants = tuple(Variant(number, weight, HOME) for number, weight in enumerate(weights, start=1))
    link = Entry(link_id, 1, HOME, terms=Terms(variants=variants))
    drawn = [decide(link, visitor(address=f"10.1.{n // 250}.{n % 250}")).variant_id for n in range(4000)]
    return [drawn.count(number) for number in range(1, len(weights) + 1)]


def test_visitors_are_divided_by_the_weights() -> None:
    for weights in ((1, 1), (50, 30, 20), (1, 0, 9), (0, 5), (10**18, 3 * 10**18)):
        for count, weight in zip(_drawn(*weights), weights, strict=True):
            expected = 4000 * weight / sum(weights)
            assert abs(count - expected) <= 0.05 * 4000 and bool(count) is bool(weight)


@given(st.ip_addresses().map(str), st.text(max_size=30), st.integers(1, 100), st.integers(1, 100))
def test_a_visitor_keeps_a_variant_whatever_else_changes(address: str, agent: str, one: int, other: int) -> None:
    link = entry(variants=(Variant(1, one, HOME), Variant(2, other, HOME)))
    first = decide(link, visitor(agent, address))
    assert first == decide(
        link._replace(destination="https://example.org/"), visitor(agent, address, "a=1", NOW_MS + 1)
    )
    more = link._replace(terms=link.terms._replace(variants=(Variant(1, one + 9, HOME), Variant(2, other, HOME))))
    if first.variant_id == 1:
        assert decide(more, visitor(agent, address)).variant_id == 1


def test_a_variant_depends_on_the_link_the_address_and_the_agent() -> None:
    link = entry(variants=HALVES)
    links = {decide(link._replace(link_id=number), visitor()).variant_id for number in range(50)}
    addresses = {decide(link, visitor(address=f"10.0.0.{number}")).variant_id for number in range(50)}
    agents = {decide(link, visitor(f"{BROWSER}/{number}")).variant_id for number in range(50)}
    assert links == addresses == agents == {6, 7}


@pytest.mark.parametrize(
    ("destination", "query", "policy", "result"),
    [
        (HOME, "a=1", "none", HOME),
        (HOME, "", "append", HOME),
        (HOME, "a=1&b", "append", "https://example.com/?a=1&b"),
        ("https://example.com/?a=0#top", "a=1", "append", "https://example.com/?a=0&a=1#top"),
        ("https://example.com/?a=0&b=2&%61=3#top", "a=1", "override", "https://example.com/?b=2&a=1#top"),
        ("https://example.com/?a=0", "%61=1", "override", "https://example.com/?%61=1"),
        ("https://example.com/?a+b=0&c", "a%20b=1", "override", "https://example.com/?c&a%20b=1"),
        ("https://example.com/#?a=0", "a=1", "override", "https://example.com/?a=1#?a=0"),
        ("https://example.com/?", "a=1", "append", "https://example.com/?a=1"),
        ("https://example.com/?qr=own", "qr=1&q=r&%71r=2", "override", "https://example.com/?qr=own&q=r"),
        (HOME, "qr=1", "append", HOME),
        (HOME, "&&a=1&", "append", "https://example.com/?a=1"),
        (HOME, "a=ü \r\n<#\"'&b=%C3%bc+%", "append", "https://example.com/?a=%C3%BC%20%0D%0A%3C%23%22%27&b=%C3%bc+%"),
        (HOME, "u=https://a.b/?c&d=@[1]", "append", "https://example.com/?u=https://a.b/?c&d=@%5B1%5D"),
        (HOME, "a=" + "x" * 4073, "append", "https://example.com/?a=" + "x" * 4073),
        (HOME, "a=" + "x" * 4074, "append", HOME),
        (HOME, "a=" + "ü" * 1000, "append", HOME),
        (HOME, "&".join("a" * MAX_PARAMETERS), "append", HOME + "?" + "&".join("a" * MAX_PARAMETERS)),
        (HOME, "&".join("a" * (MAX_PARAMETERS + 1)), "append", HOME),
    ],
)
def test_what_becomes_of_the_parameters_of_a_visitor(destination: str, query: str, policy: str, result: str) -> None:
    assert with_query(destination, query, policy) == result
    assert len(result) <= MAX_DESTINATION_LENGTH


@pytest.mark.parametrize(
    ("destination", "query", "policy", "result"),
    [
        (HOME, "a=1", "none", "https://example.com/?cid=id-1"),
        ("https://example.com/?cid=0&a=0", "a=1", "append", "https://example.com/?a=0&a=1&cid=id-1"),
        ("https://example.com/?cid=0", "cid=forged&%63id=forged", "append", "https://example.com/?cid=id-1"),
        ("https://example.com/#top", "cid=forged&a", "override", "https://example.com/?a&cid=id-1#top"),
    ],
)
def test_the_id_of_a_click_is_ours_to_say(destination: str, query: str, policy: str, result: str) -> None:
    assert with_query(destination, query, policy, "cid", "id-1") == result


_PAIRS = st.lists(st.tuples(st.text(max_size=4), st.text(max_size=6)), max_size=4)
_URLS = st.sampled_from(
    [HOME, "https://example.com", "http://127.0.0.1:8080/a;b/%2F?x=1&y=%C3%BC#f?g#h", "https://a.b/?"]
)


@given(
    _URLS,
    st.text(max_size=40) | st.text("ab=&#?/\\@:%+ ü\r\n\x00", max_size=40),
    st.sampled_from(["none", "append", "override"]),
    st.sampled_from(["", "cid"]),
)
@example(HOME, "\ud800", "append", "")
def test_no_visitor_changes_where_a_destination_leads(url: str, query: str, policy: str, parameter: str) -> None:
    destination = str(can_ada.parse(url).href)
    result = with_query(destination, query, policy, parameter, "id")
    assert result.isascii() and result.isprintable() and " " not in result
    before, after = can_ada.parse(destination), can_ada.parse(result)
    assert after.href == result
    for part in ("protocol", "username", "password", "host", "pathname", "hash"):
        assert getattr(after, part) == getattr(before, part), part
    if policy != "override":
        assert after.search.startswith(before.search.removesuffix("?"))
    assert (policy == "none" and not parameter) <= (result == destination)


@given(_PAIRS, _PAIRS.filter(lambda pairs: "qr" not in dict(pairs)))
def test_appended_parameters_come_last_and_overriding_ones_alone(own: Any, sent: Any) -> None:
    destination = f"{HOME}?{urlencode(own)}" if own else HOME
    appended = with_query(destination, urlencode(sent), "append")
    overridden = with_query(destination, urlencode(sent), "override")
    names = {name for name, _ in sent}
    assert parse_qsl(urlsplit(appended).query, keep_blank_values=True) == own + sent
    assert (
        parse_qsl(urlsplit(overridden).query, keep_blank_values=True)
        == [pair for pair in own if pair[0] not in names] + sent
    )


@pytest.mark.parametrize(
    ("destination", "utm", "result"),
    [
        (HOME, {}, HOME),
        (HOME, {"source": None, "medium": "", "color": "red"}, HOME),
        (
            "https://example.com/?utm_source=old&a=1&utm_term=kept#top",
            {"campaign": "spring & summer", "source": "ü"},
            "https://example.com/?a=1&utm_term=kept&utm_source=%C3%BC&utm_campaign=spring%20%26%20summer#top",
        ),
    ],
)
def test_utm_parameters_take_the_place_of_those_of_the_destination(
    destination: str, utm: dict[str, str | None], result: str
) -> None:
    assert with_utm(destination, utm) == result
    assert with_utm(result, utm) == result
