"""Heads: what of a request becomes a click, and that nothing else leaves this machine."""

import random
import sys
from typing import NamedTuple

import httptools
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.heads import click_bytes, click_of
from edge.segments import Record, link_bytes, peer_bytes
from shared.addresses import Proxies, networks
from shared.clicks import MAX_REFERRER, MAX_USER_AGENT, Click

PROXIES = Proxies(networks("127.0.0.0/8, 10.0.0.0/8"))
AT_NS = 1_700_000_000_123_456_789
SECRET = b"s3cr3t"


class Header(NamedTuple):
    name: bytes
    value: bytes


def head(*headers: tuple[bytes, bytes], line: bytes = b"GET /x HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *(name + b": " + value for name, value in headers), b"", b""])


def record(head: bytes, peer: str = "203.0.113.7") -> bytes:
    return AT_NS.to_bytes(8, sys.byteorder) + link_bytes(7, 3) + peer_bytes(peer) + head


def click(head: bytes, peer: str = "203.0.113.7") -> Click:
    """What ingest reads of a visit with this head."""
    return Click.from_bytes(click_bytes(record(head, peer), PROXIES))


# What becomes a click.


def test_a_click_is_what_matters_of_a_record() -> None:
    browser = (
        b"GET /sale?to=you HTTP/1.1\r\nHost: go.example\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n"
        b"Referer: https://news.example/?a=b\r\nCookie: a=b\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n"
    )
    assert click(browser, "127.0.0.1") == Click(
        1_700_000_000_123, 7, 3, "GET", "198.51.100.7", "Mozilla/5.0", "https://news.example/?a=b"
    )


@pytest.mark.parametrize(
    ("line", "method"),
    [
        pytest.param(b"GET / HTTP/1.1", "GET", id="a GET"),
        pytest.param(b"HEAD / HTTP/1.1", "HEAD", id="a HEAD"),
        pytest.param(b"GET /Referer:x?User-Agent:y HTTP/1.0", "GET", id="a target like a header"),
    ],
)
def test_a_request_without_headers_is_a_click_too(line: bytes, method: str) -> None:
    assert click(head(line=line)) == Click(1_700_000_000_123, 7, 3, method, "203.0.113.7", "", "")


@pytest.mark.parametrize(
    ("target", "is_scan"),
    [
        (b"/sale?qr=1", True),
        (b"/sale?a=b&qr=1", True),
        (b"/sale?qr=1&a=b", True),
        (b"http://go.example/sale?qr=1", True),
        (b"/sale?qr=1#top", True),
        (b"/sale", False),
        (b"/sale?qr=10", False),
        (b"/sale?qr=0", False),
        (b"/sale?xqr=1", False),
        (b"/qr=1", False),
        (b"/sale#?qr=1", False),
    ],
)
def test_what_comes_from_a_qr_code_is_told_by_its_query(target: bytes, is_scan: bool) -> None:
    assert click(head(line=b"GET %s HTTP/1.1" % target)).is_scan is is_scan


@pytest.mark.parametrize(
    ("lines", "user_agent"),
    [
        pytest.param(b"User-Agent: Mozilla/5.0", "Mozilla/5.0", id="as browsers write it"),
        pytest.param(b"USER-AGENT:Mozilla/5.0", "Mozilla/5.0", id="in capitals and without a space"),
        pytest.param(b"user-agent: \t Mozilla/5.0 \t", "Mozilla/5.0", id="white space around it"),
        pytest.param(b"user-agent: one\r\nUser-Agent: two", "one", id="twice: the first"),
        pytest.param(b"user-agent:\r\nUser-Agent: two", "", id="empty and once more: the first"),
        pytest.param(b"User-Agent:", "", id="empty"),
        pytest.param(b"X-User-Agent: a\r\nUser-Agent-X: b", "", id="names that only contain it"),
        pytest.param(b"X: user-agent: a", "", id="in the value of another one"),
        pytest.param("User-Agent: Grüße".encode(), "Grüße", id="UTF-8"),
        pytest.param(b"User-Agent: Gr\xfc\xdfe", "Gr��e", id="no UTF-8"),
        pytest.param(b"User-Agent: a\xc3", "a�", id="half a letter"),
        pytest.param(b"User-Agent: " + b"x" * 600, "x" * MAX_USER_AGENT, id="too long"),
        pytest.param(b"User-Agent: " + "ü".encode() * 600, "ü" * MAX_USER_AGENT, id="too long in UTF-8"),
        pytest.param(b'User-Agent: "\\', '"\\', id="what JSON must escape"),
    ],
)
def test_the_agent_of_a_click(lines: bytes, user_agent: str) -> None:
    request = b"GET /x HTTP/1.1\r\nHost: go.example\r\n" + lines + b"\r\nAccept: */*\r\n\r\n"
    assert click(request).user_agent == user_agent


def test_a_long_referrer_is_cut() -> None:
    assert click(head((b"Referer", b"x" * 3000))).referrer == "x" * MAX_REFERRER


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        pytest.param("203.0.113.7", [], "203.0.113.7", id="nobody in between"),
        pytest.param("203.0.113.7", [b"198.51.100.1"], "203.0.113.7", id="a stranger is not believed"),
        pytest.param("127.0.0.1", [b"198.51.100.1"], "198.51.100.1", id="a trusted proxy is"),
        pytest.param("127.0.0.1", [b"1.1.1.1", b"198.51.100.1"], "198.51.100.1", id="of several headers the last"),
        pytest.param("127.0.0.1", [b"1.1.1.1", b"198.51.100.1", b"10.0.0.2"], "198.51.100.1", id="a header of each"),
        pytest.param("127.0.0.1", [b"198.51.100.1, 10.0.0.3", b"10.0.0.2"], "198.51.100.1", id="a list and a header"),
        pytest.param("127.0.0.1", [b"198.51.100.1", b""], "127.0.0.1", id="an empty one is no address"),
        pytest.param("127.0.0.1", [b"\xff"], "127.0.0.1", id="bytes that are no text"),
        pytest.param("127.0.0.1", [], "127.0.0.1", id="a trusted proxy that says nothing"),
        pytest.param("", [b"198.51.100.1"], "", id="a unix socket"),
    ],
)
def test_the_address_of_a_click(peer: str, forwarded_for: list[bytes], address: str) -> None:
    headers = [(name, value) for value in forwarded_for for name in (b"X-Forwarded-For", b"X-Other")]
    assert click(head(*headers), peer).address == address


_TOKENS = st.from_regex(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True)
_NAMES = _TOKENS | st.sampled_from(
    [b"User-Agent", b"Referer", b"X-Forwarded-For", b"Cookie", b"Authorization", b"Proxy-Authorization", b"Host"]
)
_ACCEPTED = bytes(letter if letter == 9 or (letter >= 32 and letter != 127) else 46 for letter in range(256))
"""A value may hold any byte but control characters; a tab is none."""
_VALUES = st.binary(max_size=30).map(lambda value: value.translate(_ACCEPTED))


@st.composite
def _spelled(draw: st.DrawFn, names: st.SearchStrategy[bytes] = _NAMES) -> Header:
    """A header whose name is in any case."""
    name = draw(names)
    spelling = random.Random(draw(st.integers(0, 2**32)))
    return Header(bytes(spelling.choice((letter, ord(chr(letter).swapcase()))) for letter in name), draw(_VALUES))


_HEADERS = st.lists(_spelled(), max_size=10)


def first(headers: list[Header], name: bytes) -> str:
    return next((value for found, value in headers if found.lower() == name), b"").strip().decode("utf-8", "replace")


@given(headers=_HEADERS, peer=st.sampled_from(["203.0.113.7", "127.0.0.1", "10.0.0.1", "::1", ""]))
def test_case_order_and_repetition_of_headers_change_nothing_but_which_one_is_first(
    headers: list[Header], peer: str
) -> None:
    forwarded_for = b",".join(value for name, value in headers if name.lower() == b"x-forwarded-for")
    assert click(head(*headers), peer) == Click(
        AT_NS // 1_000_000,
        7,
        3,
        "GET",
        PROXIES.client_of(peer, forwarded_for.decode("latin-1")),
        first(headers, b"user-agent"),
        first(headers, b"referer"),
    )


class _Parsed:
    """What uvicorn's parser makes of a head."""

    def __init__(self, head: bytes) -> None:
        self.headers: list[Header] = []
        self.is_complete = False
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append(Header(name, value))

    def on_message_complete(self) -> None:
        self.is_complete = True


_ODD = st.sampled_from([b"\n", b"\r", b"\r\n", b"\r\n ", b"\r\n\t", b"\n\n", b" :", b" ", b"\0", b"\x0b", b"\x7f", b""])


@given(headers=_HEADERS, odd=_ODD, at=st.integers(len(b"GET /"), 200))
@example(headers=[Header(b"User-Agent", b"v")], odd=b"\nCookie: a", at=30)
@example(headers=[Header(b"User-Agent", b"v")], odd=b"\r\n Cookie: a", at=30)
@example(headers=[Header(b"User-Agent", b"v")], odd=b" ", at=27)
def test_a_head_that_the_parser_accepts_is_understood_as_the_parser_understands_it(
    headers: list[Header], odd: bytes, at: int
) -> None:
    """So nothing hides in it where it is read in another way here: no bare newline, no folded line, no odd name."""
    whole = head(*headers)
    at = min(at, len(whole) - 4)
    request = whole[:at] + odd + whole[at:]
    parsed = _Parsed(request)
    # What comes behind an empty line is another request.
    if parsed.is_complete and request.find(b"\r\n\r\n") == len(request) - 4:
        found = click(request)
        assert found.user_agent == first(parsed.headers, b"user-agent")
        assert found.referrer == first(parsed.headers, b"referer")


# What does not leave this machine.

_SECRET_NAMES = st.sampled_from([b"Cookie", b"Authorization", b"Proxy-Authorization", b"X-Api-Key", b"Set-Cookie"])


@st.composite
def _with_secrets(draw: st.DrawFn) -> bytes:
    """A head with secrets in it."""
    secrets = [
        Header(name, draw(st.sampled_from([b"", b"a=b; ", b"Bearer ", b" "])) + SECRET + draw(_VALUES))
        for name, _ in draw(st.lists(_spelled(_SECRET_NAMES), min_size=1, max_size=3))
    ]
    return head(*draw(st.permutations([*draw(_HEADERS), *secrets])))


@given(head=_with_secrets(), peer=st.sampled_from(["203.0.113.7", "127.0.0.1"]))
def test_cookies_and_credentials_are_in_no_click(head: bytes, peer: str) -> None:
    assert SECRET not in click_bytes(record(head, peer), PROXIES)


@given(head=_with_secrets(), cut=st.integers(0, 400), hole=st.tuples(st.integers(0, 400), st.integers(1, 400)))
def test_cookies_and_credentials_are_not_in_what_a_loss_of_power_has_left_of_a_record(
    head: bytes, cut: int, hole: tuple[int, int]
) -> None:
    """It leaves zeros where a page was not written, also in the middle; and an end where the segment has one."""
    whole = record(head)
    begin, length = hole
    with_hole = whole[:begin] + bytes(length) + whole[begin + length :]
    for torn in (whole[:cut], with_hole[: len(whole)]):
        assert SECRET not in click_bytes(torn, PROXIES)


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(24), id="a byte too short"),
        pytest.param(record(b""), id="no head"),
        pytest.param(bytes(300), id="zeros"),
        pytest.param(record(head(line=b"GET / HTTP/1.1")[:-1]), id="no end"),
        pytest.param(record(b"\r\n\r\n"), id="no request line"),
        pytest.param(record(b"ession=s3cr3t; a=b\r\n\r\n"), id="the end of a cookie"),
        pytest.param(record(bytes(40) + b"ession=s3cr3t; a=b\r\n\r\n"), id="zeros and the end of a cookie"),
        pytest.param(record(head((b"User-Agent", b"v" + bytes(9) + b"=s3cr3t"))), id="zeros and then a cookie"),
        pytest.param(record(head(line=b"POST / HTTP/1.1")), id="no redirect"),
        pytest.param(bytes(24) + b"\x02\xc3\xa4" + head(), id="an address that is none"),
        pytest.param(bytes(24) + b"\xff" + head(), id="an address that reaches beyond the end"),
    ],
)
def test_a_record_that_can_not_be_read_says_so_without_its_content(torn: bytes) -> None:
    said = orjson.loads(click_bytes(torn, PROXIES))
    assert said.keys() == {"unreadable", "bytes"}
    assert said["bytes"] == len(torn)
    assert said["unreadable"]
    assert "s3cr3t" not in said["unreadable"]


def test_a_record_whose_head_is_torn_is_no_click() -> None:
    with pytest.raises(ValueError, match="torn"):
        click_of(Record(AT_NS, 7, 3, "", b"GET / HTTP/1.1\r\n"), PROXIES)


@given(
    st.binary(max_size=120)
    | st.builds(
        lambda head, at, noise: record(head[:at] + noise + head[at:]),
        _with_secrets(),
        st.integers(0, 300),
        st.binary(max_size=20),
    )
)
def test_any_record_becomes_one_line_of_json_that_ingest_can_read_or_set_aside(torn: bytes) -> None:
    line = click_bytes(torn, PROXIES)
    assert b"\n" not in line
    said = orjson.loads(line)
    if isinstance(said, dict):
        assert said.keys() == {"unreadable", "bytes"}
    else:
        found = Click(*said)
        assert found.method in ("GET", "HEAD")
        assert len(found.user_agent) <= MAX_USER_AGENT
        assert len(found.referrer) <= MAX_REFERRER
