"""Accounts: registration, invitations, e-mail addresses, passwords and names."""

import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from admin.database import Connection
from admin.links import domains
from shared.redis import Redis
from tests.admin.conftest import PASSWORD, Api, client_of, member_of, running, settings_of
from tests.admin.people import error_of, log_in, mail_to, mailed_token, session_of
from tests.conftest import Servers

OWNER = "one@example.com"
NEW = {"email": "New@Example.com", "password": "a long password", "name": "New Person"}


@pytest.fixture
async def open_api(
    servers: Servers, database_url: str, connection: Connection, redis: Redis
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an API where anybody may register."""
    await domains.open_to_all(connection, "localhost")
    async with running(settings_of(servers, database_url, LINKWIRE_OPEN_REGISTRATION="1")) as app:
        yield client_of(app)


async def invited(api: Api, connection: Connection, email: str, role: str = "member") -> str:
    """The token of an invitation."""
    owner = await session_of(api, OWNER)
    answer = await owner.post("/v1/invitations", json={"email": email, "role": role})
    assert answer.status_code == 201, answer.text
    return await mailed_token(connection, answer.json()["data"]["attributes"]["email"])


async def test_registration_is_closed_by_default(api: Api) -> None:
    assert error_of(await api.nobody.post("/v1/auth/register", json=NEW)) == (403, "REGISTRATION_CLOSED")


async def test_where_it_is_open_it_makes_an_organization(open_api: httpx2.AsyncClient) -> None:
    answer = await open_api.post("/v1/auth/register", json={**NEW, "organizationName": "New & Co"})
    assert answer.status_code == 201
    body = answer.json()
    assert body["data"]["attributes"]["email"] == "new@example.com"
    assert body["data"]["attributes"]["emailVerified"] is False
    assert body["data"]["relationships"]["organization"]["name"] == "New & Co"
    assert body["data"]["relationships"]["organization"]["role"] == "owner"
    assert set(body["meta"]) == {"requestId", "accessToken", "refreshToken", "expiresIn", "tokenType"}
    bearer = {"Authorization": f"Bearer {body['meta']['accessToken']}"}
    organization = (await open_api.get("/v1/organization", headers=bearer)).json()["data"]["attributes"]
    assert (organization["tier"], organization["plan"]) == ("free", "free")
    assert error_of(await open_api.post("/v1/auth/register", json=NEW)) == (409, "EMAIL_ALREADY_EXISTS")


@pytest.mark.parametrize("field", ["id", "organizationId", "role", "tier", "emailVerified", "permissions"])
async def test_nobody_gives_themselves_more(open_api: httpx2.AsyncClient, field: str) -> None:
    answer = await open_api.post("/v1/auth/register", json={**NEW, field: "owner"})
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == [field]


async def test_an_address_is_confirmed_before_the_next_login(
    open_api: httpx2.AsyncClient, connection: Connection
) -> None:
    await open_api.post("/v1/auth/register", json=NEW)
    login = {"email": NEW["email"], "password": NEW["password"]}
    assert error_of(await open_api.post("/v1/auth/login", json=login)) == (403, "EMAIL_NOT_VERIFIED")
    assert len(await mail_to(connection, "new@example.com")) == 2
    token = await mailed_token(connection, "new@example.com")
    assert (await open_api.post("/v1/auth/email/verify", json={"token": token})).status_code == 200
    answer = await open_api.post("/v1/auth/login", json=login)
    assert (answer.status_code, answer.json()["data"]["attributes"]["emailVerified"]) == (200, True)
    assert error_of(await open_api.post("/v1/auth/email/verify", json={"token": token})) == (400, "INVALID_RESET_TOKEN")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": "a@b@c.example"}, "email"),
        ({"email": "a\r\nBcc: x@y.example"}, "email"),
        ({"email": "=?a?=@example.com"}, "email"),
        ({"email": "a" * 300 + "@example.com"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 1025}, "password"),
        ({"password": 12345678}, "password"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\u2028b"}, "name"),
        ({"organizationName": "x" * 201}, "organizationName"),
    ],
)
async def test_bad_registrations(api: Api, fields: dict[str, Any], field: str) -> None:
    answer = await api.nobody.post("/v1/auth/register", json={**NEW, **fields})
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == [field]


async def test_an_invitation_lets_one_person_in_once(api: Api, connection: Connection) -> None:
    token = await invited(api, connection, "new@example.com", "viewer")
    for wrong in ({"invitationToken": "inv_unknown"}, {"invitationToken": token, "email": "other@example.com"}):
        assert error_of(await api.nobody.post("/v1/auth/register", json={**NEW, **wrong})) == (400, "VALIDATION_ERROR")
    answer = await api.nobody.post("/v1/auth/register", json={**NEW, "invitationToken": token})
    assert answer.status_code == 201
    assert answer.json()["data"]["relationships"]["organization"]["role"] == "viewer"
    assert answer.json()["data"]["attributes"]["emailVerified"] is True
    await log_in(api, "new@example.com", NEW["password"])
    again = await api.nobody.post(
        "/v1/auth/register", json={**NEW, "email": "new@example.com", "invitationToken": token}
    )
    assert error_of(again) == (400, "VALIDATION_ERROR")
    [shown] = (await api.one.api.get("/v1/invitations")).json()["data"]
    assert shown["attributes"]["status"] == "accepted"
    assert token not in str(shown)


async def test_somebody_with_an_account_accepts_an_invitation(api: Api, connection: Connection) -> None:
    token = await invited(api, connection, "other@example.com", "admin")
    other = await session_of(api, "other@example.com")
    answer = await other.post("/v1/auth/invitations/accept", json={"token": token})
    assert answer.json()["data"]["relationships"]["organization"]["role"] == "admin"
    roles = {
        row["attributes"]["email"]: row["attributes"]["role"]
        for row in (await api.one.api.get("/v1/members")).json()["data"]
    }
    assert roles == {OWNER: "owner", "other@example.com": "admin"}
    assert error_of(await other.post("/v1/auth/invitations/accept", json={"token": token})) == (400, "VALIDATION_ERROR")


async def test_invitations_end(api: Api, connection: Connection) -> None:
    first = await invited(api, connection, "a@example.com")
    second = await invited(api, connection, "a@example.com")
    taken_back = await invited(api, connection, "b@example.com")
    [b] = [
        row["id"]
        for row in (await api.one.api.get("/v1/invitations?status=pending&sortBy=email&sortOrder=desc")).json()["data"]
        if row["attributes"]["email"] == "b@example.com"
    ]
    assert (await api.one.api.delete(f"/v1/invitations/{b}")).status_code == 204
    await connection.execute("update invitations set expires_at = now() where email = 'a@example.com'")
    for email, token in (("a@example.com", first), ("a@example.com", second), ("b@example.com", taken_back)):
        answer = await api.nobody.post("/v1/auth/register", json={**NEW, "email": email, "invitationToken": token})
        assert error_of(answer) == (400, "VALIDATION_ERROR")
    kept = await connection.fetchval("select string_agg(t::text, ' ') from invitations t")
    assert first not in kept


async def test_without_mail_nobody_can_be_invited(
    servers: Servers, api: Api, database_url: str, connection: Connection
) -> None:
    async with running(settings_of(servers, database_url, LINKWIRE_DEVELOPMENT="0")) as app:
        client = client_of(app, **api.one.api.headers)
        answer = await client.post("/v1/invitations", json={"email": "a@example.com"})
    assert error_of(answer) == (422, "MAIL_NOT_CONFIGURED")
    assert await mail_to(connection, "a@example.com") == []


async def reset(api: Api, email: str) -> httpx2.Response:
    return await api.nobody.post("/v1/auth/password/reset", json={"email": email})


async def test_a_new_password_by_mail(api: Api, connection: Connection) -> None:
    before = await log_in(api, OWNER)
    assert (await reset(api, OWNER)).json()["data"] == (await reset(api, "nobody@example.com")).json()["data"]
    assert await mail_to(connection, "nobody@example.com") == []
    token = await mailed_token(connection, OWNER)
    assert token not in await connection.fetchval("select string_agg(t::text, ' ') from mailed_tokens t")
    confirm = {"token": token, "password": "another password"}
    short = await api.nobody.post("/v1/auth/password/confirm", json={**confirm, "password": "short"})
    assert error_of(short) == (400, "VALIDATION_ERROR")
    answer = await api.nobody.post("/v1/auth/password/confirm", json=confirm)
    assert (answer.status_code, list(answer.json()["data"])) == (200, ["message"])
    await log_in(api, OWNER, "another password")
    ended = await api.nobody.post("/v1/auth/refresh", json={"refreshToken": before["meta"]["refreshToken"]})
    assert error_of(ended) == (401, "TOKEN_REVOKED")
    again = await api.nobody.post("/v1/auth/password/confirm", json=confirm)
    assert error_of(again) == (400, "INVALID_RESET_TOKEN")


async def test_reset_tokens_end(api: Api, connection: Connection) -> None:
    await reset(api, OWNER)
    first = await mailed_token(connection, OWNER)
    await reset(api, OWNER)
    second = await mailed_token(connection, OWNER)
    await connection.execute("update mailed_tokens set expires_at = now() where purpose = 'reset'")
    for token in (first, second, "reset_unknown", "x"):
        answer = await api.nobody.post("/v1/auth/password/confirm", json={"token": token, "password": "new password"})
        assert error_of(answer) == (400, "INVALID_RESET_TOKEN")


async def test_a_new_password_opens_a_locked_account(api: Api, connection: Connection) -> None:
    for _ in range(11):
        await api.nobody.post("/v1/auth/login", json={"email": OWNER, "password": "wrong password"})
    await reset(api, OWNER)
    confirm = {"token": await mailed_token(connection, OWNER), "password": "another password"}
    assert (await api.nobody.post("/v1/auth/password/confirm", json=confirm)).status_code == 200
    await log_in(api, OWNER, "another password")


async def test_nobody_is_flooded_with_mail(api: Api, connection: Connection) -> None:
    answers = [await reset(api, OWNER) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200}
    assert await connection.fetchval("select count(*) from password_resets") == 5


async def test_nobody_is_flooded_with_invitations(api: Api, connection: Connection) -> None:
    owner = await session_of(api, OWNER)
    sent = {"email": "a@example.com"}
    answers = [await owner.post("/v1/invitations", json=sent) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    assert len(await mail_to(connection, "a@example.com")) == 5


async def test_nobody_invites_before_their_address_is_confirmed(
    open_api: httpx2.AsyncClient, connection: Connection
) -> None:
    body = (await open_api.post("/v1/auth/register", json=NEW)).json()
    bearer = {"Authorization": f"Bearer {body['meta']['accessToken']}"}
    answer = await open_api.post("/v1/invitations", json={"email": "a@example.com"}, headers=bearer)
    assert error_of(answer) == (403, "EMAIL_NOT_VERIFIED")
    assert await mail_to(connection, "a@example.com") == []


async def test_an_invitation_is_no_advertisement(api: Api, connection: Connection) -> None:
    owner = await session_of(api, OWNER)
    await owner.patch("/v1/organization", json={"name": "You won: https://evil.example"})
    await invited(api, connection, "a@example.com")
    [mail] = await mail_to(connection, "a@example.com")
    assert "evil" not in mail["subject"] + mail["text"]


async def test_only_owners_deal_with_invitations_of_owners(api: Api, connection: Connection) -> None:
    await invited(api, connection, "a@example.com", "owner")
    await member_of(connection, api.one.organization, "second@example.com", "admin")
    admin = await session_of(api, "second@example.com")
    again = await admin.post("/v1/invitations", json={"email": "a@example.com", "role": "viewer"})
    assert error_of(again) == (403, "INSUFFICIENT_PERMISSIONS")
    [shown] = (await admin.get("/v1/invitations")).json()["data"]
    assert error_of(await admin.delete(f"/v1/invitations/{shown['id']}"))[0] == 403


async def test_changing_ones_password(api: Api) -> None:
    elsewhere = await log_in(api, OWNER)
    here = await log_in(api, OWNER)
    client = client_of(api.app, here["meta"]["accessToken"])
    wrong = {"currentPassword": "wrong password", "newPassword": "another password"}
    assert error_of(await client.post("/v1/auth/change-password", json=wrong)) == (401, "INVALID_CREDENTIALS")
    answer = await client.post("/v1/auth/change-password", json={**wrong, "currentPassword": PASSWORD})
    assert answer.status_code == 200
    await log_in(api, OWNER, "another password")
    ended = await api.nobody.post("/v1/auth/refresh", json={"refreshToken": elsewhere["meta"]["refreshToken"]})
    assert error_of(ended) == (401, "TOKEN_REVOKED")
    goes_on = await api.nobody.post("/v1/auth/refresh", json={"refreshToken": here["meta"]["refreshToken"]})
    assert goes_on.status_code == 200


async def test_changing_ones_name(api: Api) -> None:
    client = await session_of(api, OWNER)
    changed = await client.patch("/v1/auth/me", json={"name": "Ada", "avatar": "https://example.com/a.png"})
    assert changed.json()["data"]["attributes"]["name"] == "Ada"
    changed = await client.patch("/v1/auth/me", json={"avatar": None})
    attributes = changed.json()["data"]["attributes"]
    assert (attributes["name"], attributes["avatar"]) == ("Ada", None)
    for field, value in (("email", "x@example.com"), ("role", "owner"), ("id", "user_1")):
        assert error_of(await client.patch("/v1/auth/me", json={field: value})) == (400, "VALIDATION_ERROR")


async def test_the_last_owner_stays(api: Api, connection: Connection) -> None:
    owner = await session_of(api, OWNER)
    me = (await owner.get("/v1/auth/me")).json()["data"]["id"]
    assert error_of(await owner.delete(f"/v1/members/{me}")) == (409, "RESOURCE_ALREADY_EXISTS")
    assert error_of(await owner.patch(f"/v1/members/{me}", json={"role": "viewer"}))[0] == 409
    second = await member_of(connection, api.one.organization, "second@example.com", "admin")
    admin = await session_of(api, "second@example.com")
    target = f"/v1/members/user_{second.public_id}"
    assert error_of(await admin.patch(target, json={"role": "owner"})) == (403, "INSUFFICIENT_PERMISSIONS")
    assert error_of(await api.one.api.patch(target, json={"role": "owner"})) == (403, "INSUFFICIENT_PERMISSIONS")
    assert (await owner.patch(target, json={"role": "owner"})).status_code == 200
    assert (await owner.patch(f"/v1/members/{me}", json={"role": "viewer"})).status_code == 200


async def test_an_account_that_does_not_exist_takes_as_long(api: Api) -> None:
    """In CPU: argon2 runs for both. The hash of test users is cheap, so a full one is set first."""
    client = await session_of(api, OWNER)
    await client.post("/v1/auth/change-password", json={"currentPassword": PASSWORD, "newPassword": "real password"})

    async def cost_s(email: str) -> float:
        began = time.process_time()
        answer = await api.nobody.post("/v1/auth/login", json={"email": email, "password": "wrong password"})
        assert error_of(answer) == (401, "INVALID_CREDENTIALS")
        return time.process_time() - began

    known = statistics.median([await cost_s(OWNER) for _ in range(5)])
    unknown = statistics.median([await cost_s("nobody@example.com") for _ in range(5)])
    assert 0.2 < known / unknown < 5  # without it, it would be about 50
