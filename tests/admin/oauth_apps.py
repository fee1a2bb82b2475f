"""Apps of others at the API: a real client library drives them, and people let them in."""

import re
import secrets
from typing import Any, NamedTuple

import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client

from admin.identity.oauth import grants
from admin.identity.oauth.messages import with_parameters
from tests.admin.conftest import PASSWORD, Api

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


async def token(app: App, **form: str) -> httpx2.Response:
    """The token endpoint, called by hand."""
    secret = {"client_secret": app.secret} if app.secret else {}
    return await app.api.nobody.post("/v1/oauth/token", data={"client_id": app.client_id, **secret, **form})


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
