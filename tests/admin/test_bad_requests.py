"""Bad input: fields, bodies and parameters that make no sense are named, all at once, and nothing is made of them."""

from typing import Any

import pytest

from tests.admin.conftest import Api, made

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
    ("nesting", "application/json", b'{"title":' + b"[" * 900 + b"]" * 900 + b"}", 400, "VALIDATION_ERROR"),
    ("infinity", "application/json", b'{"title": 1e400}', 400, "VALIDATION_ERROR"),
    ("10,000 digits", "application/json", b'{"title": ' + b"1" * 10_000 + b"}", 400, "VALIDATION_ERROR"),
    ("a number of 65 bits", "application/json", b'{"title": 18446744073709551616}', 400, "VALIDATION_ERROR"),
    ("a key twice", "application/json", b'{"path": "/a", "path": "/a"}', 400, "VALIDATION_ERROR"),
    ("NUL in a value", "application/json", b'{"title": "\\u0000"}', 400, "VALIDATION_ERROR"),
    ("NUL in a key", "application/json", b'{"\\u0000": 1}', 400, "VALIDATION_ERROR"),
    ("a form of invalid UTF-8", "application/x-www-form-urlencoded", b"destination=%ff", 400, "VALIDATION_ERROR"),
    ("a field twice", "application/x-www-form-urlencoded", b"path=a&path=b", 400, "VALIDATION_ERROR"),
    ("a form with NUL", "application/x-www-form-urlencoded", b"title=%00", 400, "VALIDATION_ERROR"),
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
        ({"query[path": "/a"}, "query[path"),
        ({"query[page]": "1"}, "query[page]"),
        ({"query": '{"colour": "red"}'}, "query.colour"),
        ({"query": ["{}", "{}"]}, "query"),
        ({"hostname": "a b"}, "hostname"),
        ({"query[hostname]": "a b"}, "hostname"),
        ({"title": "a\0b"}, "title"),
        ({"path": "/a", "query.path": "/b"}, "path"),
        ({"page": ["1", "1"]}, "page"),
        ({"perPage": "1", "page_size": "1"}, "page_size"),
        ({"sortBy": "destination"}, "sortBy"),
        ({"sortOrder": "up"}, "sortOrder"),
        ({"startDate": "yesterday"}, "startDate"),
        ({"startDate": "2026-01-02", "endDate": "2026-01-01"}, "endDate"),
        ({"cursor": "garbage"}, "cursor"),
        ({"cursor": "eyJpZCI6Im1zZ18xMjM0NTYifQ"}, "cursor"),
        ({"cursor": "", "page": "2"}, "page"),
        ({"cursor": "", "sortBy": "title"}, "sortBy"),
    ],
)
async def test_bad_parameters_are_named(api: Api, parameters: dict[str, str | list[str]], field: str) -> None:
    answer = await api.one.api.get("/v1/links", params=parameters)
    assert answer.status_code == 400
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == [field]


async def test_all_bad_parameters_are_named_at_once(api: Api) -> None:
    answer = await api.one.api.get("/v1/links", params={"page": "0", "path": "/a?b", "query": "x", "colour": "red"})
    assert {detail["field"] for detail in answer.json()["error"]["details"]} == {"page", "path", "query", "colour"}
