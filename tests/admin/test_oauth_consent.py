"""The page where people let an app act for them, and nobody is led astray."""

import time
from urllib.parse import parse_qs, urlsplit

import pytest

from admin.database import Connection
from admin.http.limits import Limit
from admin.identity import members, passwords, users
from admin.identity.oauth import authorize, tickets
from tests.admin.conftest import PASSWORD, Api
from tests.admin.oauth_apps import (
    OWNER,
    REDIRECT,
    App,
    allowed,
    asked,
    authorization,
    hidden,
    link_of,
    logged_in,
    registered,
    sent,
)


@pytest.fixture
async def app(api: Api) -> App:
    return await registered(api)


async def granted(connection: Connection) -> int:
    return int(await connection.fetchval("select count(*) from oauth_grants"))


async def test_the_page_says_who_wants_what_and_for_whom(api: Api) -> None:
    app = await registered(api, permissions=["admin", "links:read"])
    page = await api.nobody.get(authorization(app, scope="links:read"))
    for told in ("An app", "<strong>one</strong>", "<code>links:read</code>", REDIRECT):
        assert told in page.text
    assert "admin" not in page.text
    page = await logged_in(app, authorization(app))
    for told in ("An app", "<strong>one</strong>", "<strong>other</strong>", OWNER, "is everything", REDIRECT):
        assert told in page.text
    assert "<select" not in page.text


async def test_enter_goes_on(app: App) -> None:
    """Browsers press the first button of a form."""
    first = await app.api.nobody.get(authorization(app))
    second = await logged_in(app, authorization(app))
    for page, decision in ((first, "log_in"), (second, "allow")):
        assert page.text.partition("<button ")[2].startswith(f'name="decision" value="{decision}"')


async def test_what_was_given_is_told(api: Api, app: App, connection: Connection) -> None:
    await allowed(app, authorization(app, scope="links:read"))
    [entry] = (await api.other.api.get("/v1/audit-log?action=grant.given")).json()["data"]
    told = entry["attributes"]
    assert (told["actorName"], told["objectType"]) == (OWNER, "grant")
    assert told["details"] == {"client": app.client_id, "scopes": ["links:read"]}
    assert told["objectId"] == "grant_" + await connection.fetchval("select public_id from oauth_grants")


async def test_who_is_in_several_organizations_chooses_one(api: Api, app: App, connection: Connection) -> None:
    await members.add(connection, api.one.organization_id, api.other.owner.id, "viewer")
    page = await logged_in(app, authorization(app))
    choices = [f"org_{tenant.organization.public_id}" for tenant in (api.other, api.one)]
    places = [page.text.index(f'<option value="{choice}">') for choice in choices]
    assert places == sorted(places)
    await allowed(app, authorization(app), organization=choices[1])
    assert await connection.fetchval("select organization_id from oauth_grants") == api.one.organization_id
    [entry] = (await api.one.api.get("/v1/audit-log?action=grant.given")).json()["data"]
    assert entry["attributes"]["actorName"] == OWNER


async def test_nobody_chooses_what_they_are_no_member_of(api: Api, app: App, connection: Connection) -> None:
    form = hidden(await logged_in(app, authorization(app)))
    theirs = await sent(app, form, "allow", organization=f"org_{api.one.organization.public_id}")
    assert (theirs.status_code, "no member of this organization" in theirs.text) == (403, True)
    for nonsense in ("", "nonsense", "org_0123456789abcdef"):
        assert (await sent(app, form, "allow", organization=nonsense)).status_code in (403, 404)
    await connection.execute("delete from memberships where user_id = $1", api.other.owner.id)
    assert (await sent(app, form, "allow")).status_code == 403
    answer = await sent(app, await asked(app, authorization(app)), "log_in", email=OWNER, password=PASSWORD)
    assert (answer.status_code, "no member of an organization" in answer.text) == (403, True)
    assert await granted(connection) == 0


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
        ({"state": "x" * 1001}, "invalid_request"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_the_client_did_wrong_is_told_on_a_page_that_leads_back(
    app: App, changed: dict[str, str], error: str, method: str
) -> None:
    url = authorization(app, **changed)
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    answer = await (app.api.nobody.get(url) if method == "GET" else sent(app, query, "allow"))
    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert "An app" in answer.text and f"<code>{error}</code>" in answer.text
    back = parse_qs(urlsplit(link_of(answer)).query)
    assert link_of(answer).startswith(REDIRECT + "&")
    assert (back["error"], "iss" in back) == ([error], True)
    assert back.get("state") == (["xyz"] if "state" not in changed else None)


async def test_a_person_may_say_no(app: App, connection: Connection) -> None:
    for form in (await asked(app, authorization(app)), hidden(await logged_in(app, authorization(app)))):
        for decision in ("deny", "", "nonsense"):
            no = await sent(app, form, decision)
            assert (no.status_code, "location" in no.headers) == (200, False)
            back = parse_qs(urlsplit(link_of(no)).query)
            assert (back["error"], back["state"], "iss" in back) == (["access_denied"], ["xyz"], True)
    assert await granted(connection) == 0


async def test_a_person_may_mistype(app: App, connection: Connection) -> None:
    form = await asked(app, authorization(app))
    for email, password in ((OWNER, "mistyped"), ("nobody@example.com", PASSWORD), ("nonsense", "mistyped"), ("", "")):
        answer = await sent(app, form, "log_in", email=email, password=password)
        assert answer.status_code == 401
        assert "The e-mail address or the password is wrong." in answer.text
        assert "location" not in answer.headers
        assert f'value="{email}"' in answer.text
        assert password == "" or password not in answer.text
        assert "ticket" not in hidden(answer)
    assert await granted(connection) == 0


async def test_what_is_too_long_is_neither_read_nor_repeated(app: App) -> None:
    form, long = await asked(app, authorization(app)), f"a@{'b.' * 400_000}example"
    for more in ({"email": long, "password": PASSWORD}, {"email": OWNER, "password": long}):
        began_s = time.process_time()
        answer = await sent(app, form, "log_in", **more)
        assert time.process_time() - began_s < 0.5
        assert (answer.status_code, len(answer.content) < 10_000) == (401, True)


async def test_a_ticket_is_for_one_question_and_ten_minutes(
    api: Api, app: App, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = hidden(await logged_in(app, authorization(app)))
    other = hidden(await logged_in(app, authorization(app, state="another")))
    monkeypatch.setattr(tickets, "_LASTS_S", -1)
    old = hidden(await logged_in(app, authorization(app)))["ticket"]
    stolen = {**form, "client_id": (await registered(api, name="Another")).client_id}
    for wrong in ({**form, "ticket": old}, {**form, "ticket": other["ticket"]}, {**form, "ticket": ""}, stolen):
        answer = await sent(app, wrong, "allow")
        assert (answer.status_code, "Please log in" in answer.text) == (401, True)
    assert (await sent(app, {**form, "ticket": "ü" * 9}, "allow")).status_code == 401
    await users.set_password(connection, api.other.owner.id, "another hash")
    answer = await sent(app, form, "allow")
    assert (answer.status_code, "The password was changed" in answer.text) == (401, True)
    assert await granted(connection) == 0


async def test_an_old_password_grants_nothing_while_a_new_one_is_set(
    app: App, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is changed while the old one is being checked."""
    right = passwords.matches

    async def and_meanwhile(password: str, kept: str | None) -> bool:
        is_right = await right(password, kept)
        await users.set_password(connection, app.api.other.owner.id, "another hash")
        return is_right

    form = await asked(app, authorization(app))
    monkeypatch.setattr(passwords, "matches", and_meanwhile)
    answer = await sent(app, form, "log_in", email=OWNER, password=PASSWORD)
    assert (answer.status_code, "ticket" in hidden(answer)) == (401, False)


async def test_forms_of_other_pages_are_refused(app: App) -> None:
    form = hidden(await logged_in(app, authorization(app)))
    for site, status in (("cross-site", 400), ("same-site", 400), ("same-origin", 303)):
        app.api.nobody.headers["Sec-Fetch-Site"] = site
        assert (await sent(app, form, "allow")).status_code == status


async def test_people_who_must_wait_see_a_page(
    app: App, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = await asked(app, authorization(app))
    large = await sent(app, form, "log_in", email="a" * 1024 * 1024)
    monkeypatch.setattr(authorize, "_VISITS", (Limit(1, 60),))
    often = [await app.api.nobody.get(authorization(app)) for _ in range(2)][1]
    async with connection.transaction():
        await connection.execute("lock table oauth_clients in access exclusive mode")
        monkeypatch.setattr("admin.database.REQUEST_S", 0.5)
        away = await sent(app, form, "deny")
    for answer, status in ((large, 413), (often, 429), (away, 503)):
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        assert ("retry-after" in answer.headers) == (status != 413)
        assert "<h1>" in answer.text and answer.headers["x-frame-options"] == "DENY"


async def test_nothing_of_an_app_or_an_organization_is_markup(api: Api, connection: Connection) -> None:
    script = "<script>alert(1)</script>"
    app = await registered(api, name=script)
    await connection.execute("update organizations set name = $1", script)
    url = authorization(app, state='"><script>')
    form = await asked(app, url)
    for page in (
        await api.nobody.get(url),
        await logged_in(app, url),
        await sent(app, form, "deny"),
        await sent(app, form, "log_in", email='"><script>'),
        await api.nobody.get(authorization(app, state='"><script>', scope="nonsense")),
    ):
        assert "<script>" not in page.text
        assert "alert(1)" in page.text


async def test_a_program_on_the_persons_machine_may_listen_on_any_port(api: Api) -> None:
    app = await registered(api, redirectUris=["http://127.0.0.1:7777/back"])
    back = await allowed(app, authorization(app, redirect_uri="http://127.0.0.1:61234/back"))
    assert back.startswith("http://127.0.0.1:61234/back?code=")
