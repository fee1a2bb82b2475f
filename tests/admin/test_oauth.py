"""OAuth: authlib's client goes through every flow, and what it got is good for what was granted."""

import secrets
from urllib.parse import parse_qs, urlsplit

import pytest

from admin.database import Connection
from tests.admin.conftest import Api, client_of, member_of
from tests.admin.oauth_apps import OWNER, REDIRECT, App, Flow, allowed, described, let_in, registered, token
from tests.admin.people import error_of, session_of, until_refused


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


@pytest.fixture
async def public_app(api: Api) -> App:
    return await registered(api, isConfidential=False)


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
    caller = client_of(api.app, tokens["access_token"])
    assert (await caller.get("/v1/links")).status_code == 200
    assert error_of(await caller.post("/v1/links", json={"destination": "https://x.example/"}))[0] == 403
    assert error_of(await caller.get("/v1/auth/me")) == (401, "INVALID_TOKEN")


async def test_an_app_acts_for_the_person_and_their_organization(api: Api, app: App) -> None:
    tokens = await (await let_in(app)).tokens(await described(api))
    caller = client_of(api.app, tokens["access_token"])
    link = (await caller.post("/v1/links", json={"destination": "https://x.example/"})).json()["data"]
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
    again = await token(thief, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    await until_refused(client_of(api.app, second["access_token"]))
    ended = await token(app, grant_type="refresh_token", refresh_token=second["refresh_token"])
    assert ended.json()["error"] == "invalid_grant"


async def test_a_lost_answer_is_forgiven_for_ten_seconds(api: Api, app: App, connection: Connection) -> None:
    tokens = await (await let_in(app)).tokens(await described(api))
    sent = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    first, again = [(await token(app, **sent)).json() for _ in range(2)]
    assert first["refresh_token"] == again["refresh_token"]
    await connection.execute("update refresh_tokens set used_at = used_at - interval '11 seconds'")
    assert (await token(app, **sent)).json()["error"] == "invalid_grant"


async def test_client_credentials(api: Api, app: App, public_app: App) -> None:
    metadata = await described(api)
    tokens = await app.client().fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    assert "refresh_token" not in tokens
    caller = client_of(api.app, tokens["access_token"])
    link = (await caller.post("/v1/links", json={"destination": "https://x.example/"})).json()["data"]
    assert link["ownerId"] == f"o-{api.one.organization.public_id}"
    less = await token(app, grant_type="client_credentials", scope="links:read")
    assert less.json()["scope"] == "links:read"
    for scope in ("admin", "links:read admin", "nonsense"):
        assert (await token(app, grant_type="client_credentials", scope=scope)).json()["error"] == "invalid_scope"
    assert (await token(public_app, grant_type="client_credentials")).json()["error"] == "unauthorized_client"


async def test_revocation_and_introspection(api: Api, app: App, public_app: App) -> None:
    metadata = await described(api)
    flow = await let_in(app)
    tokens = await flow.tokens(metadata)
    for one in ("access_token", "refresh_token"):
        told = (await flow.client.introspect_token(metadata["introspection_endpoint"], token=tokens[one])).json()
        assert told["active"] is True
        assert (told["client_id"], told["scope"]) == (app.client_id, "links:read links:write")
    stranger = await registered(api, name="Another")
    for other, path in ((stranger, "introspect"), (public_app, "introspect"), (stranger, "revoke")):
        secret = {"client_secret": other.secret} if other.secret else {}
        answer = await api.nobody.post(
            f"/v1/oauth/{path}", data={"client_id": other.client_id, **secret, "token": tokens["access_token"]}
        )
        assert answer.json().get("active", False) is False
    assert (await client_of(api.app, tokens["access_token"]).get("/v1/links")).status_code == 200
    answer = await flow.client.revoke_token(metadata["revocation_endpoint"], token=tokens["refresh_token"])
    assert answer.status_code == 200
    await until_refused(client_of(api.app, tokens["access_token"]))
    told = (await flow.client.introspect_token(metadata["introspection_endpoint"], token=tokens["access_token"])).json()
    assert told == {"active": False}
    nonsense = await flow.client.revoke_token(metadata["revocation_endpoint"], token="nonsense")
    assert nonsense.status_code == 200


async def test_an_app_may_never_do_more_than_the_person(api: Api, connection: Connection) -> None:
    app = await registered(api)
    person = await member_of(connection, api.other.organization, "guest@example.com", "viewer")
    metadata, verifier = await described(api), secrets.token_urlsafe(48)
    client = app.client()
    url, _ = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier)
    back = await allowed(app, url.replace(metadata["issuer"], ""), "guest@example.com")
    tokens = await Flow(client, verifier, back).tokens(metadata)
    caller = client_of(api.app, tokens["access_token"])
    assert (await caller.get("/v1/links")).status_code == 200
    assert error_of(await caller.post("/v1/links", json={"destination": "https://x.example/"}))[0] == 403
    owner = await session_of(api, OWNER)
    assert (await owner.delete(f"/v1/members/user_{person.public_id}")).status_code == 204
    await until_refused(client_of(api.app, tokens["access_token"]))


async def test_the_metadata_is_true(api: Api) -> None:
    metadata = await described(api)
    for name, url in metadata.items():
        if name.endswith("_endpoint"):
            answer = await api.nobody.post(url.replace(metadata["issuer"], ""), data={"client_id": "x"})
            assert answer.status_code in (400, 401), name
    assert (await api.nobody.get(metadata["jwks_uri"].replace(metadata["issuer"], ""))).json()["keys"]
