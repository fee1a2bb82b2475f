"""Many links at once: each has its own result, in its place, as if it had been alone."""

from typing import Any

import pytest

from admin.links import bulk_routes
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


@pytest.mark.parametrize("links", [[], [NEW] * 1001, {}, [1], "a"])
async def test_too_few_or_too_many_or_none_at_all_are_refused(api: Api, links: Any) -> None:
    assert error_of(await api.one.api.post("/v1/links/bulk", json={"links": links})) == (400, "VALIDATION_ERROR")
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
