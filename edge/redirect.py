"""The redirect: one request, from its address to its answer, with the click recorded on the way.

protocol.py is a shortcut of this story for the commonest case; what is said and recorded is the same.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge import pages, reserved
from edge.lookup import Lookup, Unavailable
from edge.orphans import Orphans
from edge.segments import link_bytes
from edge.spool import Spool
from edge.tally import Tally
from edge.visits import append, redirection
from shared.entries import Entry, HostEntry
from shared.links import PREVIEW_MARK, Address, host_of, is_reserved, path_under

if TYPE_CHECKING:
    from edge.terms import Terms


class Redirect:
    """Answers a visitor. Waits for nothing but, for what memory does not hold, a lookup of the host and the address."""

    def __init__(
        self, lookup: Lookup, spool: Spool, tally: Tally, orphans: Orphans, make_terms: Callable[[], "Terms"]
    ) -> None:
        """`make_terms` makes what answers visits of links that are not plain; called once, in a thread.

        It loads lists for half a second and 30 MB, which a worker with none but plain links goes without.
        """
        self._lookup = lookup
        self._spool = spool
        self._tally = tally
        self._orphans = orphans
        self._make_terms = make_terms
        self._terms: asyncio.Task[Terms] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application, which gets every method."""
        answer = await self.answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """The whole story of a visit."""
        if request.method not in ("GET", "HEAD", "POST"):
            return self._refused(pages.method_not_allowed())
        try:
            [host_header] = request.headers.getlist("host")  # none and several are a bad request (RFC 9112 §3.2)
            hostname = host_of(host_header.strip(" \t"))
        except ValueError:
            return self._refused(pages.bad_request())
        try:
            return await self._answer(request, hostname)
        except Unavailable:
            self._tally.unavailable += 1
            return pages.unavailable()

    async def _answer(self, request: Request, hostname: str) -> Response:
        raw_path = request.scope["raw_path"]
        try:
            host = await self._lookup.find_host(hostname)
        except Unavailable:
            host = HostEntry()  # as most are; what is remembered leads on
            entry = self._lookup.remembered(Address(hostname, path_under(host, raw_path)))
            if entry is None:
                raise
            return await self._follow(request, host, entry)
        path = path_under(host, raw_path)
        if is_reserved(path):
            return await self._reserved(request, hostname, host, path)
        entry = await self._lookup.find(Address(hostname, path))
        return await self._follow(request, host, entry) if entry else self._not_found(hostname, host, path)

    async def _follow(self, request: Request, host: HostEntry, entry: Entry) -> Response:
        if not entry.is_plain:
            self._terms = self._terms or asyncio.create_task(asyncio.to_thread(self._make_terms))
            terms = await asyncio.shield(self._terms)
            return await terms.answer(request, entry, host)
        if request.method == "POST":
            return self._refused(pages.method_not_allowed())
        append(self._spool, request, link_bytes(entry.link_id, entry.organization_id))
        self._tally.redirected += 1
        return redirection(entry)

    async def _reserved(self, request: Request, hostname: str, host: HostEntry, path: str) -> Response:
        """What no link can be: what the host is asked for beside links, and what is shown of a link."""
        if request.method == "POST":
            return self._refused(pages.method_not_allowed())
        if path.endswith(PREVIEW_MARK):
            entry = await self._lookup.find(Address(hostname, path.removesuffix(PREVIEW_MARK)))
            answer = pages.about(entry, time.time() * 1000) if entry else None
        else:
            answer = reserved.answer(host, path)
        if answer is None:
            return self._not_found(hostname, host, path)
        self._tally.asked += 1
        return answer

    def _not_found(self, hostname: str, host: HostEntry, path: str) -> Response:
        self._tally.not_found += 1
        if host.organization_id is not None:  # else nobody would look
            self._orphans.see(hostname, path)
        return pages.elsewhere(host.not_found) if host.not_found else pages.not_found()

    def _refused(self, answer: Response) -> Response:
        self._tally.refused += 1
        return answer
