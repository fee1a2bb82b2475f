"""What every answer says of its request: the id, and how much may still be asked. And who sent it.

Every answer has an `X-Request-ID`, the client's own when it sent a sensible one. A line in the log has it, too, beside
method, path and status; never the query, which may hold what is nobody's business. An answer of the API is kept nowhere
on its way, unless it says that it may be: tokens and keys are in answers.
"""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin.http.limits import Standing, headers
from shared.addresses import Proxies, client_network

log = logging.getLogger(__name__)

_SENSIBLE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_API = ("/v1/", "/api/v1/")


class RequestIds:
    """ASGI middleware: puts the id into the request's state, and what is to be said into the answer's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Only HTTP has ids; lifespan messages pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = time.monotonic()
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _SENSIBLE.fullmatch(sent) else f"req_{secrets.token_hex(12)}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = request_id
                if scope["path"].startswith(_API):
                    answer.setdefault("Cache-Control", "no-store")
                standing: Standing | None = state.get("standing")
                if standing is not None:
                    answer.update(headers(standing))
                taken_ms = (time.monotonic() - began_at) * 1000
                log.info("%s %s %d %.1f ms", request_id, asked_of(scope), message["status"], taken_ms)
            await send(message)

        await self._app(scope, receive, send_with_id)


def request_id(request: Request) -> str:
    """The id of this request."""
    return str(request.state.request_id)


def asked_of(scope: Scope) -> str:
    """Method and path for a line of the log. Escaped: control characters could begin another line."""
    return f"{scope['method']} {scope['path'].encode('unicode_escape').decode()}"


def client(request: Request) -> tuple[str, str]:
    """The address that a request came from, and the network that limits count by."""
    proxies: Proxies = request.app.state.proxies
    peer = request.client.host if request.client else ""
    # In several lines, too: HAProxy adds one of its own behind what the client sent.
    forwarded_for = ",".join(request.headers.getlist("x-forwarded-for"))
    address = proxies.client_of(peer, forwarded_for)
    return address, client_network(address)
