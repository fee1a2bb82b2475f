"""Many links at once: each has its own result, in its place, as if it had been alone."""

import asyncio
from typing import Any

import pytest

from admin.database import Connection
from admin.errors import AlreadyExists, Invalid
from admin.identity import principal
from admin.links import bulk_routes, changes, links, taken
from admin.links.fields import LinkChange
from shared.links import Address, Published
from shared.redis import Redis
from tests.admin.conftest import Api, made
from tests.admin.people import error_of

NEW = {"destination": "https://example.com/"}


async def leads_to(redis: Redis, link: dict[str, Any]) -> str | None:
    value = await redis.get(Address(link["hostname"], link["path"]).key)
    entry = Published.from_bytes(value).entry if isinstance(value, bytes) else None
    return entry.destination if entry else None


async def test_each_new_link_has_its_own_result(api: Api, redis: Redis) -> None:
    await made(api.one.api, path="/taken", externalId="x")
    sent = [
        NEW | {"path": "/a", "tags": ["spring"]},
        {"destination": "nowhere", "title": 7},
        NEW | {"path": "/taken"},
        NEW | {"path": "/a"},
        NEW | {"externalId": "x"},
        NEW | {"hostname": "localhost", "clickLimit": 5},
        NEW | {"password": "a"},
        {"destination": "http://localhost/loop"},
        NEW | {"unknown": 1},
    ]
    answer = await api.one.api.post("/v1/links/bulk", json={"links": sent})
    assert answer.status_code == 200
    told = answer.json()
    assert told["success"] is False
    assert [one["index"] for one in told["data"]] == list(range(9))
    assert [one["status"] for one in told["data"]] == [201, 400, 409, 409, 409, 201, 400, 400, 400]
    wrong = [sorted(detail["field"] for detail in (one["error"] or {"details": []})["details"]) for one in told["data"]]
    assert wrong == [[], ["destination", "title"], [], [], [], [], ["password"], ["destination"], ["unknown"]]
    for index in (0, 5):
        link = told["data"][index]["data"]
        assert (await api.one.api.get(f"/v1/links/{link['id']}")).json()["data"] == link
        assert await leads_to(redis, link) == "https://example.com/"
    history = (await api.one.api.get("/v1/audit-log?action=link.created")).json()
    assert len(history["data"]) == 3


async def test_each_change_has_its_own_result(api: Api, redis: Redis) -> None:
    one, two, _taken = [await made(api.one.api, path=path) for path in ("/one", "/two", "/taken")]
    foreign = await made(api.other.api)
    sent: list[dict[str, Any]] = [
        {"id": one["id"], "destination": "https://new.example/"},
        {"id": two["id"], "path": "/taken", "title": "not changed either"},
        {"id": foreign["id"], "title": "a"},
        {"title": "of nobody"},
        {"id": one["id"], "title": "twice"},
        {"id": one["id"], "robots": "all"},
        {"id": two["id"], "password": "a"},
    ]
    told = (await api.one.api.patch("/v1/links/bulk", json={"links": sent})).json()
    assert [one["status"] for one in told["data"]] == [200, 409, 404, 400, 200, 400, 400]
    changed = (await api.one.api.get(f"/v1/links/{one['id']}")).json()["data"]
    assert (changed["destination"], changed["title"]) == ("https://new.example/", "twice")
    assert told["data"][4]["data"] == changed
    assert (await api.one.api.get(f"/v1/links/{two['id']}")).json()["data"] == two
    assert await leads_to(redis, one) == "https://new.example/"


async def test_links_that_swap_their_addresses_are_changed_in_their_order(api: Api, redis: Redis) -> None:
    a, b = [await made(api.one.api, path=path, destination=f"https://example.com{path}") for path in ("/a", "/b")]
    sent = [
        {"id": a["id"], "path": "/b"},
        {"id": b["id"], "path": "/c"},
        {"id": a["id"], "path": "/b", "clickLimit": 5},
        {"id": b["id"], "path": "/a"},
        {"id": b["id"], "externalId": "x"},
        {"id": a["id"], "externalId": "x", "title": "not changed"},
    ]
    told = (await api.one.api.patch("/v1/links/bulk", json={"links": sent})).json()
    assert [one["status"] for one in told["data"]] == [409, 200, 200, 200, 200, 409]
    assert await leads_to(redis, a) == "https://example.com/b"
    assert await leads_to(redis, b) == "https://example.com/a"
    assert await leads_to(redis, a | {"path": "/c"}) is None
    listed = (await api.one.api.get("/v1/links?sortBy=path&sortOrder=asc")).json()["data"]
    assert listed == [told["data"][4]["data"], told["data"][2]["data"]]


async def test_many_changes_cost_no_more_questions_than_a_few(api: Api, connection: Connection) -> None:
    """Also where most are refused."""
    await made(api.other.api, hostname="other.example")
    ids = [(await made(api.one.api, externalId=f"{number}"))["id"] for number in range(41)]
    asked: list[list[Any]] = []
    for some in (ids[:5], ids[5:40]):
        asked.append([])
        async with connection.transaction():
            found = await links.get_many(connection, api.one.organization_id, some)
            wanted = [(found[link], LinkChange(path=f"/{link}", title=link)) for link in some[:3]]
            wanted += [(found[link], LinkChange(external_id="40")) for link in some[3:4]]
            wanted += [(found[link], LinkChange(hostname="other.example")) for link in some[4:]]
            with connection.query_logger(asked[-1].append):
                done = await changes.change_many(connection, principal.system(api.one.organization_id), wanted)
        assert [type(one) for one in done] == [links.Link] * 3 + [AlreadyExists] + [Invalid] * (len(some) - 4)
    assert len(asked[1]) <= len(asked[0]) < 20  # the first time the driver asks for types, too


@pytest.mark.parametrize("purge", [True, False])
async def test_each_deletion_has_its_own_result(api: Api, redis: Redis, purge: bool) -> None:
    one, two = await made(api.one.api), await made(api.one.api)
    foreign = await made(api.other.api)
    ids = [one["id"], foreign["id"], two["id"], one["id"], "nothing"]
    told = (await api.one.api.request("DELETE", "/v1/links/bulk", json={"ids": ids, "purge": purge})).json()
    assert [one["status"] for one in told["data"]] == [200, 404, 200, 404, 404]
    assert told["data"][0]["data"] == one
    assert [await leads_to(redis, link) for link in (one, two)] == [None, None]
    restored = await api.one.api.post(f"/v1/links/{one['id']}/restore")
    assert restored.status_code == (404 if purge else 200)
    assert await leads_to(redis, foreign) is not None


async def test_many_at_once_never_wait_for_each_other(api: Api) -> None:
    """What two requests both want, in opposite orders, one of them gets, and each has its answer."""
    for number in range(3):
        wanted = [NEW | {"externalId": f"{number}-{index}"} for index in range(200)]
        await twice_at_once(api, "POST", [wanted, wanted[::-1]], [201, 409])
    links = [(await made(api.one.api))["id"] for _ in range(60)]
    paths = [{"path": f"/{number}", "externalId": f"m-{number}"} for number in range(30)]
    one, other = (
        [{"id": link, **fields} for link, fields in zip(some, order, strict=True)]
        for some, order in ((links[:30], paths), (links[30:], paths[::-1]))
    )
    await twice_at_once(api, "PATCH", [one, other], [200, 409])


async def twice_at_once(api: Api, method: str, both: list[list[dict[str, Any]]], statuses: list[int]) -> None:
    """Of what is sent at once, each thing succeeds in one of the two requests."""
    asked = [api.one.api.request(method, "/v1/links/bulk", json={"links": links}) for links in both]
    answers = [answer.json() for answer in await asyncio.gather(*asked)]
    first, second = ([one["status"] for one in answer["data"]] for answer in answers)
    assert all(sorted(pair) == statuses for pair in zip(first, second[::-1], strict=True)), answers


async def test_taken_external_ids_are_not_tried_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    paths = iter(["/taken", "/free", "/other"])

    def drawing() -> str:
        drawn.append(next(paths))
        return drawn[-1]

    await made(api.one.api, path="/taken", externalId="x")
    monkeypatch.setattr(taken, "random_path", drawing)
    refused = await api.one.api.post("/v1/links", json=NEW | {"externalId": "x"})
    assert error_of(refused) == (409, "RESOURCE_ALREADY_EXISTS")
    assert drawn == ["/taken"]
    assert (await made(api.one.api))["path"] == "/free"


async def test_a_host_is_taken_only_by_a_link_that_there_is(api: Api) -> None:
    await made(api.one.api, externalId="x", path="/x")
    link = await made(api.one.api)
    sent: list[dict[str, Any]] = [
        NEW | {"hostname": "a.example", "externalId": "x"},
        NEW | {"hostname": "b.example", "destination": "https://b.example/loop"},
        NEW | {"hostname": "c.example", "path": "/a"},
        NEW | {"hostname": "c.example", "path": "/a"},
    ]
    told = (await api.one.api.post("/v1/links/bulk", json={"links": sent})).json()["data"]
    assert [one["status"] for one in told] == [409, 400, 201, 409]
    changed = {"links": [{"id": link["id"], "hostname": "d.example", "externalId": "x"}]}
    assert (await api.one.api.patch("/v1/links/bulk", json=changed)).json()["data"][0]["status"] == 409
    domains = (await api.one.api.get("/v1/domains")).json()["data"]
    assert [domain["attributes"]["hostname"] for domain in domains] == ["c.example"]


async def test_what_is_deleted_already_is_purged_with_the_rest(api: Api) -> None:
    deleted, other = await made(api.one.api, path="/a"), await made(api.one.api)
    await api.one.api.delete(f"/v1/links/{deleted['id']}")
    ids = [deleted["id"], other["id"]]
    for purge, statuses in ((False, [404, 200]), (True, [200, 200])):
        told = (await api.one.api.request("DELETE", "/v1/links/bulk", json={"ids": ids, "purge": purge})).json()
        assert [one["status"] for one in told["data"]] == statuses
    await made(api.one.api, path="/a")


@pytest.mark.parametrize("sent", [[], [NEW] * 1001, {}, [1], "a"])
async def test_too_few_or_too_many_or_none_at_all_are_refused(api: Api, sent: Any) -> None:
    assert error_of(await api.one.api.post("/v1/links/bulk", json={"links": sent})) == (400, "VALIDATION_ERROR")
    assert (await api.one.api.get("/v1/links")).json()["data"] == []


async def test_many_links_are_made_once_for_their_key(api: Api) -> None:
    sent, headers = {"links": [NEW] * 50}, {"Idempotency-Key": "k"}
    first = await api.one.api.post("/v1/links/bulk", json=sent, headers=headers)
    again = await api.one.api.post("/v1/links/bulk", json=sent, headers=headers)
    assert again.json() == first.json()
    assert (await api.one.api.get("/v1/links")).json()["meta"]["pagination"]["totalCount"] == 50


async def test_who_waits_too_long_for_a_turn_is_told_to_come_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_routes._turns, "_wait_s", 0.01)
    async with bulk_routes._turns, bulk_routes._turns:
        answer = await api.one.api.post("/v1/links/bulk", json={"links": [NEW]})
    assert error_of(answer) == (503, "SERVICE_UNAVAILABLE")
    assert answer.headers["Retry-After"] == "1"
    assert (await api.one.api.post("/v1/links/bulk", json={"links": [NEW]})).json()["success"] is True
