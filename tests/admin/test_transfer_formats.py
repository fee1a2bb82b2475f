"""Files of links: those of every peer are read, broken ones are reported by line, our own come back as they were."""

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from admin.links.transfer import texts
from admin.links.transfer.own import COLUMNS
from admin.links.transfer.reading import Reading, read
from admin.links.transfer.rows import NotReadable, Refused, Row
from admin.links.transfer.values import instant
from admin.links.transfer.writing import CSV_HEAD, to_csv, to_json_lines
from tests.admin.transfer_samples import AT, BITLY_JSON, DUB, DUB_JSON, SAMPLES, SHLINK


def reading_of(content: str | bytes, source: str = "") -> Reading:
    return read(io.BytesIO(content.encode() if isinstance(content, str) else content), source)


def found_in(content: str | bytes) -> list[Row | Refused]:
    return list(reading_of(content).rows())


def refusals(content: str | bytes) -> list[tuple[int, str, str]]:
    return [(one.line, one.column, one.reason) for one in found_in(content) if isinstance(one, Refused)]


def destinations(content: str | bytes) -> list[tuple[int, str]]:
    return [(one.line, one.fields["destination"]) for one in found_in(content) if isinstance(one, Row)]


@pytest.mark.parametrize(("name", "content", "links"), SAMPLES, ids=[f"{n} {one[0]}" for n, one in enumerate(SAMPLES)])
def test_the_files_of_every_peer_are_known_and_read(
    name: str, content: str, links: list[tuple[dict[str, Any], int]]
) -> None:
    for encoded in (content.encode(), content.encode("utf-8-sig"), content.encode("utf-16")):
        reading = reading_of(encoded)
        assert reading.format.name == name
        rows = list(reading.rows())
        assert not [one for one in rows if isinstance(one, Refused)]
        assert [(row.fields, row.historic_clicks) for row in rows if isinstance(row, Row)] == links
    assert reading_of(content, reading.format.source).format is reading.format


def test_a_file_can_be_taken_for_one_source_only() -> None:
    with pytest.raises(NotReadable, match="kutt: Short link, Destination URL, Clicks"):
        reading_of(DUB, "kutt")


def test_columns_that_are_used_and_those_that_are_not_are_reported() -> None:
    reading = reading_of(DUB)
    assert reading.used == {
        "Short link": "hostname, path",
        "Destination URL": "destination",
        "Clicks": "historicClicks",
        "Created at": "createdAt",
        "Tags": "tags",
        "Archived": "archived",
    }
    assert reading.ignored == ["Leads", "Conversions", "Revenue", "Link ID", "Updated at"]
    reading = reading_of(json.dumps(BITLY_JSON))
    list(reading.rows())
    assert reading.used["long_url"] == "destination"
    assert reading.ignored == ["id", "deeplinks"]


def test_no_file_has_more_names_than_can_be_remembered() -> None:
    lines = [{"destination": "https://a.example/", f"name {number}": 1} for number in range(1500)]
    reading = reading_of(b"\n".join(map(orjson.dumps, [*lines, *[{"destination": "x", "Title": "late"}] * 2])))
    rows = [row for row in reading.rows() if isinstance(row, Row)]
    assert len(reading.ignored) == 1000
    assert [row.fields.get("title") for row in rows[-3:]] == [None, "late", "late"]


NOT_READABLE: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "empty"),
    ("a blank line", b"\n", "empty"),
    ("a mark and nothing", b"\xef\xbb\xbf", "empty"),
    ("visits of Shlink", b"date,potentialBot,userAgent,browser\n", "visits that Shlink"),
    ("events of Dub", b"Date,Link,Referrer,Country,Device\n", "events of Dub"),
    ("counts of Bitly", b"Date,Short Link,Destination,Clicks,Total Engagements\n", "daily counts"),
    ("visits of Sink", b"\xef\xbb\xbfslug,url,viewer,views,referer\n", "visits that Sink"),
    ("unknown columns", b"name;age\nAda;36\n", "not known to be of .*: name, age"),
    ("unknown objects", b'[{"name": "Ada"}]', "not known to be of .*: name"),
    ("a column twice", b"destination,path,path\n", "path is there twice"),
    ("a spreadsheet", b"PK\x03\x04" + bytes(50), "save it as CSV"),
    ("compressed", b"\x1f\x8b\x08", "unpack"),
    ("XML", b"\n <?xml version='1.0'?><result/>", "format=json"),
    ("SQL", b"-- a dump\nINSERT INTO `yourls_url` VALUES ('a');\n", "SQL"),
    ("UTF-16 without a mark", "destination,path\n".encode("utf-16-le"), "UTF-16"),
    ("UTF-32", "destination,path\n".encode("utf-32"), "UTF-32"),
    ("a header in Latin-1", "destination,größe\n".encode("latin-1"), "Line 1: It is not UTF-8"),
    ("no links", b'{"links": [], "count": 0}', "No links"),
    ("a number", b"[1, 2]", "No links"),
    ("half an object", b'{"links": [{"a"', "JSON is damaged"),
    ("a header of two megabytes", b"destination," * 200_000, "Line 1: It has more than"),
    ("deep arrays", b"[" * 100_000, "more than 64 deep"),
    ("deep objects", b'{"a":' * 100_000, "more than 64 deep"),
    ("a deep link", b'[{"destination":' + b"[" * 100_000, "more than 64 deep"),
]


@pytest.mark.parametrize(("content", "why"), [one[1:] for one in NOT_READABLE], ids=[one[0] for one in NOT_READABLE])
def test_what_holds_no_links_is_refused_with_its_reason(content: bytes, why: str) -> None:
    with pytest.raises(NotReadable, match=why) as caught:
        found_in(content)
    assert str(caught.value).endswith(".") and len(str(caught.value)) < 400


HEAD = "destination,path,title,clickLimit,createdAt,archived,tags\n"
GOOD = "https://a.example/,/a,A,,,,\n"
OK = b'{"destination": "https://a.example/"}'
LONG = "x" * 10_000_000
TOO_LONG = "more than 2097152 bytes"
BROKEN: list[tuple[str, str | bytes, list[tuple[int, str, str]]]] = [
    ("a cell too many", f"{HEAD}https://a.example/?a,b,/a,A,,,,\n{GOOD}", [(2, "", "8 cells, and the header has 7")]),
    ("a cell too few", f"{HEAD}{GOOD}https://a.exam", [(3, "", "1 cells")]),
    ("no destination", f"{HEAD},/a,A,,,,\n{GOOD}", [(2, "destination", "no link leads")]),
    (
        "all at once",
        f"{HEAD}https://a.example/,/a,A,many,soon,perhaps,[\n{GOOD}",
        [(2, "tags", "JSON"), (2, "archived", "true or false"), (2, "clickLimit", "whole"), (2, "createdAt", "date")],
    ),
    ("Latin-1", f"{HEAD}https://a.example/,/ü,A,,,,\n{GOOD}".encode("latin-1"), [(2, "", r"UTF-8 \(byte 0xfc\)")]),
    ("NUL", f"{HEAD}https://a.example/,/a,\0,,,,\n{GOOD}", [(2, "", "NUL")]),
    ("a quote within", f'{HEAD}https://a.example/,"/a"b,A,,,,\n{GOOD}', [(2, "", "written twice")]),
    ("a quote that is not closed", f'{HEAD}https://a.example/,"/a,A,,,,\n{GOOD}{GOOD}', [(2, "", "not closed")]),
    (
        "a quote that is closed elsewhere",
        f'{HEAD}https://a.example/,"/a,A,,,,\n{GOOD}https://a.example/,/a,"A",,,,\n',
        [(2, "", "written twice")],
    ),
    (
        "NUL in JSON in a cell",
        'destination,metadata\nhttps://a.example/,{}\nx,"[""\\u0000""]"\n',
        [(3, "metadata", "NUL")],
    ),
    ("a return within", f"{HEAD}https://a.example/,/a,A\rB,,,,\n{GOOD}", [(2, "", "carriage return")]),
    ("a line of 10 MB", f"{HEAD}https://a.example/,/a,{LONG},,,,\n{GOOD}", [(2, "", TOO_LONG)]),
    (
        "a line of 10 MB in quotes",
        f'{HEAD}https://a.example/,/a,"A\n{LONG}",,,,\n{GOOD}',
        [(2, "", "not closed"), (3, "", TOO_LONG)],
    ),
    (
        "JSON Lines",
        OK + b'\n{"destination": \n\n[1]\n{"destination": 5}\n{"path": "/a"}\n',
        [
            (2, "", "not JSON"),
            (4, "", "a JSON object"),
            (5, "destination", "text"),
            (6, "destination", "no link leads"),
        ],
    ),
    ("deep JSON Lines", OK + b'\n{"destination": ' + b"[" * 900 + b"]" * 900 + b"}\n", [(2, "", "64 deep")]),
    ("NUL in JSON Lines", OK + b'\n{"destination": "\\u0000"}\n', [(2, "", "NUL")]),
    ("JSON Lines of 10 MB", OK + b'\n{"title": "' + LONG.encode() + b'"}\n' + OK, [(2, "", TOO_LONG)]),
    ("NUL across two pieces", b"[" + OK + b',{"destination": "'.rjust(65_495) + b'\\u0000"}]', [(2, "", "NUL")]),
    ("a surrogate in UTF-16", f"{HEAD}{GOOD}\ud800\n{GOOD}".encode("utf-16", "surrogatepass"), [(3, "", "not UTF-8")]),
    ("NUL in a document", b"[" + OK + b',{"destination": "\\u0000"}, ' + OK + b"]", [(2, "", "NUL")]),
    (
        "a document that ends early",
        b"[" + OK + b',{"destination": "https',
        [(2, "", "damaged .parse error: premature")],
    ),
    ("a document that is no UTF-8", b"[" + OK + b',{"destination": "\xff"}]', [(2, "", "not UTF-8")]),
    ("half a character", b"[" + OK + b',{"destination": "\\udc00"}]', [(2, "", "half a character")]),
    ("half a character of UTF-16", f"\ufeff{HEAD}{GOOD}{GOOD}".encode("utf-16-le") + b"x", [(4, "", "not UTF-8")]),
    (
        "too many digits",
        b"[" + OK + b',{"clickLimit": ' + b"1" * 9999 + b"}]",
        [(2, "", "damaged .parse error: integer")],
    ),
    (
        "a document with 10 MB of text",
        b"[" + OK + b',{"title": "' + LONG.encode() + b'"}]',
        [(2, "", f"{TOO_LONG}. The rest")],
    ),
    ("only a header of Shlink", SHLINK.partition("\n")[0], [(1, "", "reload the page")]),
    (
        "other kinds of values",
        json.dumps([DUB_JSON[0] | {"geo": "BR", "tags": [5], "clicks": 1.5, "archived": {}}]),
        [(1, "tags", "text"), (1, "archived", "true or false"), (1, "geo", "object"), (1, "clicks", "whole")],
    ),
]


@pytest.mark.parametrize(("content", "expected"), [one[1:] for one in BROKEN], ids=[one[0] for one in BROKEN])
def test_what_is_broken_is_reported_by_line_and_costs_no_other(
    content: str | bytes, expected: list[tuple[int, str, str]]
) -> None:
    found = refusals(content)
    assert [one[:2] for one in found] == [one[:2] for one in expected], found
    for (_line, _column, reason), (_, _, why) in zip(found, expected, strict=True):
        assert re.search(why, reason), reason
        assert reason.endswith(".")
    lines = {line for line, _ in destinations(content)}
    assert not lines & {one[0] for one in expected}
    assert lines or "a.example" not in str(content)


@given(st.lists(st.sampled_from(["good", "open", "after", "long"]), max_size=12))
def test_a_broken_line_takes_none_with_it(kinds: list[str]) -> None:
    made = {"good": GOOD, "open": 'https://a.example/,"/a,A,,,,\n', "after": 'https://a.example/,"/a"A,,,,,\n'}
    made["long"] = f"https://a.example/,/a,{'x' * texts.MAX_LINE_BYTES},,,,\n"
    content = HEAD + "".join(made[kind] for kind in kinds)
    good = [line for line, _ in destinations(content)]
    refused = [line for line, _, _ in refusals(content)]
    # An open quote may be closed by that of another line, and then the two are one line that is wrong.
    assert set(good) <= {number for number, kind in enumerate(kinds, start=2) if kind == "good"}
    assert len(refused) == len(set(refused)) and set(good) | set(refused) >= {
        number for number, kind in enumerate(kinds, start=2) if kind in ("good", "long")
    }


# Text that Postgres and UTF-8 can hold, with much of what files are broken by.
texts_of_links = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | st.text(
    st.sampled_from("=+-@'\"\t\r\n,;|[] a\u202eא😀\ufeffé\x85\u2028"), max_size=8
)
moments = st.datetimes().map(lambda at: instant(at.isoformat()))
counts = st.integers(0, 2**53 - 1)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**63, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts_of_links,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts_of_links, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts_of_links, json_values, max_size=3)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("id", "hostname", "path", "destination", "queryPolicy"), texts_of_links),
    **dict.fromkeys(("title", "folder", "notes", "externalId"), st.none() | texts_of_links),
    **dict.fromkeys(("fallbackUrl", "clickIdParameter", "robots"), st.none() | texts_of_links),
    **dict.fromkeys(("archived", "disabled", "hasPassword", "isPublicStats"), st.booleans()),
    **dict.fromkeys(("redirectStatus", "cacheSeconds", "historicClicks"), counts),
    **dict.fromkeys(("startsAt", "expiresAt"), st.none() | moments),
    **dict.fromkeys(("rules", "variants"), st.lists(objects, max_size=2)),
    **dict.fromkeys(("preview", "utm", "metadata"), objects),
    "tags": st.lists(texts_of_links, max_size=3),
    "clickLimit": st.none() | counts,
    "createdAt": moments,
}
links_of_ours = st.fixed_dictionaries({name: KINDS[name] for name in COLUMNS})
PLAIN: dict[str, Any] = {
    **dict.fromkeys(COLUMNS),
    **{"id": "a", "hostname": "h", "path": "/", "destination": "https://example.org/", "queryPolicy": "none"},
    **dict.fromkeys(("archived", "disabled", "hasPassword", "isPublicStats"), True),
    **{"preview": {}, "utm": {}, "metadata": {}, "tags": [], "rules": [], "variants": []},
    **{"redirectStatus": 302, "cacheSeconds": 0, "historicClicks": 7, "createdAt": AT},
}


@settings(max_examples=50, deadline=None)
@given(st.lists(links_of_ours, max_size=2))
@example([PLAIN | {"title": "'", "notes": "", "tags": ["a, b", "=c"]}, PLAIN | {"title": "''=1", "tags": ["", " "]}])
@example([PLAIN | {"notes": '"\r\n\n\r', "title": "@x", "folder": "\u202e=", "tags": ["[x"], "destination": "-"}])
@example([PLAIN | {"metadata": {"a": "x" * 200_000}}])
def test_what_was_exported_is_imported_as_it_was(links: list[dict[str, Any]]) -> None:
    exports = [b"".join([CSV_HEAD, *(to_csv([link]) for link in links)])]
    if links:
        exports += [to_json_lines(links), orjson.dumps(links), orjson.dumps({"data": links})]
    for content in exports:
        reading = reading_of(content)
        assert reading.format.source == "linkwire" and not reading.ignored
        rows = list(reading.rows())
        assert [
            row.fields | {"historicClicks": row.historic_clicks} if isinstance(row, Row) else row for row in rows
        ] == links


@settings(max_examples=50, deadline=None)
@given(st.lists(links_of_ours, max_size=1))
def test_spreadsheets_find_no_formula_in_an_export(links: list[dict[str, Any]]) -> None:
    content = (CSV_HEAD + to_csv(links)).decode("utf-8-sig")
    for row in csv.reader(io.StringIO(content, newline=""), strict=True):
        assert len(row) == len(COLUMNS)
        assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def test_formulas_of_others_are_kept_as_text() -> None:
    cells = ["=1+1", "+a", "-a", "@a", "'=a", "'", "\ta"]
    content = "Bitlink,Long URL,Title\n" + "".join(f'bit.ly/a,https://a.example/,"{cell}"\n' for cell in cells)
    assert [one.fields["title"] for one in found_in(content) if isinstance(one, Row)] == cells


DATES = {
    "2026-02-03T09:10:11.000Z": AT,
    "2026-02-03T09:10:11Z": AT,
    "2026-02-03T10:10:11+01:00": AT,
    "2026-02-03T09:10:11+0000": AT,
    " 2026-02-03 09:10:11 ": AT,
    "2026-02-03": "2026-02-03T00:00:00.000Z",
    "1770109811": AT,
    "1770109811000": AT,
    "Tue Feb 03 2026 09:10:11 GMT+0000 (Coordinated Universal Time)": AT,
    "1970-01-01T00:00:00+0000": None,
    "0": None,
    **dict.fromkeys(("20260203", "soon", "2026-13-01", "0001-01-01T00:00:00+14:00", "9" * 30, "²", "-5"), "refused"),
}


@pytest.mark.parametrize(("written", "meant"), DATES.items())
def test_dates_are_read_however_they_are_written(written: str, meant: str | None) -> None:
    [one] = found_in(f"keyword,url,timestamp\na,https://a.example/,{written}\n")
    assert meant == ("refused" if isinstance(one, Refused) else one.fields.get("createdAt"))


class Endless(io.RawIOBase):
    """A file that is made while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _pieces(kind: str) -> Iterator[bytes]:
    lines = to_json_lines([PLAIN])
    if kind == "quotes":
        yield HEAD.encode() + GOOD.encode() * 10_001
        yield from (b'a","\n' * 1000 for _ in range(40))
        yield from (b'a","' + b"x" * 1000 + b"\n" for _ in range(11_000))
        return
    start, row, end = {
        "csv": (CSV_HEAD, to_csv([PLAIN]), b""),
        "json lines": (b"", lines, b""),
        "json": (b"[", lines.strip() + b",", lines.strip() + b"]"),
    }[kind]
    yield start
    for _ in range(100):
        yield row * 100
    if kind != "json":
        yield b'"' if kind == "csv" else b""
        yield from (b"x" * 1_000_000 for _ in range(30))
        yield b"\n" + row
    yield end


@pytest.mark.parametrize("kind", ["csv", "json lines", "json", "quotes"])
def test_memory_does_not_grow_with_the_file(kind: str) -> None:
    file: BinaryIO = io.BufferedReader(Endless(_pieces(kind)))
    tracemalloc.start()
    try:
        rows = sum(isinstance(row, Row) for row in read(file).rows())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 10_001
    assert most < 4 * texts.MAX_LINE_BYTES


pieces = st.sampled_from(
    [
        *(
            "destination",
            "path",
            "title",
            "clicks",
            "link",
            "url",
            "1",
            "null",
            "a",
            "é",
            "1e999",
            "\\u0000",
            "\\ud800",
        ),
        *(",", ";", "\t", "\n", "\r\n", '"', '""', "'", "=", "{", "}", "[", "]", ":"),
        *('"destination"', '"data"', '"links"', '"link_1"'),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.lists(pieces, max_size=40).map(lambda many: "".join(many).encode())
    | st.lists(pieces, max_size=40).map(lambda many: (HEAD + "".join(many)).encode())
    | st.lists(pieces, max_size=40).map(lambda many: ('[{"destination":"x"},' + "".join(many)).encode("utf-16"))
)
def test_whatever_a_file_holds_is_read_or_refused(content: bytes) -> None:
    try:
        rows = found_in(content)
    except NotReadable as error:
        assert str(error).endswith(".")
        return
    assert [one.line for one in rows] == sorted(one.line for one in rows)
    assert all(isinstance(one, Row | Refused) for one in rows)
    for one in rows:
        if isinstance(one, Row):
            orjson.dumps(one.fields)
            assert isinstance(one.fields["destination"], str)
