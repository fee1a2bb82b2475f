"""Tokens of grants, looked into and revoked by their clients."""

import contextlib
import json
import time

import pytest
from joserfc.jwk import OKPKey

from admin.database import Connection
from tests.admin.conftest import Api, client_of
from tests.admin.oauth_apps import OWNER, App, described, endings, let_in, registered, tokens_of
from tests.admin.people import log_in, until_refused
from tests.admin.test_access_tokens import _decoded, forged, signing_key

INACTIVE = {"active": False}


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


async def expired(token: str, connection: Connection) -> str:
    return forged(token, await signing_key(connection), exp=int(time.time()) - 60)


async def test_what_is_told_of_a_token(api: Api, app: App, connection: Connection) -> None:
    flow = await let_in(app)
    tokens, metadata = await flow.tokens(await described(api)), await described(api)
    told = (await flow.client.introspect_token(metadata["introspection_endpoint"], token=tokens["access_token"])).json()
    claims = json.loads(_decoded(tokens["access_token"].split(".")[1]))
    assert told == {
        "active": True,
        "token_type": "Bearer",
        **{name: claims[name] for name in ("sub", "iss", "aud", "exp", "client_id", "scope")},
    }
    assert told["sub"] == f"user_{api.other.owner.public_id}"
    end = await connection.fetchval("select extract(epoch from expires_at)::int from oauth_grants")
    of_refresh_token = (await app.post("introspect", token=tokens["refresh_token"])).json()
    assert of_refresh_token == {
        "active": True,
        **{name: told[name] for name in ("sub", "iss", "client_id", "scope")},
        "exp": pytest.approx(end, abs=1),
    }
    less = (await app.refresh(tokens["refresh_token"], scope="links:read")).json()
    assert (await app.post("introspect", token=less["access_token"])).json()["scope"] == "links:read"
    own = (await app.post("token", grant_type="client_credentials")).json()
    assert (await app.post("introspect", token=own["access_token"])).json()["sub"] == app.client_id
    for over in (tokens["refresh_token"], await expired(tokens["access_token"], connection), "nonsense", "a.b.c"):
        assert (await app.post("introspect", token=over)).json() == INACTIVE


async def test_of_the_tokens_of_others_nothing_is_told_and_none_is_ended(api: Api, app: App) -> None:
    tokens = await tokens_of(app)
    stranger = await registered(api, name="Another")
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert (await stranger.post("introspect", token=token)).json() == INACTIVE
        assert (await stranger.post("revoke", token=token)).json() == {}
    nobodys = await registered(api, isConfidential=False)
    refused = await nobodys.post("introspect", token=tokens["access_token"])
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert (await client_of(api.app, tokens["access_token"]).get("/v1/links")).status_code == 200


@pytest.mark.parametrize("which", ["access", "refresh", "used", "expired"])
async def test_any_token_of_a_grant_revokes_all_of_it(api: Api, app: App, connection: Connection, which: str) -> None:
    first = await tokens_of(app)
    second = (await app.refresh(first["refresh_token"])).json()
    token = {
        "access": first["access_token"],
        "refresh": second["refresh_token"],
        "used": first["refresh_token"],
        "expired": await expired(first["access_token"], connection),
    }[which]
    for _ in range(2):
        answer = await app.post("revoke", token=token)
        assert (answer.status_code, answer.json()) == (200, {})
    await until_refused(client_of(api.app, second["access_token"]))
    assert (await app.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await app.post("introspect", token=second["access_token"])).json() == INACTIVE
    assert await endings(connection) == [("An app", "revoked")]


async def test_a_token_that_was_never_good_revokes_nothing(api: Api, app: App, connection: Connection) -> None:
    token = (await tokens_of(app))["access_token"]
    key, now = await signing_key(connection), int(time.time())
    for forgery in (
        forged(token, key, exp=now - 60, nbf=now + 600),
        forged(token, key, exp=now - 60, aud="somebody else"),
        forged(token, OKPKey.generate_key("Ed25519"), exp=now - 60),
    ):
        assert (await app.post("revoke", token=forgery)).json() == {}
    assert (await client_of(api.app, token).get("/v1/links")).status_code == 200


async def test_a_session_is_not_the_clients_to_look_into(api: Api, app: App) -> None:
    session = (await log_in(api, OWNER))["meta"]
    for token in (session["accessToken"], session["refreshToken"]):
        assert (await app.post("introspect", token=token)).json() == INACTIVE
        assert (await app.post("revoke", token=token)).json() == {}
    assert (await client_of(api.app, session["accessToken"]).get("/v1/auth/me")).status_code == 200


@pytest.mark.parametrize("endpoint", ["revoke", "introspect"])
async def test_a_token_needs_one_connection_at_a_time(api: Api, app: App, endpoint: str) -> None:
    """Or a few that name unknown keys could wait for each other, and all others with them."""
    token = (await tokens_of(app))["access_token"]
    signed_by_nobody = forged(token, OKPKey.generate_key("Ed25519"), header={"kid": "unknown"})
    api.app.state.access_tokens._asked_at = -float("inf")
    async with contextlib.AsyncExitStack() as taken:
        for _ in range(api.app.state.pool.get_max_size() - 1):
            await taken.enter_async_context(api.app.state.pool.acquire())
        answer = await app.post(endpoint, token=signed_by_nobody)
    assert answer.status_code == 200
    assert answer.json().get("active", False) is False


@pytest.mark.parametrize("endpoint", ["token", "revoke", "introspect"])
async def test_every_error_is_one_that_clients_know(api: Api, app: App, endpoint: str) -> None:
    large = await app.post(endpoint, token="a" * 1024 * 1024)
    assert (large.status_code, large.json()["error"]) == (413, "invalid_request")
    assert large.json()["error_description"]
    assert large.headers["cache-control"] == "no-store"
    broken = await api.nobody.post(f"/v1/oauth/{endpoint}", json={})
    assert (broken.status_code, broken.json()["error"]) == (400, "invalid_request")
