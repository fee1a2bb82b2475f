"""Sessions: log in, stay logged in, log out; and what becomes of stolen tokens."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from admin.database import Connection
from admin.identity import members, passwords, sessions, users
from tests.admin.conftest import PASSWORD, Api, client_of, member_of
from tests.admin.people import error_of, log_in, mailed_token, session_of, until_refused

OWNER = "one@example.com"


async def refreshed(api: Api, token: str, **headers: str) -> Any:
    return await api.nobody.post("/v1/auth/refresh", json={"refreshToken": token}, headers=headers)


async def test_a_login_answers_as_the_contract_says(api: Api) -> None:
    answer = await api.nobody.post("/v1/auth/login", json={"email": "One@Example.com", "password": PASSWORD})
    assert answer.status_code == 200
    body = answer.json()
    assert body["data"]["type"] == "user"
    assert set(body["data"]["attributes"]) == {
        "email",
        "name",
        "avatar",
        "emailVerified",
        "createdAt",
        "lastLoginAt",
    }
    assert body["data"]["attributes"]["email"] == OWNER
    assert body["data"]["attributes"]["lastLoginAt"] is not None
    assert body["data"]["relationships"]["organization"] == {
        "id": f"org_{api.one.organization.public_id}",
        "name": "one",
        "role": "owner",
    }
    assert set(body["meta"]) == {"requestId", "accessToken", "refreshToken", "expiresIn", "tokenType"}
    assert (body["meta"]["expiresIn"], body["meta"]["tokenType"]) == (3600, "Bearer")
    assert body["meta"]["refreshToken"].startswith("rt_")


async def test_an_access_token_acts_for_its_person(api: Api) -> None:
    client = await session_of(api, OWNER)
    me = (await client.get("/v1/auth/me")).json()
    assert me["data"]["attributes"]["email"] == OWNER
    link = (await client.post("/v1/links", json={"destination": "https://example.com/"})).json()["data"]
    assert link["ownerId"] == me["data"]["id"].replace("user_", "u-")


async def test_an_api_key_is_no_person(api: Api) -> None:
    assert error_of(await api.one.api.get("/v1/auth/me")) == (401, "INVALID_TOKEN")


@pytest.mark.parametrize(
    ("email", "password"), [(OWNER, "wrong password"), ("nobody@example.com", PASSWORD), (OWNER, "")]
)
async def test_wrong_credentials_are_not_told_apart(api: Api, email: str, password: str) -> None:
    answer = await api.nobody.post("/v1/auth/login", json={"email": email, "password": password})
    assert error_of(answer) == (401, "INVALID_CREDENTIALS")
    assert answer.json()["error"]["message"] == "The e-mail address or the password is wrong."


@pytest.mark.parametrize("email", [OWNER, "nobody@example.com"])
async def test_ten_wrong_passwords_lock_an_address_whether_it_has_an_account_or_not(api: Api, email: str) -> None:
    sent = {"email": email, "password": "wrong password"}
    answers = await asyncio.gather(*[api.nobody.post("/v1/auth/login", json=sent) for _ in range(14)])
    codes = sorted(error_of(answer) for answer in answers)
    # Those that would have had to wait for too long were not answered, but counted.
    assert set(codes) <= {(401, "INVALID_CREDENTIALS"), (503, "SERVICE_UNAVAILABLE"), (403, "ACCOUNT_LOCKED")}
    assert codes.count((403, "ACCOUNT_LOCKED")) == 4
    right = await api.nobody.post("/v1/auth/login", json={"email": email, "password": PASSWORD})
    assert error_of(right) == (403, "ACCOUNT_LOCKED")


async def test_a_right_password_forgives_wrong_ones(api: Api) -> None:
    for _ in range(3):
        for _ in range(5):
            await api.nobody.post("/v1/auth/login", json={"email": OWNER, "password": "wrong password"})
        await log_in(api, OWNER)


async def test_one_client_may_not_guess_for_ever(api: Api) -> None:
    answers = [
        await api.nobody.post("/v1/auth/login", json={"email": f"{n}@example.com", "password": "guess"})
        for n in range(31)
    ]
    assert [answer.status_code for answer in answers] == [401] * 30 + [429]
    assert answers[-1].json()["error"]["retryAfter"] == int(answers[-1].headers["retry-after"])
    elsewhere = client_of(api.app, **{"X-Forwarded-For": "203.0.113.9"})
    assert error_of(await elsewhere.post("/v1/auth/login", json={"email": OWNER, "password": "x"}))[0] == 401


async def test_a_refresh_token_makes_the_next_one(api: Api, connection: Connection) -> None:
    token = (await log_in(api, OWNER))["meta"]["refreshToken"]
    for _ in range(3):
        answer = (await refreshed(api, token)).json()
        assert set(answer["data"]) == {"accessToken", "refreshToken", "expiresIn", "tokenType"}
        assert answer["data"].items() <= answer["meta"].items()
        assert answer["data"]["refreshToken"] != token
        token = answer["data"]["refreshToken"]
        client = client_of(api.app, answer["data"]["accessToken"])
        assert (await client.get("/v1/auth/me")).status_code == 200
    kept = await connection.fetchval("select string_agg(t::text, ' ') from refresh_tokens t")
    assert token not in kept


async def test_a_refresh_token_that_is_used_again_ends_the_session(api: Api, connection: Connection) -> None:
    login = await log_in(api, OWNER)
    stolen = login["meta"]["refreshToken"]
    mine = (await refreshed(api, stolen)).json()["data"]
    await connection.execute("update refresh_tokens set used_at = used_at - $1::interval", timedelta(seconds=11))
    assert error_of(await refreshed(api, stolen)) == (401, "TOKEN_REVOKED")
    assert error_of(await refreshed(api, mine["refreshToken"])) == (401, "TOKEN_REVOKED")


async def test_a_lost_answer_is_given_again_to_the_same_client_for_ten_seconds(api: Api) -> None:
    token = (await log_in(api, OWNER))["meta"]["refreshToken"]
    first = (await refreshed(api, token)).json()["data"]["refreshToken"]
    again = await refreshed(api, token)
    assert again.json()["data"]["refreshToken"] == first  # never a second branch
    assert (await refreshed(api, first)).status_code == 200
    assert error_of(await refreshed(api, token)) == (401, "TOKEN_REVOKED")


async def test_another_client_is_forgiven_nothing(api: Api) -> None:
    token = (await log_in(api, OWNER))["meta"]["refreshToken"]
    await refreshed(api, token)
    assert error_of(await refreshed(api, token, **{"User-Agent": "another"})) == (401, "TOKEN_REVOKED")


async def test_unknown_and_old_refresh_tokens(api: Api, connection: Connection) -> None:
    login = await log_in(api, OWNER)
    for token in ("rt_unknown", login["meta"]["accessToken"][:200], "x"):
        assert error_of(await refreshed(api, token)) == (401, "INVALID_REFRESH_TOKEN")
    await connection.execute("update sessions set expires_at = now()")
    assert error_of(await refreshed(api, login["meta"]["refreshToken"])) == (401, "INVALID_REFRESH_TOKEN")


@pytest.mark.parametrize(("remember", "lasts"), [(False, sessions.LASTS), (True, sessions.LASTS_REMEMBERED)])
async def test_how_long_a_session_lasts(api: Api, connection: Connection, remember: bool, lasts: timedelta) -> None:
    token = (await log_in(api, OWNER, rememberMe=remember))["meta"]["refreshToken"]
    left = "select extract(epoch from expires_at - now())::float from sessions"
    assert lasts.total_seconds() - 60 < await connection.fetchval(left) <= lasts.total_seconds()
    await connection.execute("update sessions set expires_at = now() + interval '1 minute'")
    await refreshed(api, token)
    assert lasts.total_seconds() - 60 < await connection.fetchval(left) <= lasts.total_seconds()


async def test_logging_out_ends_this_session_and_no_other(api: Api) -> None:
    here, there = await log_in(api, OWNER), await log_in(api, OWNER)
    answer = await api.nobody.post("/v1/auth/logout", json={"refreshToken": here["meta"]["refreshToken"]})
    assert (answer.status_code, list(answer.json()["data"])) == (200, ["message"])
    await until_refused(client_of(api.app, here["meta"]["accessToken"]))
    assert error_of(await refreshed(api, here["meta"]["refreshToken"])) == (401, "TOKEN_REVOKED")
    assert (await refreshed(api, there["meta"]["refreshToken"])).status_code == 200
    assert (await client_of(api.app, there["meta"]["accessToken"]).get("/v1/auth/me")).status_code == 200


@pytest.mark.parametrize("all_devices", [False, True])
async def test_logging_out_with_an_access_token(api: Api, all_devices: bool) -> None:
    here, there = await log_in(api, OWNER), await log_in(api, OWNER)
    client = client_of(api.app, here["meta"]["accessToken"])
    assert (await client.post("/v1/auth/logout", json={"allDevices": all_devices})).status_code == 200
    await until_refused(client_of(api.app, here["meta"]["accessToken"]))
    answer = await refreshed(api, there["meta"]["refreshToken"])
    assert answer.status_code == (401 if all_devices else 200)
    assert error_of(await api.nobody.post("/v1/auth/logout", json={})) == (401, "AUTHENTICATION_REQUIRED")


async def test_a_session_is_for_the_organization_that_is_named(api: Api, connection: Connection) -> None:
    await members.add(connection, api.other.organization_id, api.one.owner.id, "viewer")
    other = f"org_{api.other.organization.public_id}"
    login = await log_in(api, OWNER, organizationId=other)
    assert login["data"]["relationships"]["organization"] == {"id": other, "name": "other", "role": "viewer"}
    assert (await log_in(api, OWNER))["data"]["relationships"]["organization"]["name"] == "one"
    stranger = {"email": "other@example.com", "password": PASSWORD}
    mine = f"org_{api.one.organization.public_id}"
    answer = await api.nobody.post("/v1/auth/login", json={**stranger, "organizationId": mine})
    assert error_of(answer) == (403, "INSUFFICIENT_PERMISSIONS")


@pytest.mark.parametrize("path", ["login", "change-password"])
async def test_an_old_password_is_of_no_use_while_a_new_one_is_set(
    api: Api, connection: Connection, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is changed while the old one is being checked."""
    thief = await session_of(api, OWNER)
    right = passwords.matches

    async def and_meanwhile(password: str, kept: str | None) -> bool:
        is_right = await right(password, kept)
        await users.set_password(connection, api.one.owner.id, await passwords.hashed("a new password"))
        await sessions.end_all(connection, api.one.owner.id)
        return is_right

    monkeypatch.setattr(passwords, "matches", and_meanwhile)
    if path == "login":
        answer = await api.nobody.post("/v1/auth/login", json={"email": OWNER, "password": PASSWORD})
    else:
        change = {"currentPassword": PASSWORD, "newPassword": "a stolen account"}
        answer = await thief.post("/v1/auth/change-password", json=change)
    assert error_of(answer) == (401, "INVALID_CREDENTIALS")
    monkeypatch.undo()
    await log_in(api, OWNER, "a new password")


async def test_logging_out_of_all_devices(api: Api) -> None:
    here, there = await log_in(api, OWNER), await log_in(api, OWNER)
    sent = {"refreshToken": here["meta"]["refreshToken"], "allDevices": True}
    assert (await api.nobody.post("/v1/auth/logout", json=sent)).status_code == 200
    await until_refused(client_of(api.app, there["meta"]["accessToken"]))


async def test_somebody_who_is_no_member_any_more_is_let_in_nowhere(api: Api, connection: Connection) -> None:
    await member_of(connection, api.one.organization, "guest@example.com", "member")
    login = await log_in(api, "guest@example.com")
    [guest] = [
        row["id"]
        for row in (await api.one.api.get("/v1/members")).json()["data"]
        if row["attributes"]["email"] == "guest@example.com"
    ]
    owner = await session_of(api, OWNER)
    assert (await owner.delete(f"/v1/members/{guest}")).status_code == 204
    await until_refused(client_of(api.app, login["meta"]["accessToken"]))
    assert error_of(await refreshed(api, login["meta"]["refreshToken"])) == (401, "TOKEN_REVOKED")
    guest_login = {"email": "guest@example.com", "password": PASSWORD}
    again = await api.nobody.post("/v1/auth/login", json=guest_login)
    assert error_of(again) == (403, "INSUFFICIENT_PERMISSIONS")
    await owner.post("/v1/invitations", json={"email": "guest@example.com", "role": "viewer"})
    back = await log_in(api, "guest@example.com", invitationToken=await mailed_token(connection, "guest@example.com"))
    assert back["data"]["relationships"]["organization"]["role"] == "viewer"
