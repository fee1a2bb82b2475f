"""Conditions: when each holds, what is written for its values, and that nothing else ever holds."""

import time
from ipaddress import IPv4Address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.conditions import CONDITIONS, holds
from shared.rules import MAX_VALUES, MAX_WINDOWS, BadRule, Violation, meets, normal_when
from shared.visitor import BROWSERS, DEVICES, SYSTEMS, Visitor
from tests.houses import BROWSER

VISITOR = Visitor(
    "8.8.8.8",
    BROWSER,
    "pt-BR,pt;q=0.9,en;q=0.8",
    "https://m.facebook.com/somewhere",
    "a=1&b=%C3%BC+x&a=2&c",
    1_767_614_400_000,  # Monday, 2026-01-05T12:00:00Z
)
NOT_MET: dict[str, Any] = {
    "country": "AQ",
    "device": "tv",
    "os": "ios",
    "browser": "uc",
    "language": "tlh",
    "query": "zzz",
    "referrer": "example.org",
    "address": "192.0.2.1",
    "time": {"days": "wed"},
}
NOBODY = Visitor("", "", "", "", "", 0)


@pytest.mark.parametrize(
    ("name", "value", "is_met"),
    [
        ("country", "US", True),
        ("country", "CA", False),
        ("device", "desktop", True),
        ("device", "bot", False),
        ("os", "linux", True),
        ("os", "android", False),
        ("browser", "chrome", True),
        ("browser", "edge", False),
        ("language", "pt", True),
        ("language", "pt-BR", True),
        ("language", "pt-PT", False),
        ("language", "p", False),
        pytest.param("language", "en", False, id="a language that would do if need be"),
        ("query", "a", True),
        ("query", "c", True),
        ("query", "d", False),
        ("query", "a=1", True),
        ("query", "a=2", True),
        ("query", "a=", False),
        ("query", "c=", True),
        ("query", "b=ü x", True),
        ("query", "A", False),
        ("referrer", "facebook.com", True),
        ("referrer", "m.facebook.com", True),
        ("referrer", "l.facebook.com", False),
        ("referrer", "book.com", False),
        ("referrer", "com", True),
        ("referrer", "direct", False),
        ("address", "8.8.8.8", True),
        ("address", "8.8.0.0/16", True),
        ("address", "::ffff:8.8.0.0/112", True),
        ("address", "8.8.8.9", False),
        ("address", "::/0", False),
        ("time", {"days": ["mon"]}, True),
        ("time", {"days": ["tue"]}, False),
        ("time", {"from": "22:00", "until": "06:00", "zone": "Pacific/Auckland"}, True),
    ],
)
def test_when_a_condition_holds(name: str, value: Any, is_met: bool) -> None:
    normal = normal_when({name: value})[name]
    assert holds(VISITOR, name, normal) is is_met
    others = normal_when(NOT_MET)[name]
    assert not holds(VISITOR, name, others)
    assert holds(VISITOR, name, [*others, *normal]) is is_met  # one value is enough


def test_who_comes_from_nowhere_comes_directly_and_has_no_address() -> None:
    assert holds(NOBODY, "referrer", ["direct"])
    assert not holds(NOBODY, "referrer", ["example.com", ""])
    assert not holds(NOBODY, "address", ["0.0.0.0/0", "::/0"])
    assert not holds(NOBODY, "language", ["", "pt"])
    assert not holds(Visitor("", "", "", "https://www.direct/", "", 0), "referrer", ["direct"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(sorted(CONDITIONS))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("planet", ["earth"]),
        ("device", "desktop"),
        ("device", {"desktop": 1}),
        ("device", []),
        ("language", [None]),
        ("address", ["8.8.8.8/8/8", 8]),
        ("address", [0x08080808]),
        ("address", ["8.8.8.8/33"]),
        ("address", ["8.8.8.8", "8.8.8"]),
        ("address", [["8.8.8.8"]]),
        ("language", [["pt"]]),
        ("time", ["always", 7]),
        ("time", [{"from": "00:00", "zone": "Middle/Earth"}]),
        ("time", [{"after": "soon"}]),
    ],
)
def test_a_condition_that_is_unknown_or_can_not_be_read_never_holds(name: str, values: Any) -> None:
    assert not holds(VISITOR, name, values)


_NEAR = st.integers(0x0808_0000, 0x0808_FFFF).map(IPv4Address)


@given(_NEAR | st.ip_addresses(), st.lists(st.tuples(_NEAR | st.ip_addresses(), st.integers(8, 128)), min_size=1))
def test_an_address_is_within_the_ranges_that_it_is_in(address: Any, ranges: list[tuple[Any, int]]) -> None:
    networks = [ip_network(f"{begin}/{min(bits, begin.max_prefixlen)}", strict=False) for begin, bits in ranges]
    texts = normal_when({"address": [str(network) for network in networks[:MAX_VALUES]]})["address"]
    who = Visitor(str(address), "", "", "", "", 0)
    assert holds(who, "address", texts) is any(who.ip in ip_network(text) for text in texts if who.ip)


@pytest.mark.parametrize("name", ["address", "language", "query", "referrer"])
def test_as_many_rules_as_a_link_may_have_cost_a_visit_next_to_nothing(name: str) -> None:
    written = {"address": "10.{}.{}.0/24", "language": "qa{}-x{}", "query": "a{}=b{}", "referrer": "a{}.b{}.example"}
    whens = [{name: [written[name].format(rule, number) for number in range(MAX_VALUES)]} for rule in range(50)]
    languages = ",".join(f"{one}{two}" for one in "abcdefgh" for two in "abcdefghi")
    who = Visitor("8.8.8.8", BROWSER, languages, "https://a.b.c.example/", "a=1&" * 50, 0)
    took_s = []
    for _ in range(10):
        began_at_s = time.thread_time()
        assert not any(meets(who, when) for when in whens)
        took_s.append(time.thread_time() - began_at_s)
    assert took_s[0] < 0.03  # for the first, who finds nothing remembered
    assert min(took_s) < 0.003


def test_no_window_is_open_where_the_calendar_ends() -> None:
    last = Visitor("", "", "", "", "", 253_402_300_799_999)
    assert not holds(last, "time", [{"from": "00:00", "zone": "Pacific/Auckland"}])
    assert holds(last, "time", [{"from": "00:00", "zone": "UTC"}])


@given(NAMES | st.text(), JSON)
def test_any_condition_with_any_values_holds_or_does_not(name: str, values: Any) -> None:
    assert holds(VISITOR, name, values) in (True, False)


@pytest.mark.parametrize(
    ("sent", "normal"),
    [
        ({}, {}),
        ({"country": "br"}, {"country": ["BR"]}),
        ({"country": [" de", "DE", "at"]}, {"country": ["DE", "AT"]}),
        ({"device": "Mobile", "os": ["iOS"]}, {"device": ["mobile"], "os": ["ios"]}),
        ({"language": ["PT-br", "zh_hant_tw"]}, {"language": ["pt-BR", "zh-Hant-TW"]}),
        ({"query": [" a ", "a=", "A=%20"]}, {"query": [" a ", "a=", "A=%20"]}),
        ({"referrer": ["", "DIRECT", "Bücher.example."]}, {"referrer": ["direct", "xn--bcher-kva.example"]}),
        (
            {"address": ["192.0.2.7/24", "192.0.2.1/32", "2001:DB8::1", "::ffff:192.0.2.0/120", "::/0"]},
            {"address": ["192.0.2.0/24", "192.0.2.1", "2001:db8::1", "::/0"]},
        ),
        ({"time": {"from": "9:00"}}, {"time": [{"from": "09:00", "zone": "UTC"}]}),
    ],
)
def test_the_normal_form_of_conditions(sent: dict[str, Any], normal: dict[str, Any]) -> None:
    assert normal_when(sent) == normal


@pytest.mark.parametrize(
    ("sent", "wrong"),
    [
        ({"planet": "earth"}, [("planet", "no such condition; there are country")]),
        ({"device": []}, [("device", f"1 to {MAX_VALUES} values")]),
        ({"country": ["AT"] * (MAX_VALUES + 1)}, [("country", f"1 to {MAX_VALUES} values")]),
        ({"time": [{"from": "09:00"}] * (MAX_WINDOWS + 1)}, [("time", f"1 to {MAX_WINDOWS} values")]),
        (
            {"country": ["UK", "D", 49, "DE"], "device": ["phone"], "os": None, "browser": "netscape"},
            [
                ("country", '"UK" is no country'),
                ("country", '"D" is no country'),
                ("country", "49 is no text"),
                ("device", '"phone" is none of mobile, tablet'),
                ("os", "null is no text"),
                ("browser", "none of chrome"),
            ],
        ),
        ({"language": ["*", "", "pt BR"]}, [("language", "such as pt")] * 3),
        ({"query": ["", "=1", 7]}, [("query", "no parameter")] * 3),
        ({"query": ["a" * 201, "a=\x00"]}, [("query", "may have 200"), ("query", "control characters")]),
        ({"referrer": ["*.example.com", "https://example.com/"]}, [("referrer", "hostname")] * 2),
        ({"address": ["10.0.0.0/33", "example.com"]}, [("address", "no address")] * 2),
        (
            {"time": [{"from": "9", "until": "25:00"}, "noon"]},
            [("time", "from"), ("time", "until"), ("time", "object")],
        ),
    ],
)
def test_all_that_is_wrong_with_conditions_is_said_at_once(sent: dict[str, Any], wrong: list[tuple[str, str]]) -> None:
    with pytest.raises(BadRule) as raised:
        normal_when(sent)
    for violation, (condition, part) in zip(raised.value.violations, wrong, strict=True):
        assert isinstance(violation, Violation) and violation.condition == condition
        assert part in violation.message and violation.message.endswith(".")
        assert f"{condition}: {violation.message}" in str(raised.value)


_VALUES = {
    "country": st.sampled_from(["de", "DE", "at", "XX"]),
    "device": st.sampled_from([*DEVICES, "TV "]),
    "os": st.sampled_from([*SYSTEMS, "iOS"]),
    "browser": st.sampled_from([*BROWSERS, "Chrome"]),
    "language": st.from_regex(r"[a-zA-Z]{1,9}([-_][a-zA-Z0-9]{1,8}){0,3}", fullmatch=True),
    "query": st.text(max_size=10),
    "referrer": st.from_regex(r"[a-zA-ZüÜß.]{0,10}(:80)?", fullmatch=True),
    "address": st.ip_addresses().map(str)
    | st.tuples(st.ip_addresses(), st.integers(0, 128)).map("{0[0]}/{0[1]}".format),
    "time": st.fixed_dictionaries({"from": st.sampled_from(["9:00", "09:00"])}),
}


@given(NAMES.flatmap(lambda name: st.tuples(st.just(name), _VALUES[name] | st.lists(_VALUES[name]) | JSON)))
def test_whatever_is_sent_has_a_normal_form_that_is_its_own_or_is_refused(sent: tuple[str, Any]) -> None:
    name, value = sent
    try:
        normal = normal_when({name: value})
    except BadRule as error:
        assert error.violations
        return
    assert normal_when(normal) == normal
    [values] = normal.values()
    assert values and all(values.count(each) == 1 for each in values)
