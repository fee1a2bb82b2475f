"""What every route shares: keys, tenants, request ids, unknown routes, and the OpenAPI document."""

import re
from typing import Any

import pytest

from tests.admin.conftest import Api, made
from tests.admin.test_links_api import DOCUMENTED

ROUTES = [
    ("GET", "/v1/links"),
    ("POST", "/v1/links"),
    ("GET", "/v1/links/{id}"),
    ("PUT", "/v1/links/{id}"),
    ("PATCH", "/v1/links/{id}"),
    ("DELETE", "/v1/links/{id}"),
    ("GET", "/v1/links/{id}/stats"),
    ("GET", "/v1/pipeline"),
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
