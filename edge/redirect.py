"""The redirect: one request, from its address to its answer, with the click recorded on the way."""

import time

from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge import pages
from edge.lookup import Lookup, Unavailable
from edge.spool import Spool
from shared.clicks import MAX_REFERRER, MAX_USER_AGENT, Click
from shared.links import Entry, address
from shared.visitor import Networks, client_address

_REQUESTS = Counter("linkwire_requests", "Requests for short links, by outcome.", ["outcome"])
REDIRECTED = _REQUESTS.labels("redirected")
NOT_FOUND = _REQUESTS.labels("not_found")
UNAVAILABLE = _REQUESTS.labels("unavailable")
REFUSED = _REQUESTS.labels("refused")


class Redirect:
    """Answers a visitor. Waits for nothing but, for an address that memory does not hold, one lookup in Redis."""

    def __init__(self, lookup: Lookup, spool: Spool, trusted_proxies: Networks) -> None:
        self._lookup = lookup
        self._spool = spool
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application, which gets every method."""
        answer = await self.answer(Request(scope))
        await answer(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """The whole story of a visit."""
        if request.method not in ("GET", "HEAD"):
            REFUSED.inc()
            return pages.method_not_allowed()
        try:
            [host] = request.headers.getlist("host")  # none and several are a bad request (RFC 9112 §3.2)
            wanted = address(host, request.scope["raw_path"])
        except ValueError:
            REFUSED.inc()
            return pages.bad_request()
        try:
            entry = await self._lookup.find(wanted)
        except Unavailable:
            UNAVAILABLE.inc()
            return pages.unavailable()
        if entry is None:
            NOT_FOUND.inc()
            return pages.not_found()
        self._spool.append(self._click(request, entry).to_bytes())
        REDIRECTED.inc()
        # The destination is sent as it is stored; RedirectResponse would quote it once more.
        return Response(status_code=302, headers={"location": entry.destination, "cache-control": pages.NO_STORE})

    def _click(self, request: Request, entry: Entry) -> Click:
        headers = request.headers
        forwarded_for = ",".join(headers.getlist("x-forwarded-for"))
        return Click(
            at_ms=time.time_ns() // 1_000_000,
            link_id=entry.link_id,
            organization_id=entry.organization_id,
            method=request.method,
            address=client_address(request.client.host if request.client else "", forwarded_for, self._trusted_proxies),
            user_agent=_text(headers.get("user-agent", ""), MAX_USER_AGENT),
            referrer=_text(headers.get("referer", ""), MAX_REFERRER),
        )


def _text(header: str, length: int) -> str:
    """A header's bytes as text: Starlette gives them as Latin-1, people send UTF-8, anything else is replaced."""
    return header.encode("latin-1").decode("utf-8", "replace")[:length]
