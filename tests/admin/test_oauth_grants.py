"""Grants: people see what they have let apps do, and end it; and it ends with what it was built on."""

from collections.abc import Awaitable, Callable
from importlib import resources

import asyncpg
import httpx2
import pytest

from admin.database import Connection, Pool
from admin.identity import members
from admin.identity.oauth import grants
from tests.admin.conftest import PASSWORD, Api, client_of, member_of
from tests.admin.oauth_apps import OWNER, App, allowed, authorization, endings, registered, tokens_of
from tests.admin.people import error_of, mailed_token, session_of, until_refused

NEW_PASSWORD = "another password"


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


async def test_people_and_administrators_see_what_was_granted(api: Api, app: App, connection: Connection) -> None:
    person = await member_of(connection, api.other.organization, "guest@example.com", "member")
    await tokens_of(app, "guest@example.com", scope="links:read")
    await tokens_of(app)
    await app.post("token", grant_type="client_credentials")
    guest = await session_of(api, "guest@example.com")
    [own] = (await guest.get("/v1/auth/grants")).json()["data"]
    told = own["attributes"]
    assert own["type"] == "grant" and own["id"].startswith("grant_")
    assert told.pop("createdAt") < told.pop("expiresAt")
    assert told == {
        "clientId": app.client_id,
        "clientName": "An app",
        "organizationId": f"org_{api.other.organization.public_id}",
        "organizationName": "other",
        "userId": f"user_{person.public_id}",
        "userName": "guest@example.com",
        "permissions": ["links:read"],
    }
    all_of_it = (await api.other.api.get("/v1/oauth/grants?sortOrder=asc")).json()["data"]
    assert [row["attributes"]["userName"] for row in all_of_it] == ["guest@example.com", OWNER]
    assert all_of_it[0]["id"] == own["id"]
    for client_id, count in ((app.client_id, 2), ("client_0123456789abcdef", 0)):
        found = (await api.other.api.get(f"/v1/oauth/grants?clientId={client_id}")).json()["data"]
        assert len(found) == count
    assert (await api.one.api.get("/v1/oauth/grants")).json()["data"] == []
    assert error_of(await guest.get("/v1/oauth/grants")) == (403, "INSUFFICIENT_PERMISSIONS")


async def test_people_end_what_they_granted_and_administrators_what_members_did(
    api: Api, app: App, connection: Connection
) -> None:
    await member_of(connection, api.other.organization, "guest@example.com", "member")
    owner, guest = [await session_of(api, email) for email in (OWNER, "guest@example.com")]
    for client, path in ((guest, "/v1/auth/grants"), (owner, "/v1/oauth/grants")):
        tokens, kept = await tokens_of(app, "guest@example.com"), await tokens_of(app)
        [mine] = (await guest.get("/v1/auth/grants")).json()["data"]
        [owners] = (await owner.get("/v1/auth/grants")).json()["data"]
        assert error_of(await guest.delete(f"/v1/auth/grants/{owners['id']}"))[0] == 404
        assert (await client.delete(f"{path}/{mine['id']}")).status_code == 204
        await until_refused(client_of(api.app, tokens["access_token"]))
        assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
        assert (await client_of(api.app, kept["access_token"]).get("/v1/links")).status_code == 200
        assert (await guest.get("/v1/auth/grants")).json()["data"] == []
        assert error_of(await client.delete(f"{path}/{mine['id']}"))[0] == 404
        await owner.delete(f"/v1/auth/grants/{owners['id']}")
    assert await endings(connection) == [("guest@example.com", "revoked")] + [(OWNER, "revoked")] * 3


async def test_an_app_sees_and_ends_no_grants_of_a_person(api: Api) -> None:
    everything = await registered(api, permissions=["admin"])
    caller = client_of(api.app, (await tokens_of(everything))["access_token"])
    assert error_of(await caller.get("/v1/auth/grants")) == (401, "INVALID_TOKEN")
    assert error_of(await caller.delete("/v1/auth/grants/grant_0123456789abcdef")) == (401, "INVALID_TOKEN")


async def change(api: Api, owner: httpx2.AsyncClient, connection: Connection) -> httpx2.Response:
    passwords = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    return await owner.post("/v1/auth/change-password", json=passwords)


async def confirm(api: Api, owner: httpx2.AsyncClient, connection: Connection) -> httpx2.Response:
    await api.nobody.post("/v1/auth/password/reset", json={"email": OWNER})
    sent = {"token": await mailed_token(connection, OWNER), "password": NEW_PASSWORD}
    return await api.nobody.post("/v1/auth/password/confirm", json=sent)


@pytest.mark.parametrize("way", [change, confirm])
async def test_all_grants_of_a_user_end_with_their_password(
    api: Api, app: App, connection: Connection, way: Callable[..., Awaitable[httpx2.Response]]
) -> None:
    await member_of(connection, api.other.organization, "guest@example.com", "member")
    await members.add(connection, api.one.organization_id, api.other.owner.id, "member")
    await allowed(app, authorization(app), organization=f"org_{api.one.organization.public_id}")
    tokens, kept = await tokens_of(app), await tokens_of(app, "guest@example.com")
    assert (await way(api, await session_of(api, OWNER), connection)).status_code == 200
    await until_refused(client_of(api.app, tokens["access_token"]))
    assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await client_of(api.app, kept["access_token"]).get("/v1/links")).status_code == 200
    assert await endings(connection) == [(OWNER, "password_changed")] * 2
    ended_in = await connection.fetch("select organization_id from audit_log where action = 'grant.ended' order by 1")
    assert [row["organization_id"] for row in ended_in] == [api.one.organization_id, api.other.organization_id]


async def test_grants_end_with_the_membership_and_do_not_come_back_with_it(
    api: Api, app: App, connection: Connection
) -> None:
    person = await member_of(connection, api.other.organization, "guest@example.com", "member")
    tokens = await tokens_of(app, "guest@example.com")
    owner = await session_of(api, OWNER)
    assert (await owner.delete(f"/v1/members/user_{person.public_id}")).status_code == 204
    assert await endings(connection) == [(OWNER, "member_removed")]
    await until_refused(client_of(api.app, tokens["access_token"]))
    await members.add(connection, api.other.organization_id, person.id, "member")
    assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_grant_without_a_membership_is_none(api: Api, app: App, connection: Connection) -> None:
    person = await member_of(connection, api.other.organization, "guest@example.com", "member")
    tokens = await tokens_of(app, "guest@example.com")
    await connection.execute("delete from memberships where user_id = $1", person.id)
    assert (await app.post("introspect", token=tokens["access_token"])).json() == {"active": False}
    assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await api.other.api.get("/v1/oauth/grants")).json()["data"] == []


async def test_the_hundred_and_first_grant_of_a_person_ends_the_first(
    api: Api, app: App, connection: Connection
) -> None:
    tokens = await tokens_of(app)
    await connection.execute(
        """
        insert into oauth_grants (public_id, client_id, organization_id, user_id, permissions, expires_at)
        select 'z' || lpad(n::text, 15, '0'), client_id, organization_id, user_id, permissions, expires_at
          from oauth_grants, generate_series(1, 99) n"""
    )
    assert await endings(connection) == []
    await tokens_of(app)
    assert await endings(connection) == [(OWNER, "too_many_grants")]
    assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_what_is_over_is_cleared_when_nobody_will_ask_for_it(api: Api, app: App, connection: Connection) -> None:
    await tokens_of(app)
    for _ in range(2):
        await app.post("token", grant_type="client_credentials")
    await connection.execute("update oauth_grants set expires_at = now() - interval '1 minute' where id <> 3")
    await grants.clear(connection)
    assert [row["id"] for row in await connection.fetch("select id from oauth_grants order by id")] == [1, 3]


async def test_nobody_is_removed_while_they_let_an_app_in(api: Api, pool: Pool, connection: Connection) -> None:
    async with pool.acquire() as other, other.transaction():
        assert await members.organization_of(other, api.other.owner.id, api.other.organization.public_id)
        await connection.execute("set lock_timeout = '50ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await connection.execute("delete from memberships where user_id = $1", api.other.owner.id)


async def test_grants_of_before_are_brought_into_line(api: Api, app: App, connection: Connection) -> None:
    await tokens_of(app)
    await app.post("token", grant_type="client_credentials")
    await connection.execute("update oauth_grants set expires_at = now() + interval '30 days'")
    person = await member_of(connection, api.other.organization, "guest@example.com", "member")
    await tokens_of(app, "guest@example.com")
    await connection.execute("delete from memberships where user_id = $1", person.id)
    migration = (resources.files("admin") / "migrations/0006_grants.sql").read_text()
    await connection.execute(migration.partition("-- A grant ends")[2].partition("\n")[2])
    rows = await connection.fetch(
        "select revoked_at is null as lives, expires_at > now() + interval '2 hours' as is_long from oauth_grants"
        " order by id"
    )
    assert [(row["lives"], row["is_long"]) for row in rows] == [(True, True), (True, False), (False, True)]
