"""OAuth: authlib's client goes through every flow, and attackers don't."""

import base64
import re
import secrets
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from hypothesis import given
from hypothesis import strategies as st

from admin.database import Connection
from admin.identity import passwords, users
from admin.identity.oauth import grants
from admin.identity.oauth.messages import OAuthError, once_each, with_parameters
from tests.admin.conftest import PASSWORD, Api, client_of, member_of
from tests.admin.people import error_of, session_of, until_refused

REDIRECT = "https://app.example/back?from=linkwire"
OWNER = "other@example.com"
METADATA = "/.well-known/oauth-authorization-server"


class App(NamedTuple):
    """A registered client; people of another organization let it act for them."""

    api: Api
    client_id: str
    secret: str | None

    def client(self, **more: Any) -> AsyncOAuth2Client:
        """A real client library."""
        return AsyncOAuth2Client(
            self.client_id,
            self.secret,
            redirect_uri=REDIRECT,
            code_challenge_method="S256",
            transport=httpx2.ASGITransport(app=self.api.app),
            **more,
        )


async def registered(api: Api, **fields: Any) -> App:
    sent = {"name": "An app", "redirectUris": [REDIRECT], "permissions": ["links:read", "links:write"], **fields}
    answer = await api.one.api.post("/v1/oauth/clients", json=sent)
    assert answer.status_code == 201, answer.text
    data = answer.json()["data"]
    return App(api, data["id"], data["attributes"]["secret"])


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


@pytest.fixture
async def public_app(api: Api) -> App:
    return await registered(api, isConfidential=False)


async def asked(app: App, url: str) -> dict[str, str]:
    """The page that people see, and the fields it would send."""
    page = await app.api.nobody.get(url)
    assert page.status_code == 200, page.text
    assert page.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text.replace("&amp;", "&")))


async def allowed(app: App, url: str, email: str = OWNER) -> str:
    """Where somebody who allows it is sent."""
    form = {**await asked(app, url), "email": email, "password": PASSWORD, "decision": "allow"}
    answer = await app.api.nobody.post("/v1/oauth/authorize", data=form)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


class Flow(NamedTuple):
    """What one flow needs besides the app."""

    client: AsyncOAuth2Client
    verifier: str
    back: str

    async def tokens(self, metadata: dict[str, Any]) -> dict[str, Any]:
        return dict(
            await self.client.fetch_token(
                metadata["token_endpoint"], authorization_response=self.back, code_verifier=self.verifier
            )
        )


async def described(api: Api) -> dict[str, Any]:
    return dict((await api.nobody.get(METADATA)).json())


async def let_in(app: App, **more: Any) -> Flow:
    """A person lets the app in."""
    metadata, verifier = await described(app.api), secrets.token_urlsafe(48)
    client = app.client(**more)
    url, _state = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier)
    return Flow(client, verifier, await allowed(app, url.replace(metadata["issuer"], "")))


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


async def token(app: App, **form: str) -> httpx2.Response:
    """The token endpoint, called by hand."""
    secret = {"client_secret": app.secret} if app.secret else {}
    return await app.api.nobody.post("/v1/oauth/token", data={"client_id": app.client_id, **secret, **form})


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


async def test_a_code_is_good_once_and_its_second_use_ends_what_it_made(api: Api, app: App) -> None:
    flow = await let_in(app)
    tokens = await flow.tokens(await described(api))
    code = parse_qs(urlsplit(flow.back).query)["code"][0]
    again = await token(
        app, grant_type="authorization_code", code=code, redirect_uri=REDIRECT, code_verifier=flow.verifier
    )
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    await until_refused(client_of(api.app, tokens["access_token"]))


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_verifier": "a" * 43}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"redirect_uri": "https://app.example/back"}, "invalid_grant"),
        ({"redirect_uri": ""}, "invalid_request"),
        ({"code": "lac_nonsense"}, "invalid_grant"),
        ({"code": ""}, "invalid_request"),
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"client_id": "client_0123456789abcdef"}, "invalid_client"),
        ({"client_secret": ""}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
    ],
)
async def test_a_code_is_bound_to_everything(api: Api, app: App, changed: dict[str, str], error: str) -> None:
    flow = await let_in(app)
    code = parse_qs(urlsplit(flow.back).query)["code"][0]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": flow.verifier,
        **changed,
    }
    answer = await token(app, **form)
    assert answer.json()["error"] == error
    assert answer.status_code == (401 if error == "invalid_client" else 400)
    assert answer.headers["cache-control"] == "no-store"
    stranger = await registered(api, name="Another")
    assert (await token(stranger, **{**form, **changed})).status_code in (400, 401)


async def test_codes_grow_old(api: Api, app: App, connection: Connection) -> None:
    flow = await let_in(app)
    await connection.execute("update oauth_codes set expires_at = now()")
    code = parse_qs(urlsplit(flow.back).query)["code"][0]
    answer = await token(
        app, grant_type="authorization_code", code=code, redirect_uri=REDIRECT, code_verifier=flow.verifier
    )
    assert answer.json()["error"] == "invalid_grant"


def authorization(app: App, **changed: str) -> str:
    parameters = {
        "response_type": "code",
        "client_id": app.client_id,
        "redirect_uri": REDIRECT,
        "state": "xyz",
        "code_challenge": grants.s256("v" * 43),
        "code_challenge_method": "S256",
        **changed,
    }
    sent = {name: value for name, value in parameters.items() if value}
    return with_parameters("/v1/oauth/authorize", **sent)


@pytest.mark.parametrize(
    "redirect",
    [
        "https://app.example/back",
        "https://app.example/back?from=linkwire&more=1",
        "https://app.example/back?from=linkwire#x",
        "https://APP.example/back?from=linkwire",
        "https://app.example:443/back?from=linkwire",
        "https://app.example/./back?from=linkwire",
        "https://app.example.evil.example/back?from=linkwire",
        "https://app.example@evil.example/back?from=linkwire",
        "http://app.example/back?from=linkwire",
        "javascript:alert(1)",
        "//evil.example",
        "",
    ],
)
async def test_nobody_is_sent_to_another_address(app: App, redirect: str) -> None:
    answer = await app.api.nobody.get(authorization(app, redirect_uri=redirect))
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "text/html" in answer.headers["content-type"]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": ""}, "unsupported_response_type"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": "links:read nonsense"}, "invalid_scope"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_client_is_told_what_it_did_wrong(app: App, changed: dict[str, str], error: str, method: str) -> None:
    url = authorization(app, **changed)
    answer = await (
        app.api.nobody.get(url)
        if method == "GET"
        else app.api.nobody.post(
            "/v1/oauth/authorize",
            data={**{k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}, "decision": "allow"},
        )
    )
    assert answer.status_code == 303
    back = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (back["error"], back["state"]) == ([error], ["xyz"])
    assert "iss" in back


async def test_a_person_may_say_no_and_mistype(app: App, connection: Connection) -> None:
    form = await asked(app, authorization(app))
    no = await app.api.nobody.post("/v1/oauth/authorize", data={**form, "decision": "deny"})
    assert parse_qs(urlsplit(no.headers["location"]).query)["error"] == ["access_denied"]
    for email, password in ((OWNER, "mistyped"), ("nobody@example.com", PASSWORD), ("nonsense", "mistyped"), ("", "")):
        wrong = {**form, "decision": "allow", "email": email, "password": password}
        answer = await app.api.nobody.post("/v1/oauth/authorize", data=wrong)
        assert answer.status_code == 401
        assert "The e-mail address or the password is wrong." in answer.text
        assert "location" not in answer.headers
        assert password == "" or password not in answer.text
    assert await connection.fetchval("select count(*) from oauth_grants") == 0


async def test_an_old_password_grants_nothing_while_a_new_one_is_set(
    app: App, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is changed while the old one is being checked."""
    right = passwords.matches

    async def and_meanwhile(password: str, kept: str | None) -> bool:
        is_right = await right(password, kept)
        await users.set_password(connection, app.api.other.owner.id, "another hash")
        return is_right

    form = {**await asked(app, authorization(app)), "email": OWNER, "password": PASSWORD, "decision": "allow"}
    monkeypatch.setattr(passwords, "matches", and_meanwhile)
    answer = await app.api.nobody.post("/v1/oauth/authorize", data=form)
    assert (answer.status_code, "location" in answer.headers) == (401, False)
    assert await connection.fetchval("select count(*) from oauth_grants") == 0


async def test_nothing_of_an_app_is_markup(api: Api) -> None:
    app = await registered(api, name="<script>alert(1)</script>")
    page = await api.nobody.get(authorization(app, state='"><script>'))
    assert "<script>" not in page.text


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


async def test_revoking_a_client_ends_all_its_grants(api: Api, app: App) -> None:
    tokens = await (await let_in(app)).tokens(await described(api))
    assert (await api.other.api.delete(f"/v1/oauth/clients/{app.client_id}")).status_code == 404
    assert (await api.one.api.delete(f"/v1/oauth/clients/{app.client_id}")).status_code == 204
    await until_refused(client_of(api.app, tokens["access_token"]))
    assert (await token(app, grant_type="refresh_token", refresh_token=tokens["refresh_token"])).status_code == 401


async def test_secrets_are_shown_once_and_kept_nowhere(api: Api, app: App, connection: Connection) -> None:
    assert app.secret is not None
    tokens = await (await let_in(app)).tokens(await described(api))
    shown = await api.one.api.get(f"/v1/oauth/clients/{app.client_id}")
    assert shown.json()["data"]["attributes"]["secret"] is None
    for table in ("oauth_clients", "oauth_grants", "oauth_codes", "refresh_tokens", "audit_log"):
        kept = await connection.fetchval(f"select coalesce(string_agg(t::text, ' '), '') from {table} t")
        for secret in (app.secret, tokens["refresh_token"], tokens["access_token"]):
            assert secret not in kept


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"redirectUris": ["http://app.example/"]}, "redirectUris.0"),
        ({"redirectUris": ["https://app.example/#x"]}, "redirectUris.0"),
        ({"redirectUris": ["https://user@app.example/"]}, "redirectUris.0"),
        ({"redirectUris": ["javascript:alert(1)"]}, "redirectUris.0"),
        ({"redirectUris": ["https:///x"]}, "redirectUris.0"),
        ({"redirectUris": ["https://a.example/ b"]}, "redirectUris.0"),
        ({"permissions": []}, "permissions"),
        ({"permissions": ["links:fly"]}, "permissions.0"),
        ({"name": ""}, "name"),
        ({"secret": "mine"}, "secret"),
    ],
)
async def test_bad_clients(api: Api, fields: dict[str, Any], field: str) -> None:
    sent = {"name": "An app", "redirectUris": [REDIRECT], "permissions": ["links:read"], **fields}
    answer = await api.one.api.post("/v1/oauth/clients", json=sent)
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == [field]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:7777/cb", "http://localhost/cb", "http://[::1]:1/cb", REDIRECT])
async def test_good_redirect_uris(api: Api, uri: str) -> None:
    await registered(api, redirectUris=[uri])


async def test_bad_requests_of_clients(api: Api, app: App) -> None:
    wrong = base64.b64encode(b"\xff").decode()
    for headers, content, error in (
        ({"content-type": "application/json"}, b"{}", "invalid_request"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"", "invalid_client"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"client_id=%ff", "invalid_request"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"client_id=a&client_id=b", "invalid_request"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"client_id=%00", "invalid_request"),
        ({"content-type": "application/x-www-form-urlencoded", "authorization": "Basic !"}, b"a=b", "invalid_client"),
        (
            {"content-type": "application/x-www-form-urlencoded", "authorization": f"Basic {wrong}"},
            b"a=b",
            "invalid_client",
        ),
    ):
        answer = await api.nobody.post("/v1/oauth/token", content=content, headers=headers)
        assert answer.json()["error"] == error, content


async def test_guessing_secrets_is_bounded(api: Api, app: App) -> None:
    guess = app._replace(secret="wrong")
    answers = [await token(guess, grant_type="client_credentials") for _ in range(31)]
    assert [answer.status_code for answer in answers] == [401] * 30 + [429]
    assert (await token(app, grant_type="client_credentials")).status_code == 200


async def test_the_metadata_is_true(api: Api) -> None:
    metadata = await described(api)
    for name, url in metadata.items():
        if name.endswith("_endpoint"):
            answer = await api.nobody.post(url.replace(metadata["issuer"], ""), data={"client_id": "x"})
            assert answer.status_code in (400, 401), name
    assert (await api.nobody.get(metadata["jwks_uri"].replace(metadata["issuer"], ""))).json()["keys"]


def test_the_challenge_of_rfc_7636() -> None:
    assert grants.s256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=6))
def test_parameters_are_read_once_or_refused(pairs: list[tuple[str, str]]) -> None:
    try:
        read = once_each(pairs)
    except OAuthError:
        assert len(dict(pairs)) < len(pairs) or any("\0" in text for pair in pairs for text in pair)
        return
    assert read == {name: text for name, text in pairs if text}
