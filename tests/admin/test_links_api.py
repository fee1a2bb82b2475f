"""The routes of links, as a client of the Linkkit document sees them."""

import asyncio
import re
from datetime import datetime
from typing import Any

import pytest

from admin.links.taken import PATH_ALPHABET
from shared.links import Address, Published
from shared.redis import Redis
from tests.admin.conftest import Api, made

DOCUMENTED = {
    "id",
    "title",
    "hostname",
    "path",
    "destination",
    "shortUrl",
    "createdAt",
    "updatedAt",
    "schemaVersion",
    "ownerId",
    "tags",
    "folder",
    "notes",
    "externalId",
    "archived",
    "disabled",
    "reportedAt",
    "startsAt",
    "expiresAt",
    "clickLimit",
    "fallbackUrl",
    "hasPassword",
    "redirectStatus",
    "cacheSeconds",
    "queryPolicy",
    "clickIdParameter",
    "rules",
    "variants",
    "preview",
    "utm",
    "robots",
    "isPublicStats",
    "metadata",
    "clicks",
    "limitedClicks",
    "historicClicks",
    "destinationStatus",
    "destinationCheckedAt",
}


async def published(redis: Redis, hostname: str, path: str) -> str | None:
    """Where Redis says that an address leads."""
    value = await redis.get(Address(hostname, path).key)
    assert value is None or isinstance(value, bytes)
    entry = Published.from_bytes(value).entry if value else None
    return entry.destination if entry else None


async def test_a_link_of_only_a_destination_gets_the_rest(api: Api) -> None:
    link = await made(api.one.api, destination="HTTPS://Example.COM/a b")
    assert set(link) == DOCUMENTED
    assert re.fullmatch(r"[0-9A-Za-z]{16}", link["id"])
    assert re.fullmatch(rf"/[{PATH_ALPHABET}]{{7}}", link["path"])
    assert link["destination"] == "https://example.com/a%20b"
    assert link["hostname"] == "localhost"
    assert link["shortUrl"] == f"http://localhost:8000{link['path']}"
    assert link["title"] is None
    assert link["schemaVersion"] == "1.0"
    assert link["ownerId"].startswith("o-")
    assert link["createdAt"] == link["updatedAt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", link["createdAt"])


async def test_paths_that_nobody_chose_are_neither_sequential_nor_confusing(api: Api) -> None:
    paths = [(await made(api.one.api))["path"] for _ in range(20)]
    assert len(set(paths)) == 20
    assert sorted(paths) != paths
    assert not set("0O1lI") & set("".join(paths))


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_the_samples_of_the_document(api: Api, prefix: str) -> None:
    """The curl lines of the Linkkit document, apart from host and token."""
    client = api.one.api
    form = {"hostname": "custom.hostname.com", "path": "/redirect", "destination": "https://docs.linkkit.app/"}
    created = await client.post(f"{prefix}/links", data=form)
    assert created.status_code == 201
    assert created.json()["success"] is True
    link = created.json()["data"]
    assert {name: link[name] for name in form} == form
    listed = await client.get(f"{prefix}/links", params={"limit": 10})
    assert listed.json()["success"] is True
    assert listed.json()["data"] == [link]
    got = await client.get(f"{prefix}/links/{link['id']}")
    assert got.json()["data"] == link
    changed = await client.put(f"{prefix}/links/{link['id']}", data={"path": "/engage"})
    assert changed.status_code == 200
    assert changed.json()["data"]["path"] == "/engage"
    assert changed.json()["data"]["destination"] == "https://docs.linkkit.app/"
    deleted = await client.delete(f"{prefix}/links/{link['id']}")
    assert deleted.status_code == 200
    assert deleted.json()["data"] == {"id": link["id"], "deleted": True}
    assert (await client.get(f"{prefix}/links/{link['id']}")).status_code == 404


async def test_curl_without_a_content_type_is_understood(api: Api) -> None:
    for body in (b"destination=https://example.com/form", b' {"destination": "https://example.com/json"}'):
        request = api.one.api.build_request("POST", "/v1/links", content=body)
        request.headers.pop("content-type", None)
        answer = await api.one.api.send(request)
        assert answer.status_code == 201, answer.text


async def test_what_has_answered_is_published(api: Api, redis: Redis) -> None:
    link = await made(api.one.api, path="/a", destination="https://example.com/1")
    assert await published(redis, "localhost", "/a") == "https://example.com/1"
    await api.one.api.put(f"/v1/links/{link['id']}", json={"destination": "https://example.com/2"})
    assert await published(redis, "localhost", "/a") == "https://example.com/2"
    await api.one.api.patch(f"/v1/links/{link['id']}", json={"path": "/b"})
    assert await published(redis, "localhost", "/a") is None
    assert await published(redis, "localhost", "/b") == "https://example.com/2"
    await api.one.api.delete(f"/v1/links/{link['id']}")
    assert await published(redis, "localhost", "/b") is None


async def test_a_change_keeps_what_is_not_sent_and_moves_updated_at(api: Api) -> None:
    link = await made(api.one.api, path="/keep", title="Title")
    changed = (await api.one.api.put(f"/v1/links/{link['id']}", json={"path": "/kept"})).json()["data"]
    unchanged = {"path": "/kept", "shortUrl": changed["shortUrl"], "updatedAt": changed["updatedAt"]}
    assert changed == link | unchanged
    assert datetime.fromisoformat(changed["updatedAt"]) > datetime.fromisoformat(link["updatedAt"])
    cleared = await api.one.api.put(f"/v1/links/{link['id']}", json={"title": None})
    assert cleared.json()["data"]["title"] is None


async def test_two_parallel_creates_of_one_address_make_one_link(api: Api) -> None:
    answers = await asyncio.gather(
        *[api.one.api.post("/v1/links", json={"destination": "https://example.com/", "path": "/x"}) for _ in range(8)]
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert {answer.json()["error"]["code"] for answer in answers if answer.status_code == 409} == {
        "RESOURCE_ALREADY_EXISTS"
    }


async def test_a_change_of_the_title_does_not_ask_for_the_destination_again(api: Api) -> None:
    link = await made(api.one.api, destination="https://shop.example/")
    shop = await made(api.one.api, hostname="shop.example")
    changed = await api.one.api.put(f"/v1/links/{link['id']}", json={"title": "Shop"})
    assert changed.status_code == 200
    refused = await api.one.api.put(f"/v1/links/{link['id']}", json={"destination": "https://shop.example/2"})
    assert refused.status_code == 400
    assert (await api.one.api.delete(f"/v1/links/{shop['id']}?purge=true")).status_code == 200
    await made(api.one.api, destination="https://shop.example/3")


async def test_hosts_of_others_may_be_destinations(api: Api) -> None:
    await made(api.other.api, hostname="example.com", destination="https://elsewhere.example/")
    await made(api.one.api, destination="https://example.com/")


async def test_many_at_once_are_all_served(api: Api, redis: Redis) -> None:
    """More than there are connections to Postgres: whoever waits for one is not refused."""
    paths = [f"/many-{number}" for number in range(64)]
    links = await asyncio.gather(*[made(api.one.api, path=path) for path in paths])
    assert {link["path"] for link in links} == set(paths)


async def test_a_taken_address_is_refused_on_change_too(api: Api) -> None:
    await made(api.one.api, path="/taken")
    link = await made(api.one.api, path="/free")
    answer = await api.one.api.put(f"/v1/links/{link['id']}", json={"path": "/taken/"})
    assert answer.status_code == 409


async def test_parallel_changes_leave_redis_and_postgres_agreed(api: Api, redis: Redis) -> None:
    """Two links swap addresses again and again while both are edited; the last commit wins everywhere."""
    one = await made(api.one.api, path="/one")
    two = await made(api.one.api, path="/two")

    async def edit(link: dict[str, Any], number: int) -> None:
        await api.one.api.put(
            f"/v1/links/{link['id']}", json={"destination": f"https://example.com/{link['path'][1:]}/{number}"}
        )

    await asyncio.gather(*[edit(link, number) for number in range(10) for link in (one, two)])
    for link in (one, two):
        stored = (await api.one.api.get(f"/v1/links/{link['id']}")).json()["data"]
        assert await published(redis, "localhost", stored["path"]) == stored["destination"]


async def test_pages_of_a_list(api: Api) -> None:
    for number in range(25):
        await made(api.one.api, path=f"/{number}")
    first = (await api.one.api.get("/v1/links")).json()
    assert [link["path"] for link in first["data"]] == [f"/{number}" for number in range(24, 4, -1)]
    assert first["meta"]["pagination"] == {
        "page": 1,
        "perPage": 20,
        "totalPages": 2,
        "totalCount": 25,
        "hasNextPage": True,
        "hasPrevPage": False,
    }
    second = (await api.one.api.get("/v1/links", params={"page": 2, "perPage": 10})).json()
    assert [link["path"] for link in second["data"]] == [f"/{number}" for number in range(14, 4, -1)]
    assert second["meta"]["pagination"]["hasPrevPage"] is True
    clamped = (await api.one.api.get("/v1/links", params={"limit": 5000})).json()
    assert clamped["meta"]["pagination"]["perPage"] == 100
    beyond = (await api.one.api.get("/v1/links", params={"page": 99})).json()
    assert beyond["data"] == []


async def test_a_walk_through_a_list(api: Api) -> None:
    for number in range(5):
        await made(api.one.api, path=f"/{number}")
    met: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = (await api.one.api.get("/v1/links", params={"cursor": cursor, "limit": 2})).json()
        assert set(answer["meta"]) == {"requestId", "cursor"}
        assert answer["meta"]["cursor"]["hasMore"] == (len(met) < 4)
        met += [link["path"] for link in answer["data"]]
        cursor = answer["meta"]["cursor"]["next"]
    assert met == ["/4", "/3", "/2", "/1", "/0"]
    first = await api.one.api.get("/v1/links", params={"cursor": "", "limit": 1, "sortOrder": "asc"})
    assert [link["path"] for link in first.json()["data"]] == ["/0"]


async def test_a_list_in_another_order(api: Api) -> None:
    links = [
        await made(api.one.api, path=path, title=title) for path, title in (("/b", "1"), ("/a", None), ("/c", "0"))
    ]
    await api.one.api.put(f"/v1/links/{links[1]['id']}", json={"destination": "https://example.com/new"})

    async def paths(**parameters: str) -> str:
        answer = await api.one.api.get("/v1/links", params=parameters)
        return "".join(link["path"] for link in answer.json()["data"])

    assert await paths(sortBy="path", sortOrder="asc") == "/a/b/c"
    assert await paths(sortBy="title") == "/b/c/a"
    assert await paths(sort_by="updatedAt") == "/a/c/b"
    assert await paths(sortOrder="asc") == "/b/a/c"


async def test_a_list_of_a_span_of_time(api: Api) -> None:
    links = [await made(api.one.api) for _ in range(3)]
    for start, end, expected in (
        (links[1]["createdAt"], links[1]["createdAt"], [links[1]]),
        (links[0]["createdAt"][:10], links[2]["createdAt"][:10], links[::-1]),
        ("2020-01-01", "2020-12-31", []),
    ):
        answer = await api.one.api.get("/v1/links", params={"startDate": start, "endDate": end})
        assert answer.json()["data"] == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"query[path]": "/b"},
        {"query.path": "/b/"},
        {"path": "b"},
        {"query": '{"path": "/b"}'},
        {"query[destination]": "https://EXAMPLE.com:443/b"},
        {"title": "B", "hostname": "LOCALHOST:8000"},
    ],
    ids=["bracketed", "dotted", "bare", "json", "in another spelling", "two at once"],
)
async def test_filters_are_exact_on_normal_forms(api: Api, parameters: dict[str, str]) -> None:
    for name in "abc":
        await made(api.one.api, path=f"/{name}", title=name.upper(), destination=f"https://example.com/{name}")
    answer = await api.one.api.get("/v1/links", params=parameters)
    assert [link["path"] for link in answer.json()["data"]] == ["/b"]
    assert answer.json()["meta"]["pagination"]["totalCount"] == 1


async def test_a_host_belongs_to_the_first_who_uses_it(api: Api) -> None:
    await made(api.one.api, hostname="one.example")
    answer = await api.other.api.post(
        "/v1/links", json={"destination": "https://example.com/", "hostname": "One.Example."}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == "hostname"
    await made(api.other.api, hostname="localhost")


@pytest.mark.parametrize(
    "path",
    [
        "/ünïcode",
        "/emoji-😀",
        "/a%20b",
        "/a b",
        "/100%",
        "/%e2%82%ac",
        "/rtl-\u202emark",
        "/%2e%2e/up",
        "/a//b",
        "/a;b=c,d",
    ],
)
async def test_unusual_paths_come_back_in_their_normal_form(api: Api, path: str) -> None:
    link = await made(api.one.api, path=path)
    assert link["path"].isascii()
    again = await api.one.api.post("/v1/links", json={"destination": "https://example.com/", "path": link["path"]})
    assert again.status_code == 409
    found = await api.one.api.get("/v1/links", params={"path": path})
    assert [one["id"] for one in found.json()["data"]] == [link["id"]]
