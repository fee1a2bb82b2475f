"""A client written from the overview document alone, at home on every list and every kind of answer there is today."""

import uuid
from datetime import datetime
from typing import Any

import httpx2
import pytest

from admin.database import Connection
from tests.admin.conftest import Api, client_of
from tests.admin.oauth_apps import given
from tests.admin.people import session_of
from tests.admin.test_conversions import told, told_id

LISTS = [
    "/v1/links",
    "/v1/api-keys",
    "/v1/members",
    "/v1/invitations",
    "/v1/audit-log",
    "/v1/oauth/clients",
    "/v1/oauth/grants",
    "/v1/auth/grants",
    "/v1/conversions",
]


class Failure(Exception):
    """What the document says of an error."""

    def __init__(self, answer: httpx2.Response) -> None:
        body = answer.json()
        self.status, self.code = answer.status_code, str(body["error"]["code"])
        self.fields = [detail["field"] for detail in body["error"]["details"]]
        self.retry_after = body["error"].get("retryAfter")
        assert body["meta"]["requestId"]
        super().__init__(body["error"]["message"])


class Client:
    """Only what the document has: bearer, request ids, envelopes, pages, cursors, errors, limits, idempotency."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def call(self, method: str, path: str, **request: Any) -> Any:
        request_id = str(uuid.uuid4())
        headers = {"X-Request-ID": request_id, "Accept": "application/json", **request.pop("headers", {})}
        answer = await self._http.request(method, path, headers=headers, **request)
        assert answer.headers["x-request-id"] == request_id
        for name in ("limit", "remaining", "reset"):
            assert int(answer.headers[f"x-ratelimit-{name}"]) >= 0
        if answer.status_code >= 400:
            raise Failure(answer)
        return answer.json() if answer.status_code != 204 else None

    async def pages(self, path: str, **parameters: Any) -> list[Any]:
        rows, page = [], 1
        while True:
            body = await self.call("GET", path, params={"page": page, "perPage": 2, **parameters})
            told = body["meta"]["pagination"]
            assert set(told) == {"page", "perPage", "totalPages", "totalCount", "hasNextPage", "hasPrevPage"}
            assert (told["page"], told["hasPrevPage"]) == (page, page > 1)
            rows += body["data"]
            if not told["hasNextPage"]:
                assert len(rows) == told["totalCount"]
                return rows
            page += 1

    async def walk(self, path: str) -> list[Any]:
        rows, cursor = [], ""
        while True:
            body = await self.call("GET", path, params={"cursor": cursor, "limit": 2})
            rows += body["data"]
            if not body["meta"]["cursor"]["hasMore"]:
                assert body["meta"]["cursor"]["next"] is None
                return rows
            cursor = body["meta"]["cursor"]["next"]


@pytest.fixture
async def client(api: Api, connection: Connection) -> Client:
    owner = await session_of(api, "one@example.com")
    for number in range(5):
        await told(owner, await told_id(connection, number))
        await owner.post("/v1/links", json={"destination": f"https://example.com/{number}"})
        await owner.post("/v1/api-keys", json={"name": f"key {number}"})
        await owner.post("/v1/invitations", json={"email": f"person{number}@example.com"})
        await owner.post("/v1/oauth/clients", json={"name": f"app {number}", "permissions": ["links:read"]})
        await given(connection, api.one)
    return Client(owner)


@pytest.mark.parametrize("path", LISTS)
async def test_lists(client: Client, path: str) -> None:
    rows = await client.pages(path)
    assert len(rows) >= 1
    assert [row["id"] for row in await client.walk(path)] == [row["id"] for row in rows]
    ascending = await client.pages(path, sortBy="createdAt", sortOrder="asc")
    assert [row["id"] for row in ascending] == [row["id"] for row in reversed(rows)]
    assert await client.pages(path, startDate="2099-01-01") == []
    assert len(await client.pages(path, startDate="2024-01-01", endDate="2099-01-31")) == len(rows)
    if path != "/v1/links":
        for row in rows:
            assert set(row) == {"id", "type", "attributes"}
            datetime.fromisoformat(row["attributes"]["createdAt"])


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"startDate": "soon"}, "startDate"),
        ({"cursor": "!"}, "cursor"),
        ({"sortBy": "colour"}, "sortBy"),
        ({"page": "0"}, "page"),
        ({"status": "flying"}, "status"),
    ],
)
async def test_wrong_parameters(client: Client, path: str, parameters: dict[str, str], field: str) -> None:
    with pytest.raises(Failure) as caught:
        await client.call("GET", path, params=parameters)
    assert (caught.value.status, caught.value.code, caught.value.fields) == (400, "VALIDATION_ERROR", [field])


async def test_a_post_is_processed_once(client: Client) -> None:
    key = {"Idempotency-Key": "unique-request-id-123"}
    sent = {"destination": "https://example.com/once"}
    first, again = [await client.call("POST", "/v1/links", json=sent, headers=key) for _ in range(2)]
    assert first == again
    with pytest.raises(Failure) as caught:
        await client.call("POST", "/v1/links", json={"destination": "https://example.com/other"}, headers=key)
    assert caught.value.status == 422


async def test_errors(api: Api, client: Client) -> None:
    for http, path, status, code in (
        (client_of(api.app, "YOUR_API_KEY"), "/v1/links", 401, "INVALID_API_KEY"),
        (api.nobody, "/v1/links", 401, "AUTHENTICATION_REQUIRED"),
        (api.one.api, "/v1/links/0123456789abcdef", 404, "RESOURCE_NOT_FOUND"),
    ):
        answer = await http.get(path)
        failure = Failure(answer)
        assert (failure.status, failure.code) == (status, code)
