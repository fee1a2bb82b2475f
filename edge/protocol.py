"""The protocol: a hot link is answered here, from prepared bytes, before Starlette is entered.

A request takes this way when nothing is in flight on its connection, it came in one read, it is a GET of HTTP/1.1
without a body that keeps the connection, and its link is remembered. All others take the way of redirect.py. Nobody can
tell the two apart: tests/edge/test_two_ways.py gives the same bytes to both.

In here each line costs every visitor; the reasons and figures are in docs/decisions/0006-the-fast-way.md.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from edge.connection import MAX_HEAD, MAX_TARGET, Connection, Connections
from edge.lookup import Lookup
from edge.memory import Found
from edge.segments import link_bytes, peer_bytes
from edge.spool import Spool
from edge.visits import redirection
from shared.entries import STATUSES
from shared.links import normal_hostname

_HOSTS = 1000
_LONGEST_SPELLING = 300
_VERSION = b" HTTP/1.1\r\n"


class FastWay:
    """What the connections of a worker share to answer at once."""

    def __init__(self, lookup: Lookup, spool: Spool) -> None:
        self.memory = lookup.memory
        self.spool = spool
        self.is_ordinary = _Judge().is_ordinary
        self._hosts: dict[bytes, bytes] = {}
        self._headers: object = None
        self._begins: dict[int, bytes] = {}

    def find(self, data: bytes) -> Found | None:
        """The link that these bytes ask for, if it is remembered and they are an ordinary request for it."""
        version_at = data.find(_VERSION, 4, MAX_TARGET + 4)
        if version_at < 0 or len(data) > MAX_HEAD:
            return None
        lowered = data.lower()
        host_at = lowered.find(b"\r\nhost:", version_at) + 7
        host_end = lowered.find(b"\r\n", host_at)
        if host_at < 7 or lowered.find(b"\r\nhost:", host_end) >= 0:
            return None
        spelling = lowered[host_at:host_end]
        host = self._hosts.get(spelling) or self._learn_host(spelling)
        query_at = data.find(b"?", 4, version_at)
        # What is remembered is in normal form. A path in another spelling is not found here, but on the other way.
        found = self.memory.young.get(host + data[4 : version_at if query_at < 0 else query_at])
        return found if found is not None and found.is_plain and self.is_ordinary(data) else None

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The begin of every answer, with uvicorn's own headers, which are new each second."""
        if headers is not self._headers:
            self._headers = headers
            lines = b"".join(b"%s: %s\r\n" % header for header in headers)
            self._begins = {status: STATUS_LINE[status] + lines for status in STATUSES}
        return self._begins[status]

    def prepare(self, found: Found) -> tuple[bytes, int, bytes]:
        """What a link is recorded as, and the status and the end of its answer."""
        entry = found.published.entry
        assert entry is not None
        lines = [b"%s: %s\r\n" % header for header in redirection(entry).raw_headers]
        link = link_bytes(entry.link_id, entry.organization_id)
        found.hot = link, entry.status, b"".join([*lines, b"\r\n"])
        return found.hot

    def _learn_host(self, spelling: bytes) -> bytes:
        """The normal form of a Host; nothing for one that has none, which no link is remembered by."""
        try:
            host = normal_hostname(spelling.strip(b" \t").decode("ascii")).encode()
        except ValueError:
            return b""
        if len(spelling) <= _LONGEST_SPELLING:
            if len(self._hosts) >= _HOSTS:
                self._hosts.clear()
            self._hosts[spelling] = host
        return host


class _Judge:
    """Says whether bytes are one request without a body that keeps the connection, as uvicorn's parser sees it."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._begun = self._complete = 0
        self._keeps = self._has_body = False

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._begun += 1

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._keeps = self._parser.should_keep_alive()

    def on_body(self, _: bytes) -> None:
        """Called by the parser."""
        self._has_body = True

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._complete += 1

    def is_ordinary(self, data: bytes) -> bool:
        """Whether they are."""
        self._begun = self._complete = 0
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._keeps = False
        if self._keeps and self._begun == self._complete == 1 and not self._has_body:
            return True
        self._renew()
        return False


class Protocol(Connection):
    """A connection on which hot links are answered at once."""

    def __init__(self, connections: Connections, fast_way: FastWay, **uvicorn: Any) -> None:
        super().__init__(connections, **uvicorn)
        self._fast_way = fast_way
        self._peer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Know how its records say where it comes from."""
        super().connection_made(transport)
        self._peer = peer_bytes(self._peer_address)

    def data_received(self, data: bytes) -> None:
        """Answer a hot link; leave everything else to uvicorn and redirect.py."""
        fast_way = self._fast_way
        is_open = self.is_quiet and not self.flow.write_paused
        found = fast_way.find(data) if is_open and data.startswith(b"GET /") and data.endswith(b"\r\n\r\n") else None
        if found is None:
            super().data_received(data)
            return
        link, status, end = found.hot or fast_way.prepare(found)
        fast_way.spool.append(link, self._peer, data)
        self.transport.write(fast_way.begin(status, self.server_state.default_headers) + end)
        self._since = self.all.now
        self.all.tally.hot += 1
