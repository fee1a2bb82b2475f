"""The audit log: every change is in it, with who and from where, and nothing goes out of it again."""

from typing import Any

import asyncpg
import httpx2
import pytest

from admin.database import Connection
from tests.admin.conftest import PASSWORD, Api, made, member_of
from tests.admin.hosts import world_of
from tests.admin.oauth_apps import given
from tests.admin.people import log_in, mailed_token, session_of
from tests.admin.routes import ROUTES
from tests.admin.test_conversions import told_id
from tests.admin.test_qr import png_of

OWNER = "one@example.com"


async def everything(api: Api, connection: Connection) -> set[str]:
    """Use each route that changes something, once; which ones those were."""
    used: set[str] = set()

    async def use(
        client: httpx2.AsyncClient, method: str, route: str, body: Any = None, *, png: bytes | None = None, **ids: str
    ) -> Any:
        told = await connection.fetchval("select count(*) from audit_log")
        headers = {"Content-Type": "image/png"} if png else None
        answer = await client.request(method, route.format(**ids), json=body, content=png, headers=headers)
        assert answer.status_code < 300, answer.text
        used.add(f"{method} {route.partition('?')[0]}")
        more = await connection.fetchval("select count(*) from audit_log") - told
        assert (more > 0) == (f"{method} {route}" not in NOT_TOLD), route
        return answer.json() if answer.content else None

    guest = await member_of(connection, api.one.organization, "guest@example.com", "viewer")
    owner = await session_of(api, OWNER)
    used.add("POST /v1/auth/login")
    link = (await use(owner, "POST", "/v1/links", {"destination": "https://example.com/"}))["data"]["id"]
    await use(owner, "PUT", "/v1/links/{link_id}", {"title": "a"}, link_id=link)
    await use(owner, "PATCH", "/v1/links/{link_id}", {"title": "b"}, link_id=link)
    await use(owner, "PUT", "/v1/links", {"destination": "https://example.com/", "externalId": "crm-1"})
    await use(owner, "DELETE", "/v1/links/{link_id}", link_id=link)
    await use(owner, "POST", "/v1/links/{link_id}/restore", {}, link_id=link)
    await use(owner, "POST", "/v1/links/{link_id}/explain", {}, link_id=link)
    await owner.delete(f"/v1/links/{link}?purge=true")
    many = await use(owner, "POST", "/v1/links/bulk", {"links": [{"destination": "https://example.com/"}]})
    link = many["data"][0]["data"]["id"]
    await use(owner, "PATCH", "/v1/links/bulk", {"links": [{"id": link, "title": "a"}]})
    await use(owner, "DELETE", "/v1/links/bulk", {"ids": [link]})
    async with world_of(api.app, "go.example.com") as there:
        domain = (await use(owner, "POST", "/v1/domains", {"hostname": "go.example.com"}))["data"]
        record = domain["attributes"]["verification"]["txt"]
        there.names.has(record["name"], "TXT", record["value"])
        await use(owner, "POST", "/v1/domains/{domain_id}/verify", domain_id=domain["id"])
    await use(owner, "PATCH", "/v1/domains/{domain_id}", {"caseSensitive": False}, domain_id=domain["id"])
    await use(owner, "DELETE", "/v1/domains/{domain_id}", domain_id=domain["id"])
    job = await use(owner, "POST", "/v1/imports", [{"destination": "https://example.com/"}])
    await use(owner, "DELETE", "/v1/imports/{import_id}", import_id=job["data"]["id"])
    await use(owner, "POST", "/v1/conversions", {"clickId": await told_id(connection), "name": "order"})
    key = (await use(owner, "POST", "/v1/api-keys", {"name": "CI"}))["data"]["id"]
    await use(owner, "POST", "/v1/api-keys/{key_id}/rotate", {}, key_id=key)
    await use(owner, "DELETE", "/v1/api-keys/{key_id}", key_id=key)
    member = f"user_{guest.public_id}"
    await use(owner, "PATCH", "/v1/members/{user_id}", {"role": "admin"}, user_id=member)
    await use(owner, "DELETE", "/v1/members/{user_id}", user_id=member)
    await use(owner, "PATCH", "/v1/organization", {"name": "One"})
    await use(owner, "PATCH", "/v1/stats/settings", {"keptDays": 90})
    await use(owner, "DELETE", "/v1/links/{link_id}/clicks?startDate=2026-01-01", link_id=(await made(owner))["id"])
    await use(owner, "PUT", "/v1/organization/logo", png=png_of())
    await use(owner, "DELETE", "/v1/organization/logo")
    await use(owner, "POST", "/v1/invitations", {"email": "new@example.com"})
    new = {"email": "new@example.com", "password": "a long password", "name": "New"}
    token = await mailed_token(connection, "new@example.com")
    await use(api.nobody, "POST", "/v1/auth/register", {**new, "invitationToken": token})
    invitation = await use(owner, "POST", "/v1/invitations", {"email": "other@example.com"})
    stranger = await session_of(api, "other@example.com")
    token = await mailed_token(connection, "other@example.com")
    await use(stranger, "POST", "/v1/auth/invitations/accept", {"token": token})
    await owner.delete(f"/v1/invitations/{invitation['data']['id']}")  # accepted already: changes nothing
    invitation = await use(owner, "POST", "/v1/invitations", {"email": "third@example.com"})
    await use(owner, "DELETE", "/v1/invitations/{invitation_id}", invitation_id=invitation["data"]["id"])
    app = {"name": "An app", "permissions": ["links:read"]}
    client = (await use(owner, "POST", "/v1/oauth/clients", app))["data"]["id"]
    for route in ("/v1/auth/grants/{grant_id}", "/v1/oauth/grants/{grant_id}"):
        await use(owner, "DELETE", route, grant_id=(await given(connection, api.one)).shown_id)
    await use(owner, "DELETE", "/v1/oauth/clients/{client_id}", client_id=client)
    await use(owner, "PATCH", "/v1/auth/me", {"name": "Ada"})
    change = {"currentPassword": PASSWORD, "newPassword": "another password"}
    await use(owner, "POST", "/v1/auth/change-password", change)
    await use(api.nobody, "POST", "/v1/auth/password/reset", {"email": OWNER})
    confirm = {"token": await mailed_token(connection, OWNER), "password": PASSWORD}
    await use(api.nobody, "POST", "/v1/auth/password/confirm", confirm)
    session = await log_in(api, OWNER)
    refreshed = await use(api.nobody, "POST", "/v1/auth/refresh", {"refreshToken": session["meta"]["refreshToken"]})
    await use(api.nobody, "POST", "/v1/auth/logout", {"refreshToken": refreshed["data"]["refreshToken"]})
    return used


ACTIONS = {
    "session.began",
    "session.ended",
    "link.created",
    "link.changed",
    "link.deleted",
    "link.restored",
    "link.purged",
    "domain.created",
    "domain.verified",
    "domain.changed",
    "domain.deleted",
    "conversion.created",
    "import.created",
    "import.cancelled",
    "api_key.created",
    "api_key.rotated",
    "api_key.revoked",
    "member.changed",
    "member.removed",
    "member.joined",
    "organization.changed",
    "stats_settings.changed",
    "link.clicks_erased",
    "logo.changed",
    "logo.removed",
    "invitation.created",
    "invitation.revoked",
    "user.changed",
    "password.changed",
    "oauth_client.created",
    "oauth_client.revoked",
    "grant.ended",
}
OAUTH = ("POST /v1/oauth/token", "POST /v1/oauth/revoke", "POST /v1/oauth/introspect")
# Asking for a mail, for new tokens or for an explanation changes nothing that anybody owns.
NOT_TOLD = {"POST /v1/auth/password/reset", "POST /v1/auth/refresh", "POST /v1/links/{link_id}/explain"}


async def test_every_change_is_told(api: Api, connection: Connection) -> None:
    used = await everything(api, connection)
    changing = {f"{route.method} {route.path}" for route in ROUTES if route.method != "GET"}
    # What clients of OAuth do is told where a person lets them in (test_oauth_consent.py).
    assert used == {name for name in changing if not name.startswith(OAUTH)} - {"POST /v1/auth/email/verify"}
    told = [row["action"] for row in await connection.fetch("select action from audit_log")]
    assert set(told) == ACTIONS


async def test_no_secret_is_told_or_logged(api: Api, connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "admin"):
        login = await log_in(api, OWNER)
        key = (await api.one.api.post("/v1/api-keys", json={"name": "CI"})).json()["data"]["attributes"]["key"]
        await everything(api, connection)
    token = await mailed_token(connection, OWNER)
    bearer = api.one.api.headers["authorization"].removeprefix("Bearer ")
    secrets = [login["meta"]["accessToken"], login["meta"]["refreshToken"], key, token, bearer, PASSWORD]
    log = await connection.fetchval("select string_agg(a::text, ' ') from audit_log a")
    for secret in secrets:
        assert secret not in log
        assert secret not in caplog.text


async def test_an_entry_says_who_what_and_from_where(api: Api) -> None:
    headers = {"X-Request-ID": "my-request", "X-Forwarded-For": "203.0.113.9"}
    answer = await api.one.api.post("/v1/links", json={"destination": "https://example.com/"}, headers=headers)
    link = answer.json()["data"]
    [entry] = (await api.one.api.get("/v1/audit-log?action=link.created")).json()["data"]
    assert entry["id"].startswith("log_") and entry["type"] == "audit_entry"
    told = entry["attributes"]
    assert told.pop("createdAt")
    assert told.pop("actorId").startswith("key_")
    assert told == {
        "action": "link.created",
        "actorType": "api_key",
        "actorName": "test",
        "objectType": "link",
        "objectId": link["id"],
        "address": "203.0.113.9",
        "requestId": "my-request",
        "details": {"hostname": "localhost", "path": link["path"], "destination": "https://example.com/"},
    }


async def test_what_is_undone_is_not_told(api: Api) -> None:
    await made(api.one.api, path="/a")
    assert (
        await api.one.api.post("/v1/links", json={"destination": "https://x.example/", "path": "/a"})
    ).status_code == 409
    assert len((await api.one.api.get("/v1/audit-log?action=link.created")).json()["data"]) == 1


@pytest.mark.parametrize(
    "statement", ["update audit_log set action = 'x'", "delete from audit_log", "truncate audit_log"]
)
async def test_nothing_is_taken_out_again(api: Api, connection: Connection, statement: str) -> None:
    await made(api.one.api)
    with pytest.raises(asyncpg.RaiseError, match="only ever appended"):
        await connection.execute(statement)


async def test_only_administrators_read_it(api: Api, connection: Connection) -> None:
    await member_of(connection, api.one.organization, "guest@example.com", "member")
    guest = await session_of(api, "guest@example.com")
    assert (await guest.get("/v1/audit-log")).status_code == 403
