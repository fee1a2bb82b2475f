"""API keys at the API: shown once, bounded by permissions, of no use a second after they end."""

from datetime import UTC, datetime, timedelta

import pytest

from admin.database import Connection
from admin.identity import keys
from tests.admin.conftest import Api, client_of, key_of, made
from tests.admin.people import error_of, session_of, until_refused

ATTRIBUTES = {
    "name",
    "key",
    "environment",
    "permissions",
    "status",
    "createdAt",
    "createdBy",
    "expiresAt",
    "lastUsedAt",
    "revokedAt",
}


async def test_a_key_is_shown_once(api: Api, connection: Connection) -> None:
    answer = await api.one.api.post("/v1/api-keys", json={"name": "CI", "permissions": ["links:read"]})
    assert answer.status_code == 201
    data = answer.json()["data"]
    secret = data["attributes"]["key"]
    assert (data["type"], set(data["attributes"])) == ("api_key", ATTRIBUTES)
    assert data["id"].startswith("key_") and keys.is_well_formed(secret)
    listed = await api.one.api.get("/v1/api-keys")
    got = await api.one.api.get(f"/v1/api-keys/{data['id']}")
    for shown in (got.json()["data"], next(row for row in listed.json()["data"] if row["id"] == data["id"])):
        assert shown["attributes"]["key"] == f"lk_live_…{secret[-4:]}"
        assert set(shown["attributes"]) == ATTRIBUTES
    assert secret not in listed.text + got.text
    assert secret not in await connection.fetchval("select string_agg(k::text, ' ') from api_keys k")


async def test_permissions_bound_what_a_key_may_do(api: Api, connection: Connection) -> None:
    reader = client_of(api.app, await key_of(connection, api.one.organization, "links:read"))
    assert (await reader.get("/v1/links")).status_code == 200
    answer = await reader.post("/v1/links", json={"destination": "https://example.com/"})
    assert error_of(answer) == (403, "INSUFFICIENT_PERMISSIONS")
    assert answer.json()["error"]["details"] == [{"field": "permissions", "message": "links:write is needed."}]
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


async def test_an_unscoped_key_does_everything_but_administer(api: Api) -> None:
    answer = await api.one.api.post("/v1/api-keys", json={"name": "all"})
    client = client_of(api.app, answer.json()["data"]["attributes"]["key"])
    link = await made(client)
    assert (await client.get(f"/v1/links/{link['id']}/stats")).status_code == 200
    assert error_of(await client.get("/v1/api-keys")) == (403, "INSUFFICIENT_PERMISSIONS")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({}, "name"),
        ({"name": "a", "permissions": ["links:fly"]}, "permissions.0"),
        ({"name": "a", "permissions": []}, "permissions"),
        ({"name": "a", "expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"name": "a", "expiresAt": "tomorrow"}, "expiresAt"),
        ({"name": "a", "environment": "staging"}, "environment"),
        ({"name": "a", "key": "lk_live_mine"}, "key"),
        ({"name": "a", "organizationId": 1}, "organizationId"),
    ],
)
async def test_bad_keys(api: Api, fields: dict[str, object], field: str) -> None:
    answer = await api.one.api.post("/v1/api-keys", json=fields)
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == [field]


async def test_a_revoked_key_is_of_no_use_within_a_second(api: Api) -> None:
    answer = (await api.one.api.post("/v1/api-keys", json={"name": "short"})).json()["data"]
    client = client_of(api.app, answer["attributes"]["key"])
    assert (await client.get("/v1/links")).status_code == 200
    assert (await api.one.api.delete(f"/v1/api-keys/{answer['id']}")).status_code == 204
    await until_refused(client)
    for method in ("GET", "DELETE"):
        gone = await api.one.api.request(method, f"/v1/api-keys/{answer['id']}")
        assert error_of(gone) == (404, "RESOURCE_NOT_FOUND")
    assert answer["id"] not in (await api.one.api.get("/v1/api-keys")).text
    [shown] = (await api.one.api.get("/v1/api-keys?status=revoked")).json()["data"]
    assert shown["id"] == answer["id"] and shown["attributes"]["revokedAt"]


async def test_a_key_expires(api: Api, connection: Connection) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = (await api.one.api.post("/v1/api-keys", json={"name": "short", "expires_at": soon})).json()["data"]
    client = client_of(api.app, answer["attributes"]["key"])
    assert (await client.get("/v1/links")).status_code == 200
    await connection.execute("update api_keys set expires_at = now() where name = 'short'")
    await until_refused(client)
    [expired] = (await api.one.api.get("/v1/api-keys?status=expired")).json()["data"]
    assert expired["id"] == answer["id"]


async def test_rotation_overlaps(api: Api, connection: Connection) -> None:
    old = (await api.one.api.post("/v1/api-keys", json={"name": "CI", "permissions": ["links:read"]})).json()["data"]
    answer = await api.one.api.post(f"/v1/api-keys/{old['id']}/rotate", json={"overlapSeconds": 3600})
    assert answer.status_code == 201, answer.text
    new = answer.json()["data"]
    assert new["id"] != old["id"]
    assert new["attributes"]["permissions"] == ["links:read"] and new["attributes"]["name"] == "CI"
    both = [client_of(api.app, data["attributes"]["key"]) for data in (old, new)]
    for client in both:
        assert (await client.get("/v1/links")).status_code == 200
    await connection.execute(
        "update api_keys set expires_at = expires_at - interval '1 hour' where expires_at is not null"
    )
    await until_refused(both[0])
    assert (await both[1].get("/v1/links")).status_code == 200
    again = await api.one.api.post(f"/v1/api-keys/{old['id']}/rotate", json={})
    assert error_of(again) == (404, "RESOURCE_NOT_FOUND")


async def test_last_use_is_written_to_the_minute(api: Api, connection: Connection) -> None:
    secret = await key_of(connection, api.one.organization, "links:read")
    client = client_of(api.app, secret)
    used = "select last_used_at from api_keys where sha256 = $1"
    assert await connection.fetchval(used, keys.sha256(secret)) is None
    await client.get("/v1/links")
    first = await connection.fetchval(used, keys.sha256(secret))
    assert first is not None
    api.app.state.gate._asked.clear()
    await client.get("/v1/links")
    assert await connection.fetchval(used, keys.sha256(secret)) == first


async def test_a_mistyped_key_costs_no_query(api: Api, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres is locked out: whoever asks it gets a 503."""
    monkeypatch.setattr("admin.database.AUTHENTICATE_S", 0.5)
    secret = await key_of(connection, api.one.organization)
    wrong = secret[:-1] + ("a" if secret[-1] != "a" else "b")
    async with connection.transaction():
        await connection.execute("lock table api_keys in access exclusive mode")
        for bearer in (wrong, "nonsense", secret.replace("live", "prod"), secret[:-1]):
            assert error_of(await client_of(api.app, bearer).get("/v1/links")) == (401, "INVALID_API_KEY")
        assert error_of(await client_of(api.app, secret).get("/v1/links")) == (503, "SERVICE_UNAVAILABLE")


async def test_guessing_is_bounded_by_address_and_harms_nobody_else(api: Api, connection: Connection) -> None:
    guesser = client_of(api.app, **{"X-Forwarded-For": "203.0.113.9"})
    answers = [await guesser.get("/v1/links", headers={"Authorization": f"Bearer {keys.new_key()}"}) for _ in range(61)]
    assert [answer.status_code for answer in answers] == [401] * 60 + [429]
    assert "retry-after" in answers[-1].headers
    # Beyond the limit a guess costs no query, and whoever was right before is not stopped.
    async with connection.transaction():
        await connection.execute("lock table api_keys in access exclusive mode")
        guess = await guesser.get("/v1/links", headers={"Authorization": f"Bearer {keys.new_key()}"})
        assert guess.status_code == 429
    assert (await api.one.api.get("/v1/links")).status_code == 200
    api.app.state.gate._asked.clear()
    assert (await api.one.api.get("/v1/links", headers={"X-Forwarded-For": "203.0.113.9"})).status_code == 200


@pytest.mark.parametrize("name", ["access_token", "api_key", "apiKey", "token", "authorization"])
async def test_a_key_in_the_address_is_refused(api: Api, connection: Connection, name: str) -> None:
    secret = await key_of(connection, api.one.organization)
    for client in (api.nobody, api.one.api):
        answer = await client.get(f"/v1/links?{name}={secret}")
        assert error_of(answer) == (400, "VALIDATION_ERROR")
        assert secret not in answer.text


async def test_a_key_is_replaced_once(api: Api) -> None:
    old = (await api.one.api.post("/v1/api-keys", json={"name": "CI"})).json()["data"]
    assert (await api.one.api.post(f"/v1/api-keys/{old['id']}/rotate", json={})).status_code == 201
    again = await api.one.api.post(f"/v1/api-keys/{old['id']}/rotate", json={})
    assert error_of(again) == (409, "RESOURCE_ALREADY_EXISTS")


async def test_it_is_told_who_made_a_key(api: Api) -> None:
    owner = await session_of(api, "one@example.com")
    made_by_owner = (await owner.post("/v1/api-keys", json={"name": "mine"})).json()["data"]["attributes"]
    assert made_by_owner["createdBy"] == f"user_{api.one.owner.public_id}"
    made_by_key = (await api.one.api.post("/v1/api-keys", json={"name": "CI"})).json()["data"]["attributes"]
    assert made_by_key["createdBy"] is None
