"""The two ways of a visit, protocol.py and redirect.py: the same bytes get the same answer and leave the same click."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.clicks import Click
from shared.entries import Entry, Rule, Terms
from shared.links import Address, Published
from shared.redis import Redis
from tests.conftest import Servers
from tests.edge.publishing import PROMO, Publisher
from tests.edge.servers import RunningEdge, cut, get, running_edge
from tests.shared.waiting import until

UNUSUAL = Address("go.example", "/Gr%C3%BC%C3%9Fe%2Fa")
LONG = Address("go.example", "/" + "x" * 2000)
_TO = "https://example.com/{}?a=b%20c"
LINKS = {
    PROMO: Entry(1, 3, _TO.format(1)),
    UNUSUAL: Entry(2, 3, _TO.format(2)),
    LONG: Entry(3, 3, _TO.format(3)),
    Address("go.example", "/moved"): Entry(4, 3, _TO.format(4), 301, 60, "noindex"),
    Address("go.example", "/ruled"): Entry(5, 3, _TO.format(5), terms=Terms(rules=(Rule(1, {"query": ["x"]}, _TO),))),
}


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


class Ways(NamedTuple):
    fast: RunningEdge
    slow: RunningEdge


@pytest.fixture
async def ways(servers: Servers, redis: Redis, tmp_path: Path) -> AsyncIterator[Ways]:
    """Two workers that remember the same links; one of them has only the way through redirect.py."""
    publisher = Publisher(redis)
    await publisher.complete()
    for address, entry in LINKS.items():
        await publisher.put(address, Published(1, entry))
    async with (
        running_edge(servers.redis_url, tmp_path / "fast") as fast,
        running_edge(servers.redis_url, tmp_path / "slow", fast=False) as slow,
    ):
        for edge in (fast, slow):
            await until_ready(edge)
            for address in LINKS:
                await edge.say(get(address.path))
            edge.new_clicks()
        yield Ways(fast, slow)


async def until_ready(edge: RunningEdge) -> None:
    async def is_ready() -> bool:
        return b" 200 " in await edge.say(get("/readyz"))

    await until(is_ready)


def timeless(clicks: list[Click]) -> list[Click]:
    return [click._replace(at_ms=0) for click in clicks]


# What clients send, and what they should not.

_TARGETS = st.sampled_from(
    [
        "/promo",
        "/promo?utm_source=x&y=%20",
        "/promo?",
        "/promo?a?b#c",
        "/promo#top",
        "/promo/",
        "/promo//",
        "//promo",
        "/Promo",
        "/%70romo",
        "/pro%6Do?x",
        "/./promo",
        "/x/../promo",
        "/promo%00",
        "/promo%2",
        "/promo\\",
        "/pro mo",
        "/pro\tmo",
        "/promo\x7f",
        UNUSUAL.path,
        UNUSUAL.path.lower(),
        "/Grüße/a",
        LONG.path,
        LONG.path + "x",
        "/" + "y" * 20_000,
        "/",
        "",
        "*",
        "/readyz",
        "/nothing",
        "/moved",
        "/moved?qr=1",
        "/moved/",
        "/ruled",
        "/ruled?x",
        "/promo+",
        "http://go.example/promo",
        "HTTP://go.example:80/promo?x",
        "http://other.example/promo",
        "http://go.example",
        "http://user@go.example/promo",
        "https://go.example/promo",
        "ftp://go.example/promo",
        "go.example:443",
    ]
)
_HOSTS = st.sampled_from(
    [
        "go.example",
        "GO.Example",
        "go.example:80",
        "go.example:",
        "go.example:99999999",
        "go.example.",
        "other.example",
        "",
        "go..example",
        "[::1]",
        "xn--mnchen-3ya.example",
        "go.example, go.example",
        "gö.example",
    ]
)
_SPACE = st.sampled_from(["", " ", "  ", "\t", " \t "])
_OTHER_LINES = st.sampled_from(
    [
        "User-Agent: Mozilla/5.0 (X11)",
        "user-agent:curl/8",
        "USER-AGENT: \xff\xfe",
        "Referer: https://news.example/a?b=c",
        "referer:",
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-For: 1.1.1.1, 2001:db8::1",
        "X-Forwarded-Host: evil.example",
        "Cookie: session=secret; host: evil.example",
        "Connection: keep-alive",
        "Connection: close",
        "Connection: foo, Close",
        "Connection: upgrade",
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Expect: 100-continue",
        "Content-Length: 0",
        "Content-Length: 4",
        "Content-Length: -1",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Range: bytes=0-1",
        "If-None-Match: *",
        "If-Modified-Since: Sat, 21 Nov 2026 12:00:00 GMT",
        "X: " + "x" * 9000,
        "X-Host: host: evil.example",
        "No colon here",
        "Bad Name: x",
        "Space-Before : x",
        " folded",
        "Control: a\x01b",
        "Nul: a\0b",
        "Bare: a\rb",
        "Line: a\nhost: evil.example",
        "",
    ]
)


_METHODS = st.sampled_from(["HEAD", "POST", "get", "OPTIONS", "CONNECT", "G\xcbT"])
_VERSIONS = st.sampled_from(["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", ""])
_HOST_LINES = st.builds("{}:{}{}{}".format, st.sampled_from(["Host", "host", "HOST", "hOsT"]), _SPACE, _HOSTS, _SPACE)
_GOOD_HOST = st.builds("{}:{}go.example{}".format, st.sampled_from(["Host", "host", "hOsT"]), _SPACE, _SPACE)
_BODIES = st.sampled_from(["body", "\r\n\r\n", "\r\nHost: go.example\r\n\r\n", "0\r\n\r\n", "\r\n", "\n"])
_PARTS = ["method", "target", "version", "host", "two hosts", "no host", "line", "another line", "body"]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """What a browser sends, with some of its parts replaced by what may confuse one of the two ways."""
    odd = draw(st.sets(st.sampled_from(_PARTS), max_size=3))
    hosts = [draw(_HOST_LINES if "host" in odd else _GOOD_HOST)]
    hosts = [] if "no host" in odd else [*hosts, draw(_GOOD_HOST)] if "two hosts" in odd else hosts
    others = [draw(_OTHER_LINES) for part in ("line", "another line") if part in odd]
    lines = draw(st.permutations([*hosts, "User-Agent: Mozilla/5.0 (X11)", "Accept: */*", *others]))
    method = draw(_METHODS) if "method" in odd else "GET"
    target = draw(_TARGETS) if "target" in odd else "/promo"
    version = draw(_VERSIONS) if "version" in odd else "HTTP/1.1"
    body = draw(_BODIES) if "body" in odd else ""
    return "\r\n".join([f"{method} {target} {version}", *lines, "", body]).encode("latin-1", "replace")


def _get(*lines: str, target: str = "/promo", body: str = "") -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", body]).encode()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.lists(requests(), min_size=1, max_size=3),
    places=st.lists(st.integers(0, 100_000), max_size=3),
    noise=st.one_of(st.none(), st.tuples(st.integers(0, 100_000), st.binary(min_size=1, max_size=3))),
)
@example(messages=[get("/promo")] * 3, places=[len(get("/promo"))], noise=None)
@example(messages=[get("/nothing"), get("/promo"), get("/promo")], places=[len(get("/nothing"))], noise=None)
@example(messages=[get("/promo") + b"\r\n\r\n", get("/promo")], places=[], noise=None)
@example(messages=[_get("Host: go.example", "hoST: go.example")], places=[], noise=None)
@example(messages=[_get("Host: go.example", target="/promo#top")], places=[], noise=None)
@example(messages=[_get("Host: other.example", target="http://go.example/promo")], places=[], noise=None)
@example(messages=[_get("Content-Length: 20", body="\r\nHost: go.example\r\n\r\n")], places=[], noise=None)
@example(messages=[_get("Host: go.example", "Connection: foo, Close"), get()], places=[], noise=None)
@example(messages=[_get("Host: go.example", "Content-Length: 9"), get()], places=[38], noise=None)
async def test_the_same_bytes_get_the_same_answers_and_leave_the_same_clicks(
    ways: Ways, messages: list[bytes], places: list[int], noise: tuple[int, bytes] | None
) -> None:
    data = b"".join(messages)
    if noise is not None:
        place = noise[0] % (len(data) + 1)
        data = data[:place] + noise[1] + data[place:]
    chunks = cut(data, places)
    answers = [await edge.say(*chunks) for edge in ways]
    assert answers[0] == answers[1]
    clicks = [timeless(edge.new_clicks()) for edge in ways]
    assert clicks[0] == clicks[1]


async def test_an_ordinary_visit_takes_the_fast_way_and_is_answered_the_same(ways: Ways) -> None:
    tally = ways.fast.worker.tally
    before = tally.hot
    answers = [await edge.say(get("/promo?x=1"), get("/promo")) for edge in ways]
    assert answers[0] == answers[1]
    assert answers[0].startswith(
        b"HTTP/1.1 302 Found\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\nlocation: https://example.com/1?a=b%20c\r\n"
    )
    assert tally.hot - before == 2
    answers = [await edge.say(get("/moved")) for edge in ways]
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 301 Moved Permanently\r\n")
    assert tally.hot - before == 3
    answers = [await edge.say(get("/ruled")) for edge in ways]
    assert answers[0] == answers[1]
    assert tally.hot - before == 3
    assert timeless(ways.fast.new_clicks()) == timeless(ways.slow.new_clicks())
