"""The page where people let an app act for them, and nobody is led astray."""

from urllib.parse import parse_qs, urlsplit

import pytest

from admin.database import Connection
from admin.identity import passwords, users
from tests.admin.conftest import PASSWORD, Api
from tests.admin.oauth_apps import OWNER, App, asked, authorization, registered


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


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
