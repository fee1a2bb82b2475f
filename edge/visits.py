"""Visits: what is the same of every visit that leads anywhere, its record and its answer."""

from starlette.requests import Request
from starlette.responses import Response

from edge.pages import NO_STORE
from edge.segments import peer_bytes
from edge.spool import Spool
from shared.entries import Entry


def append(spool: Spool, request: Request, link: bytes) -> bool:
    """Record a visit of a link (`segments.link_bytes`); whether there was room."""
    peer = request.client.host if request.client else ""
    return spool.append(link, peer_bytes(peer), _head(request))


def redirection(entry: Entry, destination: str | None = None) -> Response:
    """The answer that leads to the destination of a link, or to another one.

    It is sent as it is stored; RedirectResponse would quote it again.
    """
    headers = {"location": destination or entry.destination}
    if entry.cache_s and entry.is_plain:
        headers["cache-control"] = f"private, max-age={entry.cache_s}"
    elif not entry.is_plain or entry.status not in (301, 308):  # those are for browsers to remember (RFC 9110 §15.4)
        headers["cache-control"] = NO_STORE
    if entry.robots:
        headers["x-robots-tag"] = entry.robots
    return Response(status_code=entry.status, headers=headers)


def _head(request: Request) -> bytes:
    """The head of the request as it came, but for the case of names and the white space around values."""
    scope = request.scope
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    lines = [b"%s %s HTTP/%s" % (request.method.encode(), target, scope["http_version"].encode())]
    lines += [name + b": " + value for name, value in scope["headers"]]
    return b"\r\n".join([*lines, b"", b""])
