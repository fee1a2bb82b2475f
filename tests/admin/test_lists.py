"""Lists: every query string is understood or refused, and walks and pages meet each row once."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import jsonschema_rs
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from admin.database import Connection
from admin.errors import Detail, Invalid
from admin.http.answers import (
    ListAnswer,
    Resource,
    ResourceListAnswer,
    Wire,
    install_error_answers,
    list_answer,
    resource_list_answer,
)
from admin.http.ids import BASE62
from admin.http.lists import Asked, Cursor, Filter, Found, Listing, Pagination, Values, one_of, since, text, until
from admin.http.request_ids import RequestIds
from admin.links import links
from admin.links.filters import flat

THINGS = Listing(
    prefix="msg",
    sorts={"createdAt": "created_at", "updatedAt": "updated_at"},
    filters={
        "status": Filter("status = {}", one_of("open", "closed")),
        "channelId": Filter("channel_id = {}", text),
        "startDate": since("created_at"),
        "endDate": until("created_at"),
    },
    default_sort="updatedAt",
)

PUBLIC_IDS = st.text(BASE62, min_size=1, max_size=64)


def cursor_of(content: Any) -> str:
    """A cursor as the contract has it: compact JSON in base64url without padding."""
    return encoded(json.dumps(content, separators=(",", ":")).encode())


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def asked(listing: Listing = THINGS, **parameters: str) -> Asked:
    return listing.asked(list(parameters.items()))


def refused(*pairs: tuple[str, str], listing: Listing = THINGS) -> dict[str, str]:
    """What is said about each parameter."""
    with pytest.raises(Invalid) as caught:
        listing.asked(pairs)
    said = dict(caught.value.details)
    assert len(said) == len(caught.value.details)
    return said


def test_nothing_asked_is_the_first_page() -> None:
    assert THINGS.asked([]) == Asked(page=1, after=None, size=20, sort="updatedAt", order="desc", filters={})


@pytest.mark.parametrize(
    ("parameters", "page", "size"),
    [
        ({"page": "3", "perPage": "7"}, 3, 7),
        ({"page": "3", "per_page": "7"}, 3, 7),
        ({"page": "3", "page_size": "7"}, 3, 7),
        ({"page": "3", "limit": "7"}, 3, 7),
        ({"limit": "7", "perPage": "8"}, 1, 8),
        ({"perPage": "5000"}, 1, 100),
        ({"limit": "7"}, None, 7),
        ({"limit": "5000"}, None, 100),
        ({"cursor": ""}, None, 50),
        ({"cursor": "", "limit": "7"}, None, 7),
        ({"cursor": "", "limit": "7", "perPage": "8"}, None, 8),
    ],
)
def test_pages_and_walks_and_their_sizes(parameters: dict[str, str], page: int | None, size: int) -> None:
    got = asked(THINGS, **parameters)
    assert (got.page, got.size) == (page, size)


def test_on_links_limit_alone_is_a_page() -> None:
    assert asked(links.LISTING, limit="7").page == 1
    assert asked(links.LISTING, limit="7", cursor="").page is None


def test_names_may_be_in_snake_case() -> None:
    snake = asked(sort_by="created_at", sort_order="asc", channel_id="ch_1", start_date="2026-01-31")
    assert snake == asked(sortBy="createdAt", sortOrder="asc", channelId="ch_1", startDate="2026-01-31")
    assert (snake.sort, snake.order, snake.filters["channelId"]) == ("createdAt", "asc", "ch_1")


def test_the_documented_cursor_is_a_position() -> None:
    assert asked(cursor="eyJpZCI6Im1zZ18xMjM0NTYifQ").after == "123456"


@given(st.sampled_from(["", "key", "msg"]), PUBLIC_IDS)
def test_every_position_has_a_cursor(prefix: str, public_id: str) -> None:
    shown = f"{prefix}_{public_id}" if prefix else public_id
    listing = Listing(prefix=prefix, sorts={"createdAt": "created_at"})
    assert asked(listing, cursor=cursor_of({"id": shown})).after == public_id
    assert listing._cursor(public_id) == cursor_of({"id": shown})


def spoiled(cursor: str) -> Iterator[str]:
    yield cursor + "="
    yield cursor + "\n"
    yield cursor[:-1]
    yield cursor[:-1] + "R"  # the same bytes: the last bits of it are of no use
    yield f"{cursor[:4]}*{cursor[4:]}"  # which a lenient decoder passes over


@pytest.mark.parametrize(
    "cursor",
    [
        "garbage",
        "💥",
        "\0",
        encoded(b"\xff"),
        encoded(b'{"id": "msg_1"}'),
        encoded(b'{"id":"msg_1"}\n'),
        encoded(b"[" * 10_000),
        *[
            cursor_of(content)
            for content in (
                {},
                None,
                "msg_1",
                {"id": None},
                {"id": "msg_"},
                {"id": "1"},
                {"id": "key_1"},
                {"id": "msg_1", "at": 1},
                {"at": "msg_1"},
                {"id": "msg_" + "1" * 65},
                {"id": "msg_ü"},
                {"id": "msg_1' or true --"},
            )
        ],
        *spoiled("eyJpZCI6Im1zZ18xMjM0NTYifQ"),
    ],
)
def test_what_is_no_cursor_of_this_list_is_refused(cursor: str) -> None:
    assert list(refused(("cursor", cursor))) == ["cursor"]


def test_links_have_cursors_without_a_prefix() -> None:
    assert asked(links.LISTING, cursor=cursor_of({"id": "WAz8eIbvDR60rouK"})).after == "WAz8eIbvDR60rouK"
    assert refused(("cursor", "eyJpZCI6Im1zZ18xMjM0NTYifQ"), listing=links.LISTING)


def test_a_walk_has_no_numbers_and_no_order_of_its_own() -> None:
    assert list(refused(("cursor", ""), ("page", "1"))) == ["page"]
    assert list(refused(("cursor", ""), ("sort_by", "updatedAt"))) == ["sort_by"]
    assert list(refused(("limit", "5"), ("sortBy", "updatedAt"))) == ["sortBy"]
    assert asked(cursor="", sortBy="createdAt", sortOrder="asc").order == "asc"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    said = refused(
        ("page", "0"),
        ("per_page", "1e3"),
        ("limit", "-1"),
        ("sortBy", "colour"),
        ("sortOrder", "DESC"),
        ("status", "ajar"),
        ("channelId", "a\0b"),
        ("startDate", "tomorrow"),
        ("end_date", "2026-02-30"),
        ("colour", "red"),
        ("colour", "blue"),
    )
    assert " ".join(sorted(said)) == ("channelId colour end_date limit page per_page sortBy sortOrder startDate status")
    assert said["sortBy"] == "It must be one of: createdAt, updatedAt."
    assert said["status"] == "It must be one of: open, closed."
    assert all(message.endswith(".") for message in said.values())


@pytest.mark.parametrize("pairs", [[("page", "1"), ("page", "1")], [("perPage", "1"), ("per_page", "1")]])
def test_what_is_given_twice_is_refused(pairs: list[tuple[str, str]]) -> None:
    assert refused(*pairs) == {pairs[1][0]: "It is given twice."}


def test_what_was_wrong_before_is_told_too() -> None:
    with pytest.raises(Invalid) as caught:
        THINGS.asked([("page", "0")], [Detail("query", "It is odd.")])
    assert [detail.field for detail in caught.value.details] == ["query", "page"]


def test_an_answer_to_many_mistakes_is_bounded() -> None:
    assert len(refused(*[(f"x{number}", "") for number in range(1000)])) == 100


DAY = datetime(2026, 1, 31, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("sent", "start", "end"),
    [
        ("2026-01-31", DAY, DAY + timedelta(days=1)),
        ("2026-01-31T00:00:00Z", DAY, DAY + MILLISECOND),
        ("2026-01-31T00:00", DAY, DAY + MILLISECOND),
        ("2026-01-31T01:30:00+01:30", DAY, DAY + MILLISECOND),
        ("2026-01-30T19:00:00.000123-05:00", DAY, DAY + MILLISECOND),
        ("9999-12-31", datetime(9999, 12, 31, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_days_are_whole_and_instants_are_in_utc(sent: str, start: datetime, end: datetime) -> None:
    assert asked(startDate=sent).filters == {"startDate": start}
    assert asked(endDate=sent).filters == {"endDate": end}


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "2026-01-32",
        "20260131",
        "2026-W05-6",
        "31.1.2026",
        "2026-01-31T",
        "2026-01-31T25:00",
        "2026-01-31T00:00:00 02:00",
        "2026-01-31T00:00:00+99:00",
        "0001-01-01T00:00:00+01:00",
        "0000-01-01",
        "1769817600",
        "２０２６-01-31",
        "2026-01-31\n",
    ],
)
def test_what_is_no_date_is_refused(sent: str) -> None:
    assert list(refused(("startDate", sent), ("endDate", sent))) == ["startDate", "endDate"]


def test_a_span_does_not_end_before_it_starts() -> None:
    assert list(refused(("startDate", "2026-01-31"), ("endDate", "2026-01-30"))) == ["endDate"]
    assert list(refused(("startDate", "2026-01-31T10:00Z"), ("endDate", "2026-01-31T10:30+01:00"))) == ["endDate"]
    for moment in ("2026-01-31", "2026-01-31T10:00Z"):
        assert len(asked(startDate=moment, endDate=moment).filters) == 2


NAMES = st.sampled_from(
    [parameter["name"] for listing in (THINGS, links.LISTING) for parameter in listing.parameters]
    + ["per_page", "page_size", "sort_by", "query", "query[path]", "query.title", "query[", "query[page]"]
)
TEXTS = st.one_of(
    st.text(),
    st.integers(-10, 10**12).map(str),
    st.sampled_from(["", "asc", "createdAt", "title", "\0", '{"path": "/a"}', '{"title": "\\u0000"}', "[]", "/a"]),
    st.dates().map(str),
    st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat),
    st.binary(max_size=30).map(encoded),
    PUBLIC_IDS.map(lambda public_id: cursor_of({"id": f"msg_{public_id}"})),
    st.dictionaries(st.sampled_from(["path", "hostname", "x"]), st.text() | st.integers()).map(json.dumps),
)


@settings(max_examples=500)
@given(st.lists(st.tuples(NAMES | st.text(), TEXTS), max_size=8))
@example([("channelId", "\0")])
@example([("query", "[" * 100_000)])
def test_every_query_string_is_understood_or_refused(pairs: list[tuple[str, str]]) -> None:
    for listing, sent in ((THINGS, (pairs, [])), (links.LISTING, flat(pairs))):
        try:
            got = listing.asked(*sent)
        except Invalid as error:
            assert error.details
            assert all(detail.message.endswith(".") for detail in error.details)
            continue
        assert 1 <= got.size <= 100
        assert got.page is None or 1 <= got.page <= 10_000_000
        assert got.order in ("asc", "desc")
        assert got.sort in listing.sorts
        assert set(got.filters) <= set(listing.filters)
        assert not any("\0" in value for value in got.filters.values() if isinstance(value, str))
        assert got.after is None or (got.page is None and got.after.isascii() and got.after.isalnum())


@pytest.mark.parametrize("listing", [THINGS, links.LISTING], ids=["things", "links"])
def test_what_is_documented_is_understood(listing: Listing) -> None:
    for parameter in listing.parameters:
        assert parameter["in"] == "query" and parameter["description"].endswith(".")
        schema = parameter["schema"]
        samples = [*schema.get("examples", []), *schema.get("enum", [])]
        samples += [schema[name] for name in ("default", "minimum", "maximum") if name in schema]
        for sample in samples:
            assert jsonschema_rs.is_valid(schema, sample)
            asked(listing, **{parameter["name"]: str(sample)})
    assert {"page", "perPage", "limit", "cursor", "sortBy", "sortOrder", *listing.filters} == {
        parameter["name"] for parameter in listing.parameters
    }


class Thing(Wire):
    """Something in a list."""

    display_name: str


FIRST_PAGE = Pagination(page=1, per_page=20, total_pages=1, total_count=1, has_next_page=False, has_prev_page=False)


@pytest.fixture
async def shelf() -> AsyncIterator[tuple[dict[str, Any], httpx2.AsyncClient]]:
    """An API of two lists in both dialects, and its OpenAPI document."""
    app = FastAPI()
    app.add_middleware(RequestIds)
    install_error_answers(app)

    def found(request: Request) -> Found:
        if THINGS.asked(request.query_params.multi_items()).page is None:
            return Found([], Cursor(next=None, has_more=False))
        return Found([], FIRST_PAGE)

    @app.get("/flat")
    async def flat_things(request: Request) -> ListAnswer[Thing]:
        return list_answer(request, [Thing(display_name="a")], found(request))

    @app.get("/resources")
    async def resources(request: Request) -> ResourceListAnswer[Thing]:
        thing = Resource(id="msg_1", type="thing", attributes=Thing(display_name="a"))
        return resource_list_answer(request, [thing], found(request))

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://api") as client:
        yield app.openapi(), client


@pytest.mark.parametrize(("query", "place"), [("", "pagination"), ("cursor=", "cursor"), ("limit=5", "cursor")])
async def test_answers_have_one_place_and_agree_with_the_document(
    shelf: tuple[dict[str, Any], httpx2.AsyncClient], query: str, place: str
) -> None:
    document, client = shelf
    for path, names in (("/flat", {"success", "data", "meta"}), ("/resources", {"data", "meta"})):
        answer = (await client.get(f"{path}?{query}")).json()
        assert set(answer) == names
        assert set(answer["meta"]) == {"requestId", place}
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        whole = schema | {"components": document["components"]}
        jsonschema_rs.validate(whole, answer)
        del answer["meta"][place]
        assert not jsonschema_rs.is_valid(whole, answer)


# On Postgres: links, because they are there.


@pytest.fixture
async def organization_id(connection: Connection) -> int:
    await connection.execute("insert into domains (hostname) values ('localhost')")
    made = await connection.fetchval(
        "insert into organizations (public_id, name, tier) values ('0123456789abcdef', 'one', 'free') returning id"
    )
    return int(made)


async def put(
    connection: Connection, organization_id: int, public_id: str, title: str | None = None, at: datetime = DAY
) -> None:
    await connection.execute(
        """
        insert into links
            (public_id, organization_id, owner_id, hostname, path, destination, version, title, created_at)
        values ($1, $2, 'o-1', 'localhost', '/' || $1, 'x', 1, $3, $4)""",
        public_id,
        organization_id,
        title,
        at,
    )


async def shown(
    connection: Connection, organization_id: int, **parameters: str
) -> tuple[list[str], Pagination | Cursor]:
    """The ids of links in the order of an answer."""
    found = await links.page_of(connection, organization_id, asked(links.LISTING, **parameters))
    return [row["public_id"] for row in found.rows], found.place


LINK_IDS = st.text(BASE62, min_size=1, max_size=3)
# Meanwhile: ids that come, and which of the rows that are there go, by their place.
MEANWHILE = st.tuples(st.lists(LINK_IDS, max_size=3), st.lists(st.integers(0, 50), max_size=3))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.sets(LINK_IDS, max_size=12),
    meanwhile=st.lists(MEANWHILE, max_size=8),
    order=st.sampled_from(["asc", "desc"]),
    size=st.integers(1, 4),
)
@example(before={"a", "B", "0", "z", "Z"}, meanwhile=[([], [4, 0])], order="desc", size=1)
@example(before={"a", "B", "0", "z", "Z"}, meanwhile=[(["b"], [0])], order="asc", size=2)
async def test_a_walk_meets_each_row_once_while_rows_come_and_go(
    connection: Connection,
    organization_id: int,
    before: set[str],
    meanwhile: list[tuple[list[str], list[int]]],
    order: str,
    size: int,
) -> None:
    await connection.execute("delete from links")
    for public_id in before:
        await put(connection, organization_id, public_id)
    there, ever, gone = set(before), set(before), set[str]()
    met: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        some, place = await shown(connection, organization_id, cursor=cursor, limit=str(size), sortOrder=order)
        assert isinstance(place, Cursor)
        assert place.has_more == (place.next is not None)
        assert len(some) <= size
        met += some
        left = [one for one in there if met and (one > met[-1] if order == "asc" else one < met[-1])]
        assert place.has_more == bool(left)
        assert len(met) <= len(ever)  # or it goes round and round
        cursor = place.next
        come, go = meanwhile.pop(0) if meanwhile else ([], [])
        for public_id in set(come) - ever:
            await put(connection, organization_id, public_id)
            there.add(public_id)
            ever.add(public_id)
        for public_id in {sorted(there)[index % len(there)] for index in go if there}:
            await connection.execute("delete from links where public_id = $1", public_id)
            there.discard(public_id)
            gone.add(public_id)
    assert met == sorted(set(met), reverse=order == "desc")
    assert before - gone <= set(met) <= ever


@pytest.mark.parametrize("sort", links.LISTING.sorts)
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_hold_each_row_once_also_where_many_are_alike(
    connection: Connection, organization_id: int, sort: str, order: str
) -> None:
    everything = [f"{number:016}" for number in range(23)]
    for public_id in everything:
        await put(connection, organization_id, public_id, title=[None, "a", "b"][int(public_id) % 3])
    met: list[str] = []
    for number in range(1, 6):
        some, place = await shown(
            connection, organization_id, page=str(number), perPage="5", sortBy=sort, sortOrder=order
        )
        met += some
        assert place == Pagination(
            page=number, per_page=5, total_pages=5, total_count=23, has_next_page=number < 5, has_prev_page=number > 1
        )
    titles = {public_id: ["", "a", "b"][int(public_id) % 3] for public_id in everything}
    expected = sorted(everything, key=lambda public_id: (titles[public_id] if sort == "title" else "", public_id))
    assert met == (expected if order == "asc" else expected[::-1])
    beyond, place = await shown(connection, organization_id, page="9", perPage="5")
    assert beyond == []
    assert isinstance(place, Pagination) and place.total_count == 23


async def test_a_list_has_only_rows_of_its_organization(connection: Connection, organization_id: int) -> None:
    await put(connection, organization_id, "0123456789abcdef")
    for parameters in ({"page": "1"}, {"cursor": ""}, {"cursor": cursor_of({"id": "z"})}):
        assert (await shown(connection, organization_id + 1, **parameters))[0] == []
        assert (await shown(connection, organization_id, **parameters))[0] == ["0123456789abcdef"]


async def test_days_and_instants_include_what_answers_show_as_them(
    connection: Connection, organization_id: int
) -> None:
    for public_id, at in (
        ("1", DAY - timedelta(microseconds=1)),
        ("2", DAY),
        ("3", DAY + timedelta(microseconds=999)),
        ("4", DAY + timedelta(days=1, microseconds=-1)),
        ("5", DAY + timedelta(days=1)),
    ):
        await put(connection, organization_id, public_id, at=at)

    async def within(start: str, end: str) -> str:
        return "".join(sorted((await shown(connection, organization_id, startDate=start, endDate=end))[0]))

    assert await within("2026-01-31", "2026-01-31") == "234"
    assert await within("2026-01-31T00:00:00.000Z", "2026-01-31T00:00:00.000Z") == "23"
    assert await within("2026-01-30", "2026-02-01T00:00:00+01:00") == "123"
    assert await within("0001-01-01", "9999-12-31") == "12345"


async def test_what_a_client_sends_is_an_argument(connection: Connection, organization_id: int) -> None:
    await put(connection, organization_id, "1", title="plain")
    for title in ("{}", "$1", "' or true --", "%", "plain' --"):
        await put(connection, organization_id, f"x{ord(title[-1])}{len(title)}", title=title)
        ids, place = await shown(connection, organization_id, title=title)
        assert len(ids) == 1 and isinstance(place, Pagination) and place.total_count == 1


async def test_only_pages_count_and_every_statement_begins_with_its_name(
    connection: Connection, organization_id: int
) -> None:
    statements: list[str] = []
    connection.add_query_logger(lambda record: statements.append(record.query))
    for parameters, counts in (({"page": "1", "title": "x"}, 1), ({"cursor": "", "title": "x"}, 0)):
        statements.clear()
        await shown(connection, organization_id, **parameters)
        await asyncio.sleep(0)  # asyncpg logs a statement in the loop's next round
        assert all(statement.startswith("/* links.page_of */ select ") for statement in statements)
        assert ["count(*)" in statement for statement in statements].count(True) == counts


def test_values_are_read_by_whoever_declares_them() -> None:
    doubled = Listing("", {"createdAt": "at"}, {"n": Filter("n = {}", Values(lambda sent: int(sent) * 2, {}))})
    assert asked(doubled, n="4").filters == {"n": 8}
    assert list(refused(("n", "four"), listing=doubled)) == ["n"]
