"""Apps of others at the API: a real client library drives them, and people let them in."""

import html
import re
import secrets
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client

from admin.database import Connection
from admin.identity.oauth import grants
from admin.identity.oauth.grants import Grant
from admin.identity.oauth.messages import with_parameters
from tests.admin.conftest import PASSWORD, Api, Tenant

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

    async def post(self, endpoint: str, **form: str) -> httpx2.Response:
        """An endpoint, called by hand."""
        secret = {"client_secret": self.secret} if self.secret else {}
        return await self.api.nobody.post(f"/v1/oauth/{endpoint}", data={"client_id": self.client_id, **secret, **form})

    async def refresh(self, token: str, **form: str) -> httpx2.Response:
        """The next tokens, asked for by hand."""
        return await self.post("token", grant_type="refresh_token", refresh_token=token, **form)


async def registered(api: Api, **fields: Any) -> App:
    sent = {"name": "An app", "redirectUris": [REDIRECT], "permissions": ["links:read", "links:write"], **fields}
    answer = await api.one.api.post("/v1/oauth/clients", json=sent)
    assert answer.status_code == 201, answer.text
    data = answer.json()["data"]
    return App(api, data["id"], data["attributes"]["secret"])


def hidden(page: httpx2.Response) -> dict[str, str]:
    """The fields that a form sends by itself. No page may be framed by another one."""
    assert page.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    found = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
    found += re.findall(r'<select [^>]*name="([^"]+)">\s*<option value="([^"]*)"', page.text)  # the first of them
    return {name: html.unescape(value) for name, value in found}


def link_of(page: httpx2.Response) -> str:
    """Where the one link of a page leads."""
    [link] = re.findall(r'<a href="([^"]+)"', page.text)
    return html.unescape(link)


async def asked(app: App, url: str) -> dict[str, str]:
    """The page that people see first, and the fields it would send."""
    page = await app.api.nobody.get(url)
    assert page.status_code == 200, page.text
    return hidden(page)


async def sent(app: App, form: dict[str, str], decision: str, **more: str) -> httpx2.Response:
    """The answer to a form of the page."""
    return await app.api.nobody.post("/v1/oauth/authorize", data={**form, "decision": decision, **more})


async def logged_in(app: App, url: str, email: str = OWNER) -> httpx2.Response:
    """The page on which somebody decides."""
    page = await sent(app, await asked(app, url), "log_in", email=email, password=PASSWORD)
    assert page.status_code == 200, page.text
    return page


async def allowed(app: App, url: str, email: str = OWNER, **chosen: str) -> str:
    """Where somebody who allows it is sent."""
    answer = await sent(app, hidden(await logged_in(app, url, email)), "allow", **chosen)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


class Flow(NamedTuple):
    """What one flow needs besides the app."""

    client: AsyncOAuth2Client
    verifier: str
    back: str

    @property
    def code(self) -> str:
        return parse_qs(urlsplit(self.back).query)["code"][0]

    async def tokens(self, metadata: dict[str, Any]) -> dict[str, Any]:
        return dict(
            await self.client.fetch_token(
                metadata["token_endpoint"], authorization_response=self.back, code_verifier=self.verifier
            )
        )

    async def redeemed(self, app: App, **changed: str) -> httpx2.Response:
        """The token endpoint's answer to the code, asked by hand."""
        form = {
            "grant_type": "authorization_code",
            "code": self.code,
            "redirect_uri": REDIRECT,
            "code_verifier": self.verifier,
        }
        return await app.post("token", **{**form, **changed})


async def described(api: Api) -> dict[str, Any]:
    return dict((await api.nobody.get(METADATA)).json())


async def let_in(app: App, email: str = OWNER, **more: Any) -> Flow:
    """A person lets the app in."""
    metadata, verifier = await described(app.api), secrets.token_urlsafe(48)
    client = app.client(**more)
    url, _state = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier)
    return Flow(client, verifier, await allowed(app, url.replace(metadata["issuer"], ""), email))


async def tokens_of(app: App, email: str = OWNER, **more: Any) -> dict[str, Any]:
    """What an app has when a person has let it in."""
    return await (await let_in(app, email, **more)).tokens(await described(app.api))


async def endings(connection: Connection) -> list[tuple[str, str]]:
    """Who has ended grants, and why."""
    rows = await connection.fetch(
        "select actor_name, details ->> 'reason' as reason from audit_log where action = 'grant.ended' order by 1"
    )
    return [(row["actor_name"], row["reason"]) for row in rows]


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


async def given(connection: Connection, tenant: Tenant) -> Grant:
    """What the owner of an organization has let its newest app do, without a page."""
    client_id = await connection.fetchval("select max(id) from oauth_clients")
    return await grants.give(connection, client_id, tenant.organization_id, tenant.owner.id, ["links:read"])
