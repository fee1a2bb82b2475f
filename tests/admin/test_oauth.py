"""OAuth: authlib's client goes through every flow, and what it got is good for what was granted."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.database import Connection
from admin.identity.permissions import PERMISSIONS, ROLES, UNSCOPED, lacking, within
from tests.admin.conftest import Api, client_of, member_of
from tests.admin.oauth_apps import REDIRECT, App, described, endings, let_in, registered, tokens_of
from tests.admin.people import error_of, until_refused

LINK = {"destination": "https://x.example/"}


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


@pytest.fixture
async def public_app(api: Api) -> App:
    return await registered(api, isConfidential=False)


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
async def test_the_code_flow(api: Api, app: App, public_app: App, method: str) -> None:
    chosen = public_app if method == "none" else app
    flow = await let_in(chosen, token_endpoint_auth_method=method, scope="links:read")
    metadata = await described(api)
    back = parse_qs(urlsplit(flow.back).query)
    assert flow.back.startswith(REDIRECT + "&")
    assert back["iss"] == [metadata["issuer"]]
    tokens = await flow.tokens(metadata)
    assert (tokens["token_type"], tokens["expires_in"], tokens["scope"]) == ("Bearer", 3600, "links:read")
    told = claims_of(tokens["access_token"])
    assert (told["sub"], told["client_id"]) == (f"user_{api.other.owner.public_id}", chosen.client_id)
    caller = client_of(api.app, tokens["access_token"])
    assert (await caller.get("/v1/links")).status_code == 200
    assert error_of(await caller.post("/v1/links", json=LINK))[0] == 403
    assert error_of(await caller.get("/v1/auth/me")) == (401, "INVALID_TOKEN")


async def test_an_app_acts_for_the_person_and_their_organization(api: Api, app: App) -> None:
    caller = client_of(api.app, (await tokens_of(app))["access_token"])
    link = (await caller.post("/v1/links", json=LINK)).json()["data"]
    assert link["ownerId"] == f"u-{api.other.owner.public_id}"
    assert [row["id"] for row in (await api.other.api.get("/v1/links")).json()["data"]] == [link["id"]]
    [entry] = (await api.other.api.get("/v1/audit-log?action=link.created")).json()["data"]
    assert entry["attributes"]["actorName"] == "other@example.com through An app"


async def test_refresh_tokens_rotate_and_a_stolen_one_ends_the_grant(
    api: Api, app: App, connection: Connection
) -> None:
    metadata = await described(api)
    flow = await let_in(app)
    first = await flow.tokens(metadata)
    second = dict(await flow.client.refresh_token(metadata["token_endpoint"]))
    assert second["refresh_token"] != first["refresh_token"]
    thief = app._replace(api=api._replace(nobody=client_of(api.app, **{"User-Agent": "thief"})))
    again = await thief.refresh(first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    await until_refused(client_of(api.app, second["access_token"]))
    assert (await app.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    assert await endings(connection) == [("An app", "refresh_token_reused")]


async def test_a_lost_answer_is_forgiven_for_ten_seconds(app: App, connection: Connection) -> None:
    token = (await tokens_of(app))["refresh_token"]
    first, again = [(await app.refresh(token)).json() for _ in range(2)]
    assert first["refresh_token"] == again["refresh_token"]
    await connection.execute("update refresh_tokens set used_at = used_at - interval '11 seconds'")
    assert (await app.refresh(token)).json()["error"] == "invalid_grant"


async def test_a_refresh_token_is_its_clients_alone(api: Api, app: App) -> None:
    token = (await tokens_of(app))["refresh_token"]
    stranger = await registered(api, name="Another")
    assert (await stranger.refresh(token)).json()["error"] == "invalid_grant"
    assert (await app.refresh(token)).status_code == 200


async def test_less_may_be_asked_for_and_the_rest_stays_granted(api: Api, app: App) -> None:
    token = (await tokens_of(app))["refresh_token"]
    for scope in ("stats:read", "links:read admin", "nonsense"):
        refused = await app.refresh(token, scope=scope)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    less = (await app.refresh(token, scope="links:read")).json()
    assert less["scope"] == "links:read"
    caller = client_of(api.app, less["access_token"])
    assert (await caller.get("/v1/links")).status_code == 200
    assert error_of(await caller.post("/v1/links", json=LINK))[0] == 403
    all_again = (await app.refresh(less["refresh_token"])).json()
    assert all_again["scope"] == "links:read links:write"
    assert (await client_of(api.app, all_again["access_token"]).post("/v1/links", json=LINK)).status_code == 201


async def test_a_grant_lasts_thirty_days_from_its_last_use_on(api: Api, app: App, connection: Connection) -> None:
    tokens = await tokens_of(app)
    await connection.execute("update oauth_grants set expires_at = now() + interval '1 minute'")
    tokens = (await app.refresh(tokens["refresh_token"])).json()
    assert await connection.fetchval("select expires_at > now() + interval '29 days' from oauth_grants")
    await connection.execute("update oauth_grants set expires_at = now()")
    assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await app.post("introspect", token=tokens["access_token"])).json() == {"active": False}
    assert error_of(await client_of(api.app, tokens["access_token"]).get("/v1/links")) == (401, "INVALID_TOKEN")


async def test_client_credentials(api: Api, app: App, public_app: App, connection: Connection) -> None:
    metadata = await described(api)
    tokens = await app.client().fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    assert "refresh_token" not in tokens
    assert claims_of(tokens["access_token"])["sub"] == app.client_id
    caller = client_of(api.app, tokens["access_token"])
    link = (await caller.post("/v1/links", json=LINK)).json()["data"]
    assert link["ownerId"] == f"o-{api.one.organization.public_id}"
    less = await app.post("token", grant_type="client_credentials", scope="links:read")
    assert less.json()["scope"] == "links:read"
    for scope in ("admin", "links:read admin", "nonsense"):
        refused = await app.post("token", grant_type="client_credentials", scope=scope)
        assert refused.json()["error"] == "invalid_scope"
    refused = await public_app.post("token", grant_type="client_credentials")
    assert refused.json()["error"] == "unauthorized_client"
    # There may be many of them: each lasts as long as its token.
    assert await connection.fetchval("select bool_and(expires_at < now() + interval '65 minutes') from oauth_grants")


async def test_an_app_may_never_do_more_than_the_person(api: Api, app: App, connection: Connection) -> None:
    await member_of(connection, api.other.organization, "guest@example.com", "viewer")
    everything = await registered(api, permissions=["admin"])
    for one in (app, everything):
        caller = client_of(api.app, (await tokens_of(one, "guest@example.com"))["access_token"])
        assert (await caller.get("/v1/links")).status_code == 200
        assert error_of(await caller.post("/v1/links", json=LINK))[0] == 403


async def test_an_app_that_may_administer_may_ask_for_less(api: Api) -> None:
    app = await registered(api, permissions=["admin"])
    tokens = await tokens_of(app, scope="links:read")
    assert tokens["scope"] == "links:read"
    assert error_of(await client_of(api.app, tokens["access_token"]).get("/v1/members"))[0] == 403
    own = (await app.post("token", grant_type="client_credentials", scope="links:write")).json()
    assert (await client_of(api.app, own["access_token"]).post("/v1/links", json=LINK)).status_code == 201
    assert (await client_of(api.app, own["access_token"]).get("/v1/links")).status_code == 403
    refused = await app.post("token", grant_type="client_credentials", scope="nonsense")
    assert refused.json()["error"] == "invalid_scope"


@given(st.frozensets(st.sampled_from(PERMISSIONS)), st.frozensets(st.sampled_from(PERMISSIONS)))
def test_both_sides_must_permit_it(one: frozenset[str], other: frozenset[str]) -> None:
    for name in PERMISSIONS:
        assert bool(lacking(within(one, by=other), [name])) == bool(lacking(one, [name]) or lacking(other, [name]))


def test_a_member_who_grants_everything_grants_what_they_have() -> None:
    assert within(frozenset({"admin"}), by=ROLES["member"]) == UNSCOPED


async def test_without_a_key_to_sign_with_nothing_is_spent(
    api: Api, app: App, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await let_in(app)
    api.app.state.access_tokens._signing = None
    async with connection.transaction():
        await connection.execute("lock table signing_keys in access exclusive mode")
        with monkeypatch.context() as patch:
            patch.setattr("admin.database.REQUEST_S", 0.5)
            busy = await flow.redeemed(app)
    assert (busy.status_code, busy.json()["error"]) == (503, "temporarily_unavailable")
    assert "retry-after" in busy.headers
    assert (await flow.redeemed(app)).status_code == 200


async def test_the_metadata_is_true(api: Api) -> None:
    metadata = await described(api)
    for name, url in metadata.items():
        if name.endswith("_endpoint"):
            answer = await api.nobody.post(url.replace(metadata["issuer"], ""), data={"client_id": "x"})
            assert answer.status_code in (400, 401), name
    assert (await api.nobody.get(metadata["jwks_uri"].replace(metadata["issuer"], ""))).json()["keys"]
