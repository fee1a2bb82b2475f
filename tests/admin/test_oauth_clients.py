"""Clients: how they are registered, where they are, and how they show who they are."""

import base64
import itertools
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.database import Connection
from admin.http.ids import new_id
from admin.http.limits import Limit
from admin.identity.oauth import tokens
from admin.identity.oauth.clients import Client
from admin.identity.oauth.messages import OAuthError, once_each
from tests.admin.conftest import Api, client_of
from tests.admin.oauth_apps import REDIRECT, App, registered, tokens_of
from tests.admin.people import error_of, until_refused


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


async def test_revoking_a_client_ends_all_its_grants(api: Api, app: App) -> None:
    granted = await tokens_of(app)
    assert (await api.other.api.delete(f"/v1/oauth/clients/{app.client_id}")).status_code == 404
    assert (await api.one.api.delete(f"/v1/oauth/clients/{app.client_id}")).status_code == 204
    await until_refused(client_of(api.app, granted["access_token"]))
    assert (await app.refresh(granted["refresh_token"])).status_code == 401


async def test_secrets_are_shown_once_and_kept_nowhere(api: Api, app: App, connection: Connection) -> None:
    assert app.secret is not None
    granted = await tokens_of(app)
    shown = await api.one.api.get(f"/v1/oauth/clients/{app.client_id}")
    assert shown.json()["data"]["attributes"]["secret"] is None
    for table in ("oauth_clients", "oauth_grants", "oauth_codes", "refresh_tokens", "audit_log"):
        kept = await connection.fetchval(f"select coalesce(string_agg(t::text, ' '), '') from {table} t")
        for secret in (app.secret, granted["refresh_token"], granted["access_token"]):
            assert secret not in kept and secret.encode().hex() not in kept


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


def client_at(uri: str) -> Client:
    return Client(1, new_id(), 1, "An app", [uri], ["links:read"], False, datetime.now())


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "127.0.0.2", "app.example"])
def test_only_the_port_on_the_loopback_interface_may_differ(host: str, scheme: str) -> None:
    may_differ = scheme == "http" and host in ("127.0.0.1", "[::1]")
    uris = [(port, tail) for port in ("", ":1", ":80", ":61234") for tail in ("", "/", "/cb", "/cb?a=b", "?a=b")]
    for (port, tail), (other_port, other_tail) in itertools.product(uris, uris):
        client = client_at(f"{scheme}://{host}{port}{tail}")
        is_same = tail == other_tail and (may_differ or port == other_port)
        assert client.may_be_answered_at(f"{scheme}://{host}{other_port}{other_tail}") == is_same


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1@evil.example", "127.0.0.1:1.evil.example", "127.0.0.1:1\n.evil", "[::1]:"]
)
def test_what_only_looks_like_a_port_is_none(host: str) -> None:
    assert not client_at("http://127.0.0.1/cb").may_be_answered_at(f"http://{host}/cb")
    assert not client_at("http://[::1]/cb").may_be_answered_at(f"http://{host}/cb")


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


async def test_guessing_secrets_is_bounded(app: App, connection: Connection) -> None:
    assert (await app.post("token", grant_type="client_credentials")).status_code == 200
    guess = app._replace(secret="wrong")
    answers = [await guess.post("token", grant_type="client_credentials") for _ in range(30)]
    assert {(answer.status_code, answer.json()["error"]) for answer in answers} == {(401, "invalid_client")}
    async with connection.transaction():  # beyond that no guess costs a query, or it would wait here
        await connection.execute("lock table oauth_clients in access exclusive mode")
        refused = await guess.post("token", grant_type="client_credentials")
    assert (refused.status_code, refused.json()["error"]) == (429, "temporarily_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert (await app.post("token", grant_type="client_credentials")).status_code == 200


async def test_what_a_client_may_ask_for_is_bounded(
    api: Api, app: App, monkeypatch: pytest.MonkeyPatch, connection: Connection
) -> None:
    monkeypatch.setattr(tokens, "_CALLS", (Limit(3, 60),))
    nobodys = await registered(api, isConfidential=False)
    elsewhere = {"X-Forwarded-For": "203.0.113.9"}
    for one, is_bounded_elsewhere in ((app, True), (nobodys, False)):
        answers = [await one.post("revoke", token="nonsense") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        moved = one._replace(api=api._replace(nobody=client_of(api.app, **elsewhere)))
        assert (await moved.post("revoke", token="nonsense")).status_code == (429 if is_bounded_elsewhere else 200)


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=6))
def test_parameters_are_read_once_or_refused(pairs: list[tuple[str, str]]) -> None:
    try:
        read = once_each(pairs)
    except OAuthError:
        assert len(dict(pairs)) < len(pairs) or any("\0" in text for pair in pairs for text in pair)
        return
    assert read == {name: text for name, text in pairs if text}
