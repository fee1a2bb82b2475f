"""The routes of links, as a client of the Linkkit document sees them."""

import asyncio
import re
from datetime import datetime
from typing import Any

import pytest

from admin.links.links import PATH_ALPHABET
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
    assert (await api.one.api.delete(f"/v1/links/{shop['id']}")).status_code == 200
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


BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("no destination", {}, "destination"),
    ("destination of another scheme", {"destination": "javascript:alert(1)"}, "destination"),
    ("ftp", {"destination": "ftp://example.com/"}, "destination"),
    ("destination with a control character", {"destination": "https://example.com/\r\nSet-Cookie: a=b"}, "destination"),
    ("destination with a tab", {"destination": "https://exa\tmple.com/"}, "destination"),
    ("destination with a backslash", {"destination": "https:\\\\example.com/"}, "destination"),
    ("destination with credentials", {"destination": "https://user:pw@example.com/"}, "destination"),
    ("destination without a host", {"destination": "https:///path"}, "destination"),
    ("destination that is relative", {"destination": "/path"}, "destination"),
    ("destination of our own host", {"destination": "http://LOCALHOST:9/x"}, "destination"),
    (
        "destination of the link's own host",
        {"destination": "http://new.example/", "hostname": "new.example"},
        "destination",
    ),
    ("destination too long", {"destination": "https://example.com/" + "a" * 5000}, "destination"),
    ("destination of another type", {"destination": 7}, "destination"),
    ("hostname that is none", {"hostname": "not a host"}, "hostname"),
    ("hostname that is an IPv6 address", {"hostname": "[::1]"}, "hostname"),
    ("reserved path", {"path": "/healthz"}, "path"),
    ("reserved path below .well-known", {"path": "/.well-known/security.txt"}, "path"),
    ("reserved trailing plus", {"path": "/a+"}, "path"),
    ("reserved root", {"path": "/"}, "path"),
    ("path with a query", {"path": "/a?b=c"}, "path"),
    ("path with a fragment", {"path": "/a#b"}, "path"),
    ("path with NUL", {"path": "/a\0"}, "path"),
    ("path with encoded NUL", {"path": "/a%00"}, "path"),
    ("path too long", {"path": "/" + "a" * 3000}, "path"),
    ("path that is null", {"path": ["/a"]}, "path"),
    ("title with NUL", {"title": "a\0b"}, "title"),
    ("title too long", {"title": "a" * 501}, "title"),
    ("unknown field", {"clicks": 5}, "clicks"),
    ("id", {"id": "abc"}, "id"),
    ("organization of somebody else", {"organizationId": 1}, "organizationId"),
]


@pytest.mark.parametrize(("body", "field"), [case[1:] for case in BAD_FIELDS], ids=[case[0] for case in BAD_FIELDS])
async def test_bad_fields_are_named(api: Api, body: dict[str, Any], field: str) -> None:
    sent = body if "destination" in body or field == "destination" else {"destination": "https://example.com/", **body}
    answer = await api.one.api.post("/v1/links", json=sent)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert answer.json()["success"] is False
    assert error["code"] == "VALIDATION_ERROR"
    assert [detail["field"] for detail in error["details"]] == [field]
    assert error["details"][0]["message"].endswith(".")
    assert (await api.one.api.get("/v1/links")).json()["data"] == []


async def test_all_violations_are_reported_at_once(api: Api) -> None:
    answer = await api.one.api.post("/v1/links", json={"destination": "x", "path": "/a?b", "hostname": "-", "more": 1})
    fields = {detail["field"] for detail in answer.json()["error"]["details"]}
    assert fields == {"destination", "path", "hostname", "more"}


BAD_BODIES: list[tuple[str, str | None, bytes, int, str]] = [
    ("not JSON", "application/json", b"{", 400, "VALIDATION_ERROR"),
    ("not an object", "application/json", b"[1]", 400, "VALIDATION_ERROR"),
    ("a bare null", "application/json", b"null", 400, "VALIDATION_ERROR"),
    ("nothing", "application/json", b"", 400, "VALIDATION_ERROR"),
    ("NaN", "application/json", b'{"destination": NaN}', 400, "VALIDATION_ERROR"),
    ("invalid UTF-8", "application/json", b'{"destination": "\xff"}', 400, "VALIDATION_ERROR"),
    ("a lone surrogate", "application/json", b'{"destination": "\\ud800"}', 400, "VALIDATION_ERROR"),
    ("deep nesting", "application/json", b'{"destination":' + b"[" * 100_000, 400, "VALIDATION_ERROR"),
    ("a form of invalid UTF-8", "application/x-www-form-urlencoded", b"destination=%ff", 400, "VALIDATION_ERROR"),
    ("a field twice", "application/x-www-form-urlencoded", b"path=a&path=b", 400, "VALIDATION_ERROR"),
    ("another type", "text/plain", b"destination=https://example.com/", 400, "VALIDATION_ERROR"),
    ("an empty form", "application/x-www-form-urlencoded", b"", 400, "VALIDATION_ERROR"),
    ("two megabytes", "application/json", b'{"a":"' + b"a" * 2_000_000 + b'"}', 413, "PAYLOAD_TOO_LARGE"),
]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"), [case[1:] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES]
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_bad_bodies(api: Api, method: str, content_type: str, body: bytes, status: int, code: str) -> None:
    link = await made(api.one.api)
    target = "/v1/links" if method == "POST" else f"/v1/links/{link['id']}"
    if method == "PUT" and body == b"" and "form" in content_type:
        status, code = 200, ""  # a change of nothing
    answer = await api.one.api.request(method, target, content=body, headers={"content-type": content_type})
    assert answer.status_code == status, answer.text
    assert answer.json().get("error", {}).get("code", "") == code


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"page": "0"}, "page"),
        ({"page": "x"}, "page"),
        ({"limit": "-1"}, "limit"),
        ({"perPage": "1e3"}, "perPage"),
        ({"page": "99999999999999999999"}, "page"),
        ({"colour": "red"}, "colour"),
        ({"query[colour]": "red"}, "query[colour]"),
        ({"query": "path"}, "query"),
        ({"query": '{"path": 1}'}, "query"),
        ({"hostname": "a b"}, "hostname"),
        ({"title": "a\0b"}, "title"),
    ],
)
async def test_bad_parameters_are_named(api: Api, parameters: dict[str, str], field: str) -> None:
    answer = await api.one.api.get("/v1/links", params=parameters)
    assert answer.status_code == 400
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == [field]


ROUTES = [
    ("GET", "/v1/links"),
    ("POST", "/v1/links"),
    ("GET", "/v1/links/{id}"),
    ("PUT", "/v1/links/{id}"),
    ("PATCH", "/v1/links/{id}"),
    ("DELETE", "/v1/links/{id}"),
    ("GET", "/v1/links/{id}/stats"),
]


async def test_the_routes_are_those_of_this_test(api: Api) -> None:
    paths = (await api.nobody.get("/openapi.json")).json()["paths"]
    documented = {
        (method.upper(), path.replace("{link_id}", "{id}")) for path, methods in paths.items() for method in methods
    }
    assert documented == set(ROUTES)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_wants_a_key(api: Api, method: str, path: str) -> None:
    target = path.format(id="0123456789abcdef")
    missing = await api.nobody.request(method, target)
    assert (missing.status_code, missing.json()["error"]["code"]) == (401, "AUTHENTICATION_REQUIRED")
    assert "WWW-Authenticate" in missing.headers
    for wrong in ("Bearer nonsense", f"Bearer lk_live_{'a' * 38}", "Bearer \x7f", "Basic eDp5"):
        answer = await api.nobody.request(method, target, headers={"Authorization": wrong})
        expected = "INVALID_API_KEY" if wrong.startswith("Bearer") else "AUTHENTICATION_REQUIRED"
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, expected)


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "{id}" in route[1]])
async def test_links_of_others_and_unknown_ones_are_not_found(api: Api, method: str, path: str) -> None:
    link = await made(api.one.api, path="/mine")
    for link_id in (link["id"], "0123456789abcdef", "%00", "a" * 5000, "ü"):
        answer = await api.other.api.request(method, path.format(id=link_id), json={"title": "stolen"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "RESOURCE_NOT_FOUND"), link_id
    assert (await api.one.api.get(f"/v1/links/{link['id']}")).json()["data"] == link
    assert (await api.other.api.get("/v1/links")).json()["data"] == []


async def test_a_host_belongs_to_the_first_who_uses_it(api: Api) -> None:
    await made(api.one.api, hostname="one.example")
    answer = await api.other.api.post(
        "/v1/links", json={"destination": "https://example.com/", "hostname": "One.Example."}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == "hostname"
    await made(api.other.api, hostname="localhost")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/", 404, "RESOURCE_NOT_FOUND"),
        ("PUT", "/v1/links", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/links/0123456789abcdef", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_unknown_routes_and_methods(api: Api, method: str, path: str, status: int, code: str) -> None:
    answer = await api.one.api.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["meta"]["requestId"] == answer.headers["x-request-id"]


async def test_request_ids_are_echoed_when_sensible(api: Api) -> None:
    mine = await api.one.api.get("/v1/links", headers={"X-Request-ID": "3f2c-mine"})
    assert mine.headers["x-request-id"] == mine.json()["meta"]["requestId"] == "3f2c-mine"
    made_up = await api.one.api.get("/v1/links", headers={"X-Request-ID": "<script>"})
    assert re.fullmatch(r"req_[0-9a-f]{24}", made_up.headers["x-request-id"])


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


async def test_an_unexpected_fault_tells_nothing(api: Api, connection: Any) -> None:
    await connection.execute("alter table links rename to links_away")
    answer = await api.one.api.get("/v1/links")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "INTERNAL_ERROR"
    assert "links_away" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-request-id"] == answer.json()["meta"]["requestId"]


async def test_the_docs_work_without_the_internet(api: Api) -> None:
    page = await api.nobody.get("/docs")
    assert page.status_code == 200
    resources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert resources
    for resource in resources:
        assert resource.startswith("/"), resource
        assert (await api.nobody.get(resource)).status_code == 200


async def test_answers_agree_with_the_openapi_document(api: Api) -> None:
    document = (await api.nobody.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    link = document["components"]["schemas"]["LinkResource"]
    assert set(link["properties"]) == DOCUMENTED
    assert set(await made(api.one.api)) == DOCUMENTED
