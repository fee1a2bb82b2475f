"""What every route shares: keys, permissions, tenants, request ids, limits, unknown routes, the OpenAPI document.

And what is asked of the API as a whole: whether it is ready.
"""

import re
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from admin.database import Connection
from admin.http import ids
from admin.identity import keys
from admin.identity.permissions import PERMISSIONS
from tests.admin.conftest import Api, client_of, founded, key_of, made, member_of, running, settings_of
from tests.admin.files_of_links import sent
from tests.admin.oauth_apps import given
from tests.admin.people import error_of, log_in, session_of
from tests.admin.routes import CLOSED, DOCUMENT, ROUTES, Route
from tests.admin.test_conversions import told, told_id
from tests.admin.test_links_api import DOCUMENTED
from tests.conftest import Servers

FORMS = [route for route in ROUTES if route.path in ("/v1/oauth/token", "/v1/oauth/revoke", "/v1/oauth/introspect")]
WITH_IDS = [route for route in CLOSED if route.parameters]
OPEN = {
    "POST /v1/auth/register",
    "POST /v1/auth/login",
    "POST /v1/auth/refresh",
    "POST /v1/auth/logout",
    "POST /v1/auth/password/reset",
    "POST /v1/auth/password/confirm",
    "POST /v1/auth/email/verify",
    "POST /v1/oauth/token",
    "POST /v1/oauth/revoke",
    "POST /v1/oauth/introspect",
    "GET /v1/public/stats",
}
UNKNOWN = {"link_id": "0123456789abcdef"}
NOBODY = "//127.0.0.1:1"  # where nothing listens
PREFIXES = {
    "key_id": "key",
    "user_id": "user",
    "invitation_id": "inv",
    "client_id": "client",
    "domain_id": "dom",
    "grant_id": "grant",
    "import_id": "imp",
}


def unknown(route: Route) -> str:
    """The route with ids that nothing has."""
    return route.at(**{name: UNKNOWN.get(name) or f"{PREFIXES[name]}_0123456789abcdef" for name in route.parameters})


def test_only_these_routes_ask_nobody_who_they_are() -> None:
    assert {f"{route.method} {route.path}" for route in ROUTES if route not in CLOSED} == OPEN


WRONG = {
    "Bearer nonsense": "INVALID_API_KEY",
    f"Bearer {keys.new_key()}": "INVALID_API_KEY",
    "Bearer \x7f": "INVALID_API_KEY",
    "Bearer a.b.c": "INVALID_TOKEN",
    "Bearer ": "AUTHENTICATION_REQUIRED",
    "Basic eDp5": "AUTHENTICATION_REQUIRED",
}


async def test_every_other_route_wants_a_key(api: Api) -> None:
    for number, route in enumerate(CLOSED):
        client = client_of(api.app, **{"X-Forwarded-For": f"203.0.113.{number}"})  # guesses are bounded by address
        missing = await client.request(route.method, unknown(route))
        assert error_of(missing) == (401, "AUTHENTICATION_REQUIRED"), route
        assert "WWW-Authenticate" in missing.headers
        for wrong, code in WRONG.items():
            answer = await client.request(route.method, unknown(route), headers={"Authorization": wrong})
            assert error_of(answer) == (401, code), (route, wrong)


async def test_every_permission_is_needed_and_enough(api: Api, connection: Connection) -> None:
    for route in [route for route in CLOSED if route.permissions]:
        assert route.permissions and set(route.permissions) <= set(PERMISSIONS)
        others = [name for name in PERMISSIONS if name not in (*route.permissions, "admin")]
        sent = {"nonsense": 1} if route.has_body else None
        lacking = client_of(api.app, await key_of(connection, api.one.organization, *others))
        answer = await lacking.request(route.method, unknown(route), json=sent)
        assert error_of(answer) == (403, "INSUFFICIENT_PERMISSIONS"), route
        enough = client_of(api.app, await key_of(connection, api.one.organization, *route.permissions))
        answer = await enough.request(route.method, unknown(route), json=sent)
        assert answer.status_code in (200, 204, 400, 404), route


async def test_every_body_is_read_with_care(api: Api) -> None:
    token = (await log_in(api, "one@example.com"))["meta"]["accessToken"]
    for number, route in enumerate([route for route in ROUTES if route.has_body and route not in FORMS]):
        client = client_of(api.app, token, **{"X-Forwarded-For": f"203.0.113.{number}"})
        for body in (b"{", b"[]", b'{"nonsense": 1}', b"\xff", b'{"a": NaN}', b""):
            answer = await client.request(
                route.method, unknown(route), content=body, headers={"content-type": "application/json"}
            )
            assert error_of(answer) == (400, "VALIDATION_ERROR"), (route, body, answer.text)
            assert answer.json()["error"]["details"], (route, body)


async def theirs(api: Api, connection: Connection) -> dict[str, str]:
    """Something of the first organization for each parameter of a path."""
    owner = await session_of(api, "one@example.com")
    invitation = await owner.post("/v1/invitations", json={"email": "a@example.com"})
    key = (await api.one.api.get("/v1/api-keys")).json()["data"][0]["id"]
    link = await made(api.one.api, path="/mine")
    app = await api.one.api.post("/v1/oauth/clients", json={"name": "An app", "permissions": ["links:read"]})
    domain = await api.one.api.post("/v1/domains", json={"hostname": "go.example.com"})
    await told(api.one.api, await told_id(connection))
    return {
        "link_id": link["id"],
        "domain_id": domain.json()["data"]["id"],
        "key_id": key,
        "user_id": ids.shown("user", api.one.owner.public_id),
        "invitation_id": invitation.json()["data"]["id"],
        "client_id": app.json()["data"]["id"],
        "grant_id": (await given(connection, api.one)).shown_id,
        "import_id": await sent(api.one, "destination\nhttps://example.com/\n"),
    }


async def rows(connection: Connection) -> dict[str, Any]:
    """Everything that a route could change, but the time a key was used."""
    tables = (
        "links",
        "memberships",
        "invitations",
        "organizations",
        "oauth_clients",
        "oauth_grants",
        "domains",
        "imports",
        "audit_log",
    )
    kept = {table: await connection.fetch(f"select * from {table} order by 1, 2") for table in tables}
    return {**kept, "keys": await connection.fetch("select id, name, expires_at, revoked_at from api_keys order by id")}


def bodies(route: Route) -> dict[str, Any]:
    """A body that the route accepts."""
    return {
        "/v1/links/{link_id}": {"title": "stolen"},
        "/v1/links/{link_id}/explain": {},
        "/v1/members/{user_id}": {"role": "viewer"},
        "/v1/api-keys/{key_id}/rotate": {},
        "/v1/domains/{domain_id}": {"rootUrl": "https://example.com/"},
    }[route.path]


async def test_what_is_others_or_unknown_is_not_found(api: Api, connection: Connection) -> None:
    mine = await theirs(api, connection)
    stranger = await session_of(api, "other@example.com")
    await stranger.get("/v1/organization")
    before = await rows(connection)
    for route in WITH_IDS:
        sent = bodies(route) if route.has_body else None
        for client in (stranger,) if route.path.startswith("/v1/auth/") else (api.other.api, stranger):
            answer = await client.request(route.method, route.at(**mine), json=sent)
            assert error_of(answer) == (404, "RESOURCE_NOT_FOUND"), route
        for shape in ("0123456789abcdef", "key_0123456789abcdef", "%00", "a" * 5000, "ü", "-1", "1 or 1=1"):
            answer = await stranger.request(route.method, route.at(**dict.fromkeys(route.parameters, shape)), json=sent)
            assert error_of(answer) == (404, "RESOURCE_NOT_FOUND"), (route, shape)
        assert await rows(connection) == before, route


async def test_lists_show_what_is_ones_own(api: Api, connection: Connection) -> None:
    await theirs(api, connection)
    for path in ("/v1/links", "/v1/invitations", "/v1/oauth/grants", "/v1/domains", "/v1/imports", "/v1/conversions"):
        assert (await api.other.api.get(path)).json()["data"] == []
    for path, count in (("/v1/api-keys", 1), ("/v1/members", 1)):
        assert len((await api.other.api.get(path)).json()["data"]) == count
    assert all(
        row["attributes"]["actorName"] == "other@example.com"
        for row in (await api.other.api.get("/v1/audit-log")).json()["data"]
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/", 404, "RESOURCE_NOT_FOUND"),
        ("PATCH", "/v1/links", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/links/0123456789abcdef", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_unknown_routes_and_methods(api: Api, method: str, path: str, status: int, code: str) -> None:
    answer = await api.one.api.request(method, path)
    assert error_of(answer) == (status, code)
    assert answer.json()["meta"]["requestId"] == answer.headers["x-request-id"]


async def test_both_prefixes_answer_alike(api: Api) -> None:
    client = await session_of(api, "one@example.com")
    for route in [route for route in CLOSED if route.method == "GET"]:
        one, other = [await client.get(prefix + unknown(route)) for prefix in ("", "/api")]
        assert one.status_code == other.status_code, route
        if one.headers["content-type"] == "application/json":
            assert one.json().get("data") == other.json().get("data"), route
        else:
            assert one.content == other.content, route


async def test_request_ids_are_echoed_when_sensible(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "admin"):
        mine = await api.one.api.get("/v1/links?title=private", headers={"X-Request-ID": "3f2c-mine"})
    assert mine.headers["x-request-id"] == mine.json()["meta"]["requestId"] == "3f2c-mine"
    assert re.search(r"3f2c-mine GET /v1/links 200 ", caplog.text)
    assert "private" not in caplog.text
    for wrong in ("<script>", "a b", "a" * 129, ""):
        made_up = await api.one.api.get("/v1/links", headers={"X-Request-ID": wrong})
        assert re.fullmatch(r"req_[0-9a-f]{24}", made_up.headers["x-request-id"])


async def test_an_unexpected_fault_tells_nothing(api: Api, connection: Connection) -> None:
    await connection.execute("alter table links rename to links_away")
    answer = await api.one.api.get("/v1/links")
    assert error_of(answer) == (500, "INTERNAL_ERROR")
    assert "links_away" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-request-id"] == answer.json()["meta"]["requestId"]


async def test_but_it_has_the_headers_of_any_answer_and_the_log_has_all(
    servers: Servers, api: Api, database_url: str, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    origin = "https://app.example"
    async with running(settings_of(servers, database_url, LINKWIRE_CORS_ORIGINS=origin)) as app:
        client = client_of(app, **api.one.api.headers, **{"Origin": origin, "X-Request-ID": "3f2c-mine"})
        usual = await client.get("/v1/links")
        await connection.execute("alter table links rename to links_away")
        with caplog.at_level("INFO", "admin"):
            answer = await client.get("/v1/links")
    assert answer.status_code == 500
    assert set(answer.headers) == set(usual.headers)
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["x-request-id"] == "3f2c-mine"
    assert int(answer.headers["x-ratelimit-remaining"]) == int(usual.headers["x-ratelimit-remaining"]) - 1
    assert re.search(r"3f2c-mine GET /v1/links 500 ", caplog.text)
    [fault] = [record for record in caplog.records if record.exc_info]
    assert "3f2c-mine GET /v1/links" in fault.getMessage()
    assert 'relation "links" does not exist' in caplog.text


class Broken(Response):
    """An answer that begins and does not end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise LookupError("in the middle of it")


async def test_a_fault_in_the_middle_of_an_answer_is_left_to_the_server(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: Request) -> Response:
        return Broken()

    api.app.add_route("/v1/broken", broken)
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=api.app), base_url="http://api")
    with pytest.raises(LookupError):
        await client.get("/v1/broken", headers={"X-Request-ID": "3f2c-mine"})
    [fault] = [record for record in caplog.records if record.exc_info]
    assert "3f2c-mine GET /v1/broken" in fault.getMessage()


async def test_no_path_begins_a_line_of_the_log(
    servers: Servers, api: Api, database_url: str, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    path = "/v1/links/a%0Aforged%1B%C2%85"
    with caplog.at_level("INFO", "admin"):
        assert (await api.one.api.get(path)).status_code == 404
        async with running(settings_of(servers, database_url, DATABASE_URL=f"postgresql:{NOBODY}/x")) as app:
            assert (await client_of(app, **api.one.api.headers).get(path)).status_code == 503
        api.app.add_route("/v1/links/{nothing}/broken", lambda _: Broken())
        await api.nobody.get(f"{path}/broken")
    lines = [record.getMessage() for record in caplog.records if "forged" in record.getMessage()]
    assert {record.name for record in caplog.records} >= {"admin.http.answers", "admin.http.request_ids"}
    assert len(lines) == 5  # two say why
    assert all(line.isprintable() and line.isascii() for line in lines), lines


async def test_the_address_of_a_client_is_what_the_last_proxy_says(api: Api, connection: Connection) -> None:
    """Also where it says so in a line of its own, as HAProxy does, behind what the client has made up."""
    said = [("X-Forwarded-For", "198.51.100.7"), ("X-Forwarded-For", "203.0.113.9")]
    answer = await api.one.api.post("/v1/links", json={"destination": "https://example.com/"}, headers=said)
    assert answer.status_code == 201
    assert await connection.fetchval("select address from audit_log where action = 'link.created'") == "203.0.113.9"


async def test_no_answer_of_the_api_is_kept_on_its_way(api: Api) -> None:
    async def public(_: Request) -> Response:
        return PlainTextResponse("anybody may see this", headers={"Cache-Control": "max-age=300"})

    for route in ROUTES:
        for prefix in ("", "/api"):
            answer = await api.one.api.request(route.method, prefix + unknown(route))
            assert answer.headers["cache-control"] == "no-store", route
    assert (await api.one.api.get("/v1/nothing")).headers["cache-control"] == "no-store"
    api.app.add_route("/v1/public", public)
    assert (await api.nobody.get("/v1/public")).headers["cache-control"] == "max-age=300"
    assert (await api.nobody.get("/.well-known/jwks.json")).headers["cache-control"] == "max-age=300"


async def test_every_known_caller_is_told_what_is_left(api: Api) -> None:
    for number, route in enumerate(CLOSED, start=1):
        answer = await api.one.api.request(route.method, unknown(route))
        told = [int(answer.headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset")]
        assert told[:2] == [100_000, 100_000 - number], route


@pytest.mark.parametrize(("tier", "per_minute"), [("free", 60), ("starter", 300), ("pro", 1000)])
async def test_tiers(api: Api, connection: Connection, tier: str, per_minute: int) -> None:
    organization, _owner = await founded(connection, tier, tier)
    client = client_of(api.app, await key_of(connection, organization))
    answer = await client.get("/v1/links")
    assert answer.headers["x-ratelimit-limit"] == str(per_minute)
    assert answer.headers["x-ratelimit-remaining"] == str(per_minute - 1)


async def test_the_sixty_first_request_of_a_free_organization(api: Api, connection: Connection) -> None:
    organization, _owner = await founded(connection, "free", "free")
    two_keys = [client_of(api.app, await key_of(connection, organization)) for _ in range(2)]
    answers = [await two_keys[number % 2].get("/v1/organization") for number in range(61)]
    assert [answer.status_code for answer in answers] == [200] * 60 + [429]
    refused = answers[-1]
    assert error_of(refused) == (429, "RATE_LIMIT_EXCEEDED")
    assert refused.json()["error"]["retryAfter"] == int(refused.headers["retry-after"])
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert refused.json()["meta"]["requestId"] == refused.headers["x-request-id"]
    assert (await api.one.api.get("/v1/organization")).status_code == 200


async def test_the_limit_of_the_enterprise_tier_is_a_setting(servers: Servers, api: Api, database_url: str) -> None:
    async with running(settings_of(servers, database_url, LINKWIRE_ENTERPRISE_PER_MINUTE="2")) as app:
        client = client_of(app, **api.one.api.headers)
        assert [(await client.get("/v1/links")).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    ("allowed", "origin"), [(None, "https://app.example"), ("https://app.example", "https://evil.example")]
)
async def test_pages_of_other_origins_get_nothing(
    servers: Servers, api: Api, database_url: str, allowed: str | None, origin: str
) -> None:
    more = {"LINKWIRE_CORS_ORIGINS": allowed} if allowed else {}
    async with running(settings_of(servers, database_url, **more)) as app:
        answer = await client_of(app, **api.one.api.headers).get("/v1/links", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers


async def test_pages_of_named_origins_may_call(servers: Servers, api: Api, database_url: str) -> None:
    origin = "https://app.example"
    async with running(settings_of(servers, database_url, LINKWIRE_CORS_ORIGINS=origin)) as app:
        client = client_of(app, **api.one.api.headers)
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "Idempotency-Key",
        }
        assert (await client.options("/v1/links", headers=asked)).status_code == 200
        answer = await client.get("/v1/links", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        assert "X-RateLimit-Remaining" in answer.headers["access-control-expose-headers"]


async def test_the_docs_work_without_the_internet(api: Api) -> None:
    page = await api.nobody.get("/docs")
    assert page.status_code == 200
    resources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert resources
    for resource in resources:
        assert resource.startswith("/"), resource
        assert (await api.nobody.get(resource)).status_code == 200


async def test_answers_agree_with_the_openapi_document(api: Api) -> None:
    assert (await api.nobody.get("/openapi.json")).json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1")
    link = DOCUMENT["components"]["schemas"]["LinkResource"]
    assert set(link["properties"]) == DOCUMENTED
    assert set(await made(api.one.api)) == DOCUMENTED


def test_every_post_but_those_of_sessions_takes_an_idempotency_key() -> None:
    for route in ROUTES:
        if route.method == "POST" and not route.path.startswith(("/v1/auth/", "/v1/oauth/")):
            operation = DOCUMENT["paths"][route.path]["post"]
            assert "422" in operation["responses"] and "409" in operation["responses"], route.path
            assert "Idempotency-Key" in [one["name"] for one in operation["parameters"]], route.path


MAY = {
    "owner": {"GET /v1/links", "POST /v1/links", "GET /v1/api-keys", "GET /v1/organization"},
    "admin": {"GET /v1/links", "POST /v1/links", "GET /v1/api-keys", "GET /v1/organization"},
    "member": {"GET /v1/links", "POST /v1/links", "GET /v1/organization"},
    "viewer": {"GET /v1/links", "GET /v1/organization"},
}


@pytest.mark.parametrize(("role", "may"), MAY.items(), ids=MAY.keys())
async def test_roles(api: Api, connection: Connection, role: str, may: set[str]) -> None:
    await member_of(connection, api.one.organization, "person@example.com", role)
    client = await session_of(api, "person@example.com")
    for each in sorted(MAY["owner"]):
        method, path = each.split()
        answer = await client.request(method, path, json={"destination": "https://example.com/"})
        assert (answer.status_code != 403) == (each in may), each


async def test_it_is_ready_when_postgres_is(api: Api) -> None:
    answer = await api.nobody.get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_it_is_not_ready_without_postgres(servers: Servers, database_url: str) -> None:
    async with running(settings_of(servers, database_url, DATABASE_URL=f"postgresql:{NOBODY}/x")) as app:
        answer = await client_of(app).get("/readyz")
        assert (answer.status_code, answer.text) == (503, "Postgres is away\n")
        assert "retry-after" in answer.headers
        assert (await client_of(app).get("/healthz")).status_code == 200


async def test_it_is_not_ready_on_an_old_database(api: Api, connection: Connection) -> None:
    await connection.execute("delete from migrations where name in ('0002_click_sources.sql', '0004_oauth.sql')")
    answer = await api.nobody.get("/readyz")
    assert answer.status_code == 503
    assert answer.text == "Postgres lacks 0002_click_sources.sql, 0004_oauth.sql; run `linkwire migrate`\n"
    await connection.execute("drop table migrations")
    answer = await api.nobody.get("/readyz")
    assert answer.status_code == 503
    assert "0001_start.sql" in answer.text and "run `linkwire migrate`" in answer.text


async def test_it_is_ready_without_redis_and_says_so(servers: Servers, database_url: str) -> None:
    async with running(settings_of(servers, database_url, REDIS_URL=f"redis:{NOBODY}")) as app:
        answer = await client_of(app).get("/readyz")
    assert answer.status_code == 200
    assert answer.text.startswith("ok\nRedis is away")
