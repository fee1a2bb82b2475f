"""Codes: good once, for a minute, and for whoever has asked for them."""

import asyncio

import pytest

from admin.database import Connection
from admin.identity.oauth import grants
from tests.admin.conftest import Api, client_of
from tests.admin.oauth_apps import App, described, endings, let_in, registered
from tests.admin.people import until_refused


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


async def test_a_code_is_good_once_and_its_second_use_ends_what_it_made(
    api: Api, app: App, connection: Connection
) -> None:
    flow = await let_in(app)
    tokens = await flow.tokens(await described(api))
    again = await flow.redeemed(app)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    await until_refused(client_of(api.app, tokens["access_token"]))
    assert await endings(connection) == [("An app", "code_reused")]


async def test_a_code_is_good_once_at_once(api: Api, app: App) -> None:
    flow = await let_in(app)
    answers = await asyncio.gather(*[flow.redeemed(app) for _ in range(4)])
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    [token] = [answer.json()["access_token"] for answer in answers if answer.status_code == 200]
    await until_refused(client_of(api.app, token))


async def test_a_code_is_its_clients_alone(api: Api, app: App) -> None:
    flow = await let_in(app)
    stranger = await registered(api, name="Another")
    refused = await flow.redeemed(stranger)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert (await flow.redeemed(app)).status_code == 200


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
    answer = await (await let_in(app)).redeemed(app, **changed)
    assert answer.json()["error"] == error
    assert answer.status_code == (401 if error == "invalid_client" else 400)
    assert ("www-authenticate" in answer.headers) == (error == "invalid_client")
    assert answer.headers["cache-control"] == "no-store"


async def test_codes_grow_old(app: App, connection: Connection) -> None:
    flow = await let_in(app)
    await connection.execute("update oauth_codes set expires_at = now()")
    assert (await flow.redeemed(app)).json()["error"] == "invalid_grant"


def test_the_challenge_of_rfc_7636() -> None:
    assert grants.s256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
