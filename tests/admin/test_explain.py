"""Explaining agrees with the edge on any link and any visitor, and says why."""

from typing import Any

import pytest

from tests.admin.conftest import Api, made
from tests.admin.people import error_of

PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
    "Mobile/15E148 Safari/604.1"
)
RULES = [
    {"when": {"country": "DE", "time": {"from": "09:00", "until": "17:00"}}, "destination": "https://example.de/"},
    {"when": {"device": "mobile"}, "destination": "https://m.example/"},
]


async def explained(api: Api, link: dict[str, Any], **supposed: Any) -> dict[str, Any]:
    answer = await api.one.api.post(f"/v1/links/{link['id']}/explain", json=supposed)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def test_a_visit_is_explained_step_by_step(api: Api) -> None:
    link = await made(api.one.api, rules=RULES, queryPolicy="append", utm={"source": "mail"})
    told = await explained(api, link, userAgent=PHONE, country="de", time="2026-03-02T20:00:00Z", query="a=1&qr=1")
    assert (told["outcome"], told["reason"], told["ruleId"], told["variantId"]) == ("redirect", "rule", 2, None)
    assert told["destination"] == "https://m.example/?utm_source=mail&a=1"
    assert told["visitor"] | {"browser": ""} == {
        "country": "DE",
        "device": "mobile",
        "os": "ios",
        "browser": "",
        "languages": [],
        "referrerHost": "",
        "isAutomatic": False,
    }
    one, two = [step for step in told["steps"] if step.startswith("Rule")]
    assert "Rule 1 is not met" in one
    assert "Rule 2 is met" in two
    early = await explained(api, link, userAgent=PHONE, purpose="prefetch", country="DE", time="2026-03-02T10:00:00Z")
    assert (early["visitor"]["isAutomatic"], early["visitor"]["device"]) == (True, "mobile")
    assert (early["ruleId"], early["destination"]) == (1, "https://example.de/?utm_source=mail")


@pytest.mark.parametrize(
    ("fields", "supposed", "outcome", "destination"),
    [
        ({}, {}, "redirect", "https://example.com/"),
        ({"archived": True}, {}, "gone", None),
        ({"archived": True, "fallbackUrl": "https://f.example/"}, {}, "gone", "https://f.example/"),
        ({"disabled": True, "fallbackUrl": "https://f.example/"}, {}, "gone", None),
        ({"startsAt": "2026-01-01T00:00:00Z"}, {"time": "2025-12-31T23:59:59.999Z"}, "not_started", None),
        ({"expiresAt": "2026-01-01T00:00:00Z"}, {"time": "2026-01-01T00:00:00Z"}, "gone", None),
        ({"password": "a"}, {}, "password", None),
        ({"password": "a"}, {"knowsPassword": True}, "redirect", "https://example.com/"),
        ({"clickLimit": 0}, {"userAgent": PHONE}, "gone", None),
        ({"clickLimit": 0, "fallbackUrl": "https://f.example/"}, {"userAgent": "curl/8"}, "gone", "https://f.example/"),
        ({"clickLimit": 0, "password": "a"}, {"purpose": "prefetch"}, "gone", None),
        ({"clickLimit": 1}, {"userAgent": "curl/8"}, "redirect", "https://example.com/"),
        ({"preview": {"title": "a"}}, {"userAgent": "WhatsApp/2"}, "preview", None),
    ],
    ids=str,
)
async def test_what_becomes_of_a_visit(
    api: Api, fields: dict[str, Any], supposed: dict[str, Any], outcome: str, destination: str | None
) -> None:
    told = await explained(api, await made(api.one.api, **fields), **supposed)
    assert (told["outcome"], told["destination"]) == (outcome, destination)
    assert told["steps"]


async def test_a_host_says_where_those_go_for_whom_a_link_is_closed(api: Api) -> None:
    over = "https://host.example/over"
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({"archived": True}, over),
        ({"disabled": True}, None),
        ({"startsAt": "2999-01-01T00:00:00Z"}, over),
        ({"clickLimit": 0}, over),
        ({"clickLimit": 0, "fallbackUrl": "https://f.example/"}, "https://f.example/"),
    ]
    links = [await made(api.one.api, hostname="go.example.com", **fields) for fields, _ in cases]
    [domain] = (await api.one.api.get("/v1/domains", params={"hostname": "go.example.com"})).json()["data"]
    changed = await api.one.api.patch(f"/v1/domains/{domain['id']}", json={"expiredUrl": over})
    assert changed.status_code == 200, changed.text
    for link, (fields, destination) in zip(links, cases, strict=True):
        for agent in (PHONE, "curl/8"):
            told = await explained(api, link, userAgent=agent)
            assert told["destination"] == destination, fields
            assert told["outcome"] == ("not_started" if "startsAt" in fields else "gone")


@pytest.mark.parametrize(
    "supposed", [{"country": "DEU"}, {"time": "now"}, {"userAgent": "a\x07"}, {"other": 1}, {"ip": "1" * 46}], ids=str
)
async def test_what_can_not_be_supposed_is_refused(api: Api, supposed: dict[str, Any]) -> None:
    link = await made(api.one.api)
    answer = await api.one.api.post(f"/v1/links/{link['id']}/explain", json=supposed)
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    foreign = await api.other.api.post(f"/v1/links/{link['id']}/explain", json={})
    assert error_of(foreign) == (404, "RESOURCE_NOT_FOUND")
