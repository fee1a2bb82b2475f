"""Clients: how they are registered, and how they show who they are."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.database import Connection
from admin.identity.oauth.messages import OAuthError, once_each
from tests.admin.conftest import Api, client_of
from tests.admin.oauth_apps import (
    REDIRECT,
    App,
    described,
    let_in,
    registered,
    token,
)
from tests.admin.people import error_of, until_refused


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


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


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=6))
def test_parameters_are_read_once_or_refused(pairs: list[tuple[str, str]]) -> None:
    try:
        read = once_each(pairs)
    except OAuthError:
        assert len(dict(pairs)) < len(pairs) or any("\0" in text for pair in pairs for text in pair)
        return
    assert read == {name: text for name, text in pairs if text}
