"""The redirect: one request, from its address to its answer, with the click recorded on the way.

protocol.py is a shortcut of this story for the commonest case; what is said and recorded is the same.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge import pages
from edge.lookup import Lookup, Unavailable
from edge.segments import link_bytes, peer_bytes
from edge.spool import Spool
from edge.tally import Tally
from shared.entries import Entry
from shared.links import MAX_PATH_LENGTH, address


class Redirect:
    """Answers a visitor. Waits for nothing but, for an address that memory does not hold, one lookup in Redis."""

    def __init__(self, lookup: Lookup, spool: Spool, tally: Tally) -> None:
        self._lookup = lookup
        self._spool = spool
        self._tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application, which gets every method."""
        answer = await self.answer(Request(scope))
        await answer(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """The whole story of a visit."""
        if request.method not in ("GET", "HEAD"):
            self._tally.refused += 1
            return pages.method_not_allowed()
        try:
            [host] = request.headers.getlist("host")  # none and several are a bad request (RFC 9112 §3.2)
            wanted = address(host.strip(" \t"), request.scope["raw_path"])
        except ValueError:
            self._tally.refused += 1
            return pages.bad_request()
        if len(wanted.path) > MAX_PATH_LENGTH:  # no link has one, and none of them is worth remembering
            self._tally.not_found += 1
            return pages.not_found()
        try:
            entry = await self._lookup.find(wanted)
        except Unavailable:
            self._tally.unavailable += 1
            return pages.unavailable()
        if entry is None:
            self._tally.not_found += 1
            return pages.not_found()
        peer = request.client.host if request.client else ""
        self._spool.append(link_bytes(entry.link_id, entry.organization_id), peer_bytes(peer), _head(request))
        self._tally.redirected += 1
        return redirection(entry)


def redirection(entry: Entry) -> Response:
    """The answer that leads there. The destination is sent as it is stored; RedirectResponse would quote it again."""
    return Response(status_code=302, headers={"location": entry.destination, "cache-control": pages.NO_STORE})


def _head(request: Request) -> bytes:
    """The head of the request as it came, but for the case of names and the white space around values."""
    scope = request.scope
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    lines = [b"%s %s HTTP/%s" % (request.method.encode(), target, scope["http_version"].encode())]
    lines += [name + b": " + value for name, value in scope["headers"]]
    return b"\r\n".join([*lines, b"", b""])
