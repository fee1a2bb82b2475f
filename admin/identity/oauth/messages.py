"""What OAuth endpoints read and answer: forms, and errors in the words of RFC 6749 §5.2 instead of our own."""

import base64
import binascii
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_plus, urlencode

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from admin.errors import ApiError, Invalid, RateLimited, Unavailable
from admin.http.bodies import body_bytes
from admin.http.request_ids import asked_of, request_id
from admin.identity.permissions import PERMISSIONS, lacking

log = logging.getLogger(__name__)

NOT_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}
"""Headers of answers with tokens (RFC 6749 §5.1)."""


class OAuthError(Exception):
    """`code` is one of the RFC's; the description is for developers."""

    def __init__(self, code: str, description: str, *, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.status = status


class OAuthErrorBody(BaseModel):
    """The body of an error (RFC 6749 §5.2)."""

    error: str
    error_description: str


class Credentials(NamedTuple):
    """What a client says it is; without a secret it only names itself."""

    client_id: str
    secret: str | None
    is_basic: bool


async def oauth_error(_: Request, error: Exception) -> Response:
    """As the RFC wants it; the names of its fields are not camelCase."""
    assert isinstance(error, OAuthError)
    headers = {**NOT_KEPT, **({"WWW-Authenticate": 'Basic realm="oauth"'} if error.status == 401 else {})}
    return JSONResponse({"error": error.code, "error_description": str(error)}, error.status, headers)


def in_words_of_oauth(error: ApiError) -> Response:
    """An error of the API at an endpoint whose clients know only the RFC's. They have no word for a limit."""
    is_for_now = isinstance(error, RateLimited | Unavailable)
    code = "temporarily_unavailable" if is_for_now else "invalid_request"
    body = {"error": code, "error_description": str(error)}
    return JSONResponse(body, error.status, {**NOT_KEPT, **error.headers})


def answering(with_: Callable[[ApiError], Response]) -> type[APIRoute]:
    """Routes whose errors are answered in other words than those of the API."""

    class Route(APIRoute):
        """A route of this kind."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """As the framework does, with another answer for errors."""
            handle = super().get_route_handler()

            async def handle_or_tell(request: Request) -> Response:
                try:
                    return await handle(request)
                except ApiError as error:
                    if error.status >= 500:
                        log.warning("%s %s: %r", request_id(request), asked_of(request.scope), error)
                    return with_(error)

            return handle_or_tell

    return Route


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form; empty ones count as not sent (RFC 6749 §3.2). Raises `OAuthError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "Send application/x-www-form-urlencoded.")
    try:
        content = (await body_bytes(request)).decode("utf-8")
        pairs = parse_qsl(content, keep_blank_values=True, errors="strict", max_num_fields=100)
    except (ValueError, Invalid) as error:
        raise OAuthError("invalid_request", "It is not a form in UTF-8.") from error
    return once_each(pairs)


def once_each(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name. Raises `OAuthError` for one that is given twice (RFC 6749 §3.1), or has a NUL."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise OAuthError("invalid_request", "A parameter is given twice.")
    if any("\0" in text for pair in pairs for text in pair):
        raise OAuthError("invalid_request", "A parameter contains NUL.")
    return {name: text for name, text in fields.items() if text}


def credentials_of(request: Request, form: Mapping[str, str]) -> Credentials:
    """Who the client says it is: in the header or in the form, not in both (RFC 6749 §2.3). Raises `OAuthError`."""
    scheme, _space, sent = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        if "client_id" not in form:
            raise OAuthError("invalid_client", "Say which client this is.", status=401)
        return Credentials(form["client_id"], form.get("client_secret"), is_basic=False)
    if "client_secret" in form:
        raise OAuthError("invalid_request", "Send the client's secret once, in the header or in the form.")
    try:
        name, _colon, secret = base64.b64decode(sent.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError) as error:
        raise OAuthError("invalid_client", "The Authorization header can't be read.", status=401) from error
    if form.get("client_id", name) != unquote_plus(name):
        raise OAuthError("invalid_request", "The header and the form name different clients.")
    return Credentials(unquote_plus(name), unquote_plus(secret), is_basic=True)


def with_parameters(uri: str, **parameters: str | None) -> str:
    """A redirect URI with these parameters behind its own."""
    added = urlencode({name: value for name, value in parameters.items() if value is not None})
    return f"{uri}{'&' if '?' in uri else '?'}{added}"


def scopes_of(text: str, permitted: list[str]) -> list[str]:
    """The scopes that a `scope` parameter names, each once, in order; all that is permitted when it names none.

    Raises `OAuthError` for one that there is not, or that is not permitted.
    """
    wanted = sorted(set(text.split()))
    if not set(wanted) <= set(PERMISSIONS):
        raise OAuthError("invalid_scope", "There is no such scope.")
    if lacking(frozenset(permitted), wanted):
        raise OAuthError("invalid_scope", "More is asked for than is permitted.")
    return wanted or permitted


def documented_form(required: list[str], **fields: dict[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of an endpoint that reads a form; parameters it does not know are ignored."""
    schema = {
        "type": "object",
        "required": required,
        "properties": {name: {"type": "string", **schema} for name, schema in fields.items()},
    }
    return {"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}}
