"""Addresses have one normal form, and what Redis holds for them survives the way there and back."""

import re
from urllib.parse import unquote_to_bytes

import can_ada
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from shared.entries import Entry
from shared.links import (
    Address,
    BadAddress,
    Marker,
    Published,
    address,
    fold,
    is_reserved,
    normal_hostname,
    normal_path,
)
from tests.shared.entries import ENTRIES

# Paths.

_PCHAR = rb"[A-Za-z0-9._~!$&'()*+,;=:@-]"
_NORMAL_PATH = re.compile(rf"(?:/(?:{_PCHAR.decode()}|%[0-9A-F]{{2}})*)+")

_NOT_SLASH = st.integers(0, 255).filter(lambda byte: byte != ord("/"))
_CHARACTERS = st.lists(_NOT_SLASH | st.sampled_from(b"aZ.%~ +"), max_size=8).map(bytes)
"""A segment as its characters, whichever way they are written."""
_RAW_PATHS = st.binary(max_size=40) | st.text("/.%2eEfFaA~ +é", max_size=30).map(str.encode)


@st.composite
def _spelt(draw: st.DrawFn, segment: bytes) -> bytes:
    """A spelling of a segment: each character as itself or as an escape, in upper or lower case."""
    spelling = b""
    for byte in segment:
        escape = b"%%%02X" % byte if draw(st.booleans()) else b"%%%02x" % byte
        spelling += escape if byte == ord("%") or draw(st.booleans()) else bytes([byte])
    return spelling


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        pytest.param(b"/promo", "/promo", id="an ordinary path stays as it is"),
        pytest.param(b"", "/", id="no path is the root"),
        pytest.param(b"/", "/", id="the root keeps its slash"),
        pytest.param(b"/Promo", "/Promo", id="case matters"),
        pytest.param(b"/promo/", "/promo", id="one trailing slash is ignored"),
        pytest.param(b"/promo//", "/promo//", id="two trailing slashes are an empty segment"),
        pytest.param(b"//promo", "//promo", id="an empty segment at the beginning is kept"),
        pytest.param(b"/a//b", "/a//b", id="an empty segment in the middle is kept"),
        pytest.param(b"//", "//", id="nothing but empty segments are kept"),
        pytest.param(b"/%41%7a", "/Az", id="escapes of letters are decoded"),
        pytest.param(b"/a%2Db%5F%7e", "/a-b_~", id="escapes of unreserved characters are decoded"),
        pytest.param(b"/%3A%40%21%24", "/:@!$", id="escapes of other characters of a path are decoded"),
        pytest.param(b"/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~", id="what a path may hold stays as it is"),
        pytest.param(b"/a b", "/a%20b", id="a space is escaped"),
        pytest.param(b"/a+b", "/a+b", id="a plus is no space"),
        pytest.param(b"/%3f%23", "/%3F%23", id="escapes that are needed are in upper case"),
        pytest.param(b'/?#[]\\"<>`{}|^', "/%3F%23%5B%5D%5C%22%3C%3E%60%7B%7D%7C%5E", id="other ASCII is escaped"),
        pytest.param("/ü".encode(), "/%C3%BC", id="UTF-8 is escaped byte by byte"),
        pytest.param(b"/\xff\x00", "/%FF%00", id="bytes that are no text are escaped"),
        pytest.param(b"/a%2Fb", "/a%2Fb", id="an escaped slash is no slash"),
        pytest.param(b"/a%2fb", "/a%2Fb", id="an escaped slash in lower case is the same one"),
        pytest.param(b"/a%252Fb", "/a%252Fb", id="an escaped percent sign is decoded once, not twice"),
        pytest.param(b"/100%", "/100%25", id="a percent sign at the end stands for itself"),
        pytest.param(b"/%zz%4", "/%25zz%254", id="a percent sign that begins no escape stands for itself"),
        pytest.param(b"/%%34%31", "/%2541", id="decoding makes no new escapes"),
        pytest.param(b"/a/./b", "/a/b", id="a dot segment is resolved"),
        pytest.param(b"/a/../b", "/b", id="a double dot takes a segment back"),
        pytest.param(b"/../../b", "/b", id="nothing is above the root"),
        pytest.param(b"/a/b/..", "/a", id="a double dot at the end leaves a trailing slash, which is ignored"),
        pytest.param(b"/a/.", "/a", id="a dot at the end leaves a trailing slash, which is ignored"),
        pytest.param(b"/a/%2e%2E/b", "/b", id="escaped dots are dots"),
        pytest.param(b"/a/.%2e/b", "/b", id="half escaped dots are dots"),
        pytest.param(b"/a/.../b", "/a/.../b", id="three dots are a name"),
        pytest.param(b"/a/..%2Fb", "/a/..%2Fb", id="dots before an escaped slash are a part of a name"),
        pytest.param(b"/a//../b", "/a/b", id="a double dot takes an empty segment back"),
        pytest.param(b"/a//.", "/a//", id="a dot after an empty segment leaves the empty segment"),
        pytest.param(b"/a//b/..", "/a//", id="a double dot leaves the empty segment before what it takes back"),
        pytest.param(b"/..", "/", id="a way back from the root is the root"),
        pytest.param(b"/.", "/", id="a dot at the root is the root"),
    ],
)
def test_a_path_has_one_normal_form(raw: bytes, normal: str) -> None:
    assert normal_path(raw) == normal


@given(_RAW_PATHS)
def test_normalising_a_path_twice_changes_nothing(raw: bytes) -> None:
    normal = normal_path(b"/" + raw)
    assert normal_path(normal.encode("ascii")) == normal


@given(_RAW_PATHS)
def test_a_normal_path_holds_characters_of_a_path_slashes_and_escapes_that_are_needed(raw: bytes) -> None:
    normal = normal_path(b"/" + raw)
    assert _NORMAL_PATH.fullmatch(normal)
    for escape in re.findall("%[0-9A-F]{2}", normal):
        assert not re.fullmatch(_PCHAR, unquote_to_bytes(escape)), escape
    assert not {".", ".."} & set(normal.split("/"))


@given(st.data(), st.lists(_CHARACTERS, min_size=1, max_size=5))
def test_every_way_to_escape_the_same_characters_gives_the_same_path(
    data: st.DataObject, segments: list[bytes]
) -> None:
    one, other = (b"/" + b"/".join(data.draw(_spelt(segment)) for segment in segments) for _ in range(2))
    assert normal_path(one) == normal_path(other)


@given(st.lists(_CHARACTERS.filter(lambda segment: segment not in (b"", b".", b"..")), min_size=1, max_size=5))
def test_different_characters_are_different_paths(segments: list[bytes]) -> None:
    """Nothing is lost: the characters of each segment can be read back."""
    raw = b"/" + b"/".join(b"".join(b"%%%02X" % byte for byte in segment) for segment in segments)
    assert [unquote_to_bytes(segment) for segment in normal_path(raw).split("/")[1:]] == segments


@given(_RAW_PATHS)
def test_a_slash_at_the_end_makes_no_difference(raw: bytes) -> None:
    path = b"/" + raw
    assume(not path.endswith(b"/"))
    assert normal_path(path + b"/") == normal_path(path)


@given(st.text("/.%2eEfFaAzZ09~!$&'()*+,;=:@-_ \"<>`{}|^éж日😀", max_size=30))
def test_what_a_browser_makes_of_a_path_has_the_same_normal_form(path: str) -> None:
    """It sends the pathname of the WHATWG URL that was clicked or typed."""
    assume(not path.endswith(" "))  # which is no part of a URL
    seen = can_ada.parse("http://go.example/" + path).pathname
    assert normal_path(seen.encode()) == normal_path(b"/" + path.encode())


@pytest.mark.parametrize(
    ("path", "folded"),
    [
        pytest.param("/Spring/SALE", "/spring/sale", id="ASCII"),
        pytest.param("/%C3%84-A", "/%C3%A4-a", id="what is escaped as UTF-8"),
        pytest.param("/A%2FB%3F%25", "/a%2Fb%3F%25", id="escapes themselves stay in upper case"),
        pytest.param("/%E2%84%AA", "/k", id="the Kelvin sign is a k, which needs no escape"),
        pytest.param("/A%C3", "/a%C3", id="a byte that is no text stays"),
    ],
)
def test_folding_a_path_lowers_its_case(path: str, folded: str) -> None:
    assert fold(path) == folded


@given(_RAW_PATHS | st.text(max_size=20).map(lambda text: text.encode(errors="replace")))
def test_a_folded_path_is_in_normal_form_and_folding_twice_changes_nothing(raw: bytes) -> None:
    folded = fold(normal_path(b"/" + raw))
    assert normal_path(folded.encode("ascii")) == folded
    assert fold(folded) == folded


@given(st.text(st.characters(max_codepoint=127), max_size=20))
def test_paths_that_differ_in_the_case_of_ascii_letters_only_fold_alike(text: str) -> None:
    paths = {fold(normal_path(b"/" + spelt.encode())) for spelt in (text, text.upper(), text.lower(), text.swapcase())}
    assert len(paths) == 1


# Hostnames.


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        pytest.param("go.example", "go.example", id="an ordinary name stays as it is"),
        pytest.param("GO.Example", "go.example", id="case does not matter"),
        pytest.param("go.example.", "go.example", id="the trailing dot is ignored"),
        pytest.param("go.example:8000", "go.example", id="the port is ignored"),
        pytest.param("Go.Example.:80", "go.example", id="dot and port are ignored together"),
        pytest.param("localhost", "localhost", id="a name of one label"),
        pytest.param("127.0.0.1:8000", "127.0.0.1", id="an IPv4 address"),
        pytest.param("my_host.example", "my_host.example", id="an underscore, as browsers do"),
        pytest.param("a--b.example", "a--b.example", id="hyphens inside a label"),
        pytest.param("münchen.example", "xn--mnchen-3ya.example", id="an internationalised name"),
        pytest.param("MÜNCHEN.Example:80", "xn--mnchen-3ya.example", id="its capitals"),
        pytest.param("mu\N{COMBINING DIAERESIS}nchen.example", "xn--mnchen-3ya.example", id="its decomposed form"),
        pytest.param("XN--MNCHEN-3YA.example", "xn--mnchen-3ya.example", id="its ASCII form in capitals"),
        pytest.param("straße.example", "xn--strae-oqa.example", id="a sharp s stays one"),
        pytest.param("go\N{IDEOGRAPHIC FULL STOP}example", "go.example", id="a full stop of another script"),
        pytest.param("ｇｏ.example", "go.example", id="letters of full width"),
        pytest.param("x" * 63 + ".example", "x" * 63 + ".example", id="a label of 63 characters"),
        pytest.param(".".join(["x" * 49] * 5) + ".xyz", ".".join(["x" * 49] * 5) + ".xyz", id="a name of 253"),
    ],
)
def test_a_hostname_has_one_normal_form(host: str, normal: str) -> None:
    assert normal_hostname(host) == normal


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("", id="nothing"),
        pytest.param(".", id="only a dot"),
        pytest.param(":80", id="only a port"),
        pytest.param("go.example..", id="two dots at the end"),
        pytest.param("go..example", id="an empty label"),
        pytest.param(".go.example", id="a dot at the beginning"),
        pytest.param("-go.example", id="a hyphen at the beginning of a label"),
        pytest.param("go-.example", id="a hyphen at the end of a label"),
        pytest.param("go example", id="a space"),
        pytest.param(" go.example", id="a space around it"),
        pytest.param("go.example\n", id="a newline after it"),
        pytest.param("go.example/x", id="a path"),
        pytest.param("user@go.example", id="a user"),
        pytest.param("go.example:http", id="a port that is no number"),
        pytest.param("go.example:80:80", id="two ports"),
        pytest.param("go.example:-1", id="a negative port"),
        pytest.param("go.example:123456", id="a port of six digits"),
        pytest.param("go.example:८०", id="a port in other digits"),
        pytest.param("[::1]", id="an IPv6 address in brackets"),
        pytest.param("::1", id="an IPv6 address"),
        pytest.param("*.example", id="a wildcard"),
        pytest.param("go%2Eexample", id="an escape"),
        pytest.param("x" * 64 + ".example", id="a label of 64 characters"),
        pytest.param(".".join(["x" * 49] * 5) + ".wxyz", id="a name of 254 characters"),
        pytest.param("\N{ARABIC LETTER ALEF}a.example", id="directions mixed in one label"),
        pytest.param("go\ud800.example", id="half of a surrogate pair"),
        pytest.param("go\0.example", id="a NUL"),
    ],
)
def test_what_is_no_hostname_is_refused_with_a_sentence(host: str) -> None:
    with pytest.raises(BadAddress, match=r"^[A-Z].* .*\.$"):
        normal_hostname(host)


_HOSTS = st.text(max_size=20) | st.text("aAzZ09-_.:äÄßéİıσς日本。．｡ｇＯ", max_size=20)


@given(_HOSTS)
def test_any_text_is_a_hostname_whose_normal_form_is_final_or_is_refused(host: str) -> None:
    try:
        normal = normal_hostname(host)
    except BadAddress:
        return
    assert normal_hostname(normal) == normal
    assert re.fullmatch(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?", normal)
    assert len(normal) <= 253


@given(st.text("aAbBzZ09-.äÄßéςσ日本", min_size=1, max_size=20))
def test_what_a_browser_makes_of_a_hostname_is_its_normal_form(host: str) -> None:
    try:
        normal = normal_hostname(host)
    except BadAddress:
        return
    assume(not normal.rpartition(".")[2].isdigit())  # for which it would read an IPv4 address
    assume("--" not in host)  # labels that claim to be punycode are decoded there, and left alone here
    assert can_ada.parse(f"http://{host}/").hostname.removesuffix(".") == normal


# Addresses.

_ADDRESSES = st.builds(
    Address,
    st.from_regex(r"[a-z0-9_]{1,9}(\.[a-z0-9_]{1,9}){0,3}", fullmatch=True),
    _RAW_PATHS.map(lambda raw: normal_path(b"/" + raw)),
)


def test_an_address_is_the_normal_hostname_and_the_normal_path() -> None:
    assert address("Go.Example:8000", b"/%61/") == Address("go.example", "/a")
    with pytest.raises(BadAddress):
        address("", b"/a")


@given(_ADDRESSES)
def test_an_address_can_be_read_from_its_key(wanted: Address) -> None:
    assert Address.of_key(wanted.key) == wanted


@given(_ADDRESSES, _ADDRESSES)
def test_no_two_addresses_share_a_key(one: Address, other: Address) -> None:
    assert (one.key == other.key) == (one == other)


def test_the_key_of_an_address_is_what_it_was() -> None:
    """Another one would make every link that is in Redis now unknown."""
    assert Address("go.example", "/promo").key == "link:go.example/promo"


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        ("/", True),
        ("/healthz", True),
        ("/readyz", True),
        ("/robots.txt", True),
        ("/favicon.ico", True),
        ("/.well-known", True),
        ("/.well-known/acme-challenge/x", True),
        ("/promo+", True),
        ("/promo", False),
        ("/healthz/x", False),
        ("/Healthz", False),
        ("/.well-known-links", False),
        ("/a/robots.txt", False),
        ("/a+b", False),
        ("//", False),
    ],
)
def test_some_paths_are_kept_back_on_every_host(path: str, reserved: bool) -> None:
    assert is_reserved(path) is reserved


# What Redis holds.

_VERSIONS = st.integers(0, 2**63 - 1)
_PUBLISHED = st.builds(Published, _VERSIONS, st.none() | ENTRIES)


@given(_PUBLISHED)
def test_what_is_published_is_what_is_read(published: Published) -> None:
    assert Published.from_bytes(published.to_bytes()) == published


@given(_PUBLISHED)
def test_the_version_stands_at_the_beginning_where_the_script_in_redis_looks_for_it(published: Published) -> None:
    version, space, _ = published.to_bytes().partition(b" ")
    assert (version, space) == (str(published.version).encode(), b" ")


@pytest.mark.parametrize(
    ("published", "value"),
    [
        (Published(12, None), b"12 "),
        (
            Published(3, Entry(7, 1, "https://example.com/%C3%BC")),
            b'3 {"id":7,"org":1,"to":"https://example.com/%C3%BC"}',
        ),
    ],
    ids=["after a deletion", "while a link lives"],
)
def test_the_format_in_redis_is_what_it_was(published: Published, value: bytes) -> None:
    """Edge and admin may be of different versions for a while."""
    assert published.to_bytes() == value
    assert Published.from_bytes(value) == published


@given(st.binary(max_size=60) | st.from_regex(rb'[0-9]{1,3} ([\[{"].{0,20}|[0-9]{1,3}|null)', fullmatch=True))
@example(b"1 []")
@example(b"1 {}")
@example(b'1 {"id":"7","org":3,"to":"https://example.com/"}')
@example(b'1 {"id":7,"org":3,"to":null}')
@example(b"x {}")
@example(b"")
def test_any_other_value_is_refused_with_the_errors_that_are_promised(value: bytes) -> None:
    try:
        published = Published.from_bytes(value)
    except (ValueError, KeyError):
        return
    if published.entry:
        assert [type(field) for field in published.entry[:3]] == [int, int, str]


# The marker.

_WORDS = st.from_regex(r"[0-9a-f]{1,40}", fullmatch=True)


@given(_WORDS, _WORDS)
def test_a_marker_is_read_as_it_was_written(epoch: str, run_id: str) -> None:
    assert Marker.from_bytes(Marker(epoch, run_id).to_bytes()) == Marker(epoch, run_id)


@given(st.binary(max_size=60))
@example(b"one two three")
@example(b"")
@example(b"\xff \xff")
def test_any_other_marker_is_refused(value: bytes) -> None:
    try:
        marker = Marker.from_bytes(value)
    except ValueError:
        return
    assert marker.to_bytes() == value


@given(_WORDS, _WORDS, _WORDS)
def test_a_marker_is_valid_on_the_run_that_it_was_written_on_and_on_no_other(epoch: str, run: str, other: str) -> None:
    assume(run != other)
    value = Marker(epoch, run).to_bytes()
    assert Marker.epoch_of(value, run) == epoch
    assert Marker.epoch_of(value, other) is None
    assert Marker.epoch_of(None, run) is None


def test_a_host_header_is_ascii_and_its_port_may_be_empty() -> None:
    with pytest.raises(BadAddress):
        address("gö.example", b"/")
    assert address("go.example:", b"/") == Address("go.example", "/")
    assert normal_hostname("münchen。") == normal_hostname("münchen")
