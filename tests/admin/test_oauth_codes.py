"""Codes: good once, for a minute, and for whoever has asked for them."""

from urllib.parse import parse_qs, urlsplit

import pytest

from admin.database import Connection
from admin.identity.oauth import grants
from tests.admin.conftest import Api, client_of
from tests.admin.oauth_apps import REDIRECT, App, described, let_in, registered, token
from tests.admin.people import until_refused


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


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


def test_the_challenge_of_rfc_7636() -> None:
    assert grants.s256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
