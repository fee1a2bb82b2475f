"""Everything a link can be: each field there and back, what is said of a wrong one, and what the edge is told."""

from typing import Any

import pytest

from shared.entries import PLAIN, Entry, Preview, Rule, Terms, Variant
from shared.links import Address, Published
from shared.redis import Redis
from tests.admin.conftest import Api, made

EVERYTHING: dict[str, Any] = {
    "title": "Spring",
    "tags": ["spring", "mail"],
    "folder": "campaigns",
    "notes": "first line\nsecond line",
    "externalId": "crm-17",
    "archived": False,
    "disabled": False,
    "startsAt": "2026-03-01T08:00:00.000Z",
    "expiresAt": "2026-04-01T08:00:00.250Z",
    "clickLimit": 1000,
    "fallbackUrl": "https://example.com/over",
    "redirectStatus": 307,
    "cacheSeconds": 60,
    "queryPolicy": "append",
    "clickIdParameter": "click",
    "rules": [
        {"id": 1, "when": {"country": ["DE", "AT"], "device": ["mobile"]}, "destination": "https://example.de/"},
        {"id": 2, "when": {"language": ["pt"]}, "destination": "https://example.pt/"},
    ],
    "variants": [
        {"id": 3, "weight": 1, "destination": "https://example.com/a"},
        {"id": 4, "weight": 3, "destination": "https://example.com/b"},
    ],
    "preview": {"title": "Spring sale", "description": "All week", "image": "https://example.com/i.png"},
    "utm": {"source": "letter", "campaign": "spring"},
    "robots": "noindex",
    "isPublicStats": True,
    "metadata": {"any": ["thing", {"nested": None}]},
}
TAKEN_AWAY: dict[str, Any] = {
    "title": None,
    "tags": [],
    "folder": None,
    "notes": None,
    "externalId": None,
    "archived": False,
    "disabled": False,
    "startsAt": None,
    "expiresAt": None,
    "clickLimit": None,
    "fallbackUrl": None,
    "redirectStatus": 302,
    "cacheSeconds": 0,
    "queryPolicy": "none",
    "clickIdParameter": None,
    "rules": [],
    "variants": [],
    "preview": {},
    "utm": {},
    "robots": None,
    "isPublicStats": False,
    "metadata": {},
}


PART = {"destination": "https://a.example/"}


def without_ids(fields: dict[str, Any]) -> dict[str, Any]:
    """As a client sends them first."""
    parts = {
        name: [{key: value for key, value in part.items() if key != "id"} for part in fields[name]]
        for name in ("rules", "variants")
    }
    return fields | parts


async def entry(redis: Redis, link: dict[str, Any]) -> Entry | None:
    """What the edge knows of it."""
    value = await redis.get(Address(link["hostname"], link["path"]).key)
    assert isinstance(value, bytes)
    return Published.from_bytes(value).entry


async def test_every_field_comes_back_and_can_be_taken_away(api: Api) -> None:
    link = await made(api.one.api, **without_ids(EVERYTHING))
    assert {name: link[name] for name in EVERYTHING} == EVERYTHING
    assert (await api.one.api.get(f"/v1/links/{link['id']}")).json()["data"] == link
    assert (await api.one.api.get("/v1/links?tag=mail&folder=campaigns")).json()["data"] == [link]
    plain = (await api.one.api.put(f"/v1/links/{link['id']}", json=TAKEN_AWAY)).json()["data"]
    assert {name: plain[name] for name in TAKEN_AWAY} == TAKEN_AWAY
    assert set(EVERYTHING) == set(TAKEN_AWAY)


async def test_a_new_link_has_what_it_would_have_with_everything_taken_away(api: Api) -> None:
    link = await made(api.one.api)
    assert {name: link[name] for name in TAKEN_AWAY} == TAKEN_AWAY


async def test_the_edge_is_told_what_it_needs(api: Api, redis: Redis) -> None:
    link = await made(api.one.api, **without_ids(EVERYTHING), password="open sesame")
    told = await entry(redis, link)
    assert told is not None
    assert told.terms.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert told.terms.click_id_key
    utm = "utm_source=letter&utm_campaign=spring"
    assert told == Entry(
        told.link_id,
        api.one.organization_id,
        f"https://example.com/?{utm}",
        307,
        60,
        "noindex",
        Terms(
            "",
            1772352000000,
            1775030400250,
            1000,
            "https://example.com/over",
            told.terms.password_hash,
            "append",
            "click",
            (
                Rule(1, {"country": ["DE", "AT"], "device": ["mobile"]}, f"https://example.de/?{utm}"),
                Rule(2, {"language": ["pt"]}, f"https://example.pt/?{utm}"),
            ),
            (
                Variant(3, 1, f"https://example.com/a?{utm}"),
                Variant(4, 3, f"https://example.com/b?{utm}"),
            ),
            Preview("Spring sale", "All week", "https://example.com/i.png"),
            told.terms.click_id_key,
        ),
    )
    await api.one.api.put(f"/v1/links/{link['id']}", json=TAKEN_AWAY | {"password": None})
    told = await entry(redis, link)
    assert told is not None
    assert told.is_plain
    assert told[2:6] == ("https://example.com/", 302, 0, "")


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"archived": True}, "archived"),
        ({"disabled": True}, "disabled"),
        ({"archived": True, "disabled": True}, "disabled"),
    ],
)
async def test_a_link_at_rest_is_told_as_that(api: Api, redis: Redis, fields: dict[str, Any], state: str) -> None:
    told = await entry(redis, await made(api.one.api, **fields))
    assert told is not None
    assert told.terms == PLAIN._replace(state=state)


async def test_a_password_is_never_shown(api: Api) -> None:
    link = await made(api.one.api, password="open sesame")
    assert link["hasPassword"] is True
    assert "sesame" not in (await api.one.api.get(f"/v1/links/{link['id']}/history")).text
    changed = await api.one.api.patch(f"/v1/links/{link['id']}", json={"title": "a"})
    assert changed.json()["data"]["hasPassword"] is True
    changed = await api.one.api.patch(f"/v1/links/{link['id']}", json={"password": None})
    assert changed.json()["data"]["hasPassword"] is False


async def test_rules_and_variants_keep_their_ids_and_never_get_an_old_one(api: Api) -> None:
    link = await made(api.one.api, **without_ids(EVERYTHING))
    kept = link["rules"][1] | {"destination": "https://example.com/other"}
    new = {"when": {"os": "ios"}, "destination": "https://example.com/ios"}
    answer = await api.one.api.put(f"/v1/links/{link['id']}", json={"rules": [new, kept]})
    assert answer.status_code == 200, answer.text
    changed = answer.json()["data"]
    assert [rule["id"] for rule in changed["rules"]] == [5, 2]
    emptied = await api.one.api.put(f"/v1/links/{link['id']}", json={"rules": [], "variants": []})
    assert emptied.json()["data"]["rules"] == []
    changed = (await api.one.api.put(f"/v1/links/{link['id']}", json={"rules": [new]})).json()["data"]
    assert [rule["id"] for rule in changed["rules"]] == [6]


@pytest.mark.parametrize("status", [301, 308])
async def test_a_lasting_redirect_comes_with_a_warning(api: Api, status: int) -> None:
    answer = await api.one.api.post("/v1/links", json={"destination": "https://a.example/", "redirectStatus": status})
    assert "not counted" in answer.json()["meta"]["warnings"][0]
    answer = await api.one.api.put(f"/v1/links/{answer.json()['data']['id']}", json={"redirectStatus": 302})
    assert answer.json()["meta"]["warnings"] == []


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"tags": ["a" * 51]}, ["tags.0"]),
        ({"tags": [str(number) for number in range(51)]}, ["tags"]),
        ({"tags": "spring"}, ["tags"]),
        ({"folder": ""}, ["folder"]),
        ({"notes": "a" * 5001}, ["notes"]),
        ({"startsAt": "2026-03-01"}, ["startsAt"]),
        ({"startsAt": "2026-03-01T08:00:00"}, ["startsAt"]),
        ({"startsAt": 1772352000}, ["startsAt"]),
        ({"expiresAt": "0001-01-01T00:00:00+10:00"}, ["expiresAt"]),
        ({"startsAt": "2026-03-01T08:00:00Z", "expiresAt": "2026-03-01T08:00:00Z"}, ["expiresAt"]),
        ({"clickLimit": -1}, ["clickLimit"]),
        ({"clickLimit": "5"}, ["clickLimit"]),
        ({"fallbackUrl": "javascript:alert(1)"}, ["fallbackUrl"]),
        ({"fallbackUrl": "http://localhost/x"}, ["fallbackUrl"]),
        ({"password": ""}, ["password"]),
        ({"redirectStatus": 303}, ["redirectStatus"]),
        ({"cacheSeconds": 31536001}, ["cacheSeconds"]),
        ({"queryPolicy": "all"}, ["queryPolicy"]),
        ({"clickIdParameter": "a b"}, ["clickIdParameter"]),
        ({"rules": [{"when": {}, "destination": "https://a.example/"}]}, ["rules.0.when"]),
        ({"rules": [{"when": {"country": "DE"}, "destination": "http://localhost/x"}]}, ["rules.0.destination"]),
        ({"rules": [{"when": {"country": "DE"}, "destination": "https://a.example/", "id": 9}]}, ["rules.0.id"]),
        ({"variants": [{"destination": "https://a.example/", "weight": 0}]}, ["variants"]),
        ({"variants": [{"destination": "https://a.example/", "weight": 1001}]}, ["variants.0.weight"]),
        ({"preview": {"title": "a\x07"}}, ["preview.title"]),
        ({"preview": {"other": "a"}}, ["preview.other"]),
        ({"utm": {"source": ""}}, ["utm.source"]),
        ({"robots": "all"}, ["robots"]),
        ({"metadata": {"a": "b" * 20_000}}, ["metadata"]),
        ({"metadata": []}, ["metadata"]),
        ({"hasPassword": True}, ["hasPassword"]),
        ({"destination": "nowhere", "tags": [""], "robots": "all"}, ["destination", "robots", "tags.0"]),
        (
            {"title": "", "robots": "all", "startsAt": "2026-03-01T08:00:00Z", "expiresAt": "2026-03-01T07:00:00Z"},
            ["expiresAt", "robots"],
        ),
        (
            {"rules": [PART | {"when": {"os": "ios"}, "id": 1}], "variants": [PART | {"id": 1}], "robots": "all"},
            ["robots", "variants"],
        ),
        (
            {"hostname": "other.example", "fallbackUrl": "http://other.example/a", "variants": [PART | {"id": 1}]},
            ["hostname", "variants.0.id"],
        ),
    ],
    ids=str,
)
async def test_what_a_field_can_not_be_is_told_by_its_name(api: Api, fields: dict[str, Any], wrong: list[str]) -> None:
    await made(api.other.api, hostname="other.example")
    answer = await api.one.api.post("/v1/links", json={"destination": "https://a.example/", **fields})
    assert answer.status_code == 400
    assert sorted(detail["field"] for detail in answer.json()["error"]["details"]) == wrong


async def test_a_change_must_agree_with_what_stays(api: Api) -> None:
    link = await made(api.one.api, startsAt="2026-03-01T08:00:00Z", rules=without_ids(EVERYTHING)["rules"])
    for refused in (
        {"expiresAt": "2026-02-01T08:00:00Z"},
        {"variants": [{"destination": "https://a.example/", "id": 1}]},
    ):
        answer = await api.one.api.patch(f"/v1/links/{link['id']}", json=refused)
        assert answer.status_code == 400, refused
    await made(api.one.api, hostname="one.example")
    change: dict[str, Any] = {
        "variants": [{"destination": "https://a.example/", "id": 9}],
        "expiresAt": "2026-02-01T08:00:00Z",
        "hostname": "other.example",
        "fallbackUrl": "http://one.example/a",
    }
    await made(api.other.api, hostname="other.example")
    answer = await api.one.api.patch(f"/v1/links/{link['id']}", json=change)
    wrong = [detail["field"] for detail in answer.json()["error"]["details"]]
    assert sorted(wrong) == ["expiresAt", "fallbackUrl", "hostname", "variants.0.id"]
    assert (await api.one.api.get(f"/v1/links/{link['id']}")).json()["data"] == link


async def test_a_form_may_have_numbers_and_truth_values_and_moments(api: Api) -> None:
    form = {
        "destination": "https://example.com/",
        "clickLimit": "5",
        "archived": "true",
        "redirectStatus": "307",
        "expiresAt": "2026-03-01T08:00:00+01:00",
    }
    answer = await api.one.api.post("/v1/links", data=form)
    assert answer.status_code == 201, answer.text
    link = answer.json()["data"]
    assert (link["clickLimit"], link["archived"], link["redirectStatus"]) == (5, True, 307)
    assert link["expiresAt"] == "2026-03-01T07:00:00.000Z"
    refused = await api.one.api.post("/v1/links", data=form | {"clickLimit": "many"})
    assert refused.json()["error"]["details"][0]["field"] == "clickLimit"


async def test_a_link_with_large_numbers_can_be_changed(api: Api) -> None:
    link = await made(api.one.api, metadata={"a": 1e20, "b": 2**63 - 1, "c": 0.1})
    changed = await api.one.api.patch(f"/v1/links/{link['id']}", json={"title": "a"})
    assert changed.json()["data"]["metadata"] == {"a": 1e20, "b": 2**63 - 1, "c": 0.1}
