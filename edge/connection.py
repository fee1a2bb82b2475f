"""Connections: what keeps a worker answering when clients are slow, many, wrong or about to be left.

uvicorn's HTTP protocol, with what it lacks:

1. Deadlines. A request must be complete within `MESSAGE_S` of its first byte, the next one must begin within `IDLE_S`,
   an answer must be taken within `ANSWER_S`. One look at all connections each half second, instead of timers for each.
2. Limits: bytes of a head and of a target (RFC 6585, RFC 9110 §15.5.15), requests that wait on a connection, and
   connections of a worker and of a client.
3. What is wrong is answered with its status, behind the answers that are still owed, and the connection closed so that
   the client can read it. Nothing is logged for it, because anybody could fill the disk so.
4. A client that has closed its half still gets its answers. A worker that stops answers what it is asked meanwhile with
   `Connection: close`, and closes what stays quiet.
5. A target in absolute form counts, not the Host beside it (RFC 9112 §3.2.2).
"""

import asyncio
from collections import Counter
from typing import Any

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from edge import pages
from edge.tally import Tally
from shared.addresses import Networks, client_network, is_in

MAX_HEAD = 32 * 1024
MAX_TARGET = 16 * 1024
MAX_PIPELINED = 100
MESSAGE_S = 10.0
IDLE_S = 20.0
ANSWER_S = 20.0
LINGER_S = 2.0
DRAIN_QUIET_S = 0.5
DRAIN_LONGEST_S = 2.0
SWEEP_EVERY_S = 0.5


class Connections:
    """All connections of a worker."""

    def __init__(self, tally: Tally, *, limit: int, limit_per_client: int, trusted_proxies: Networks) -> None:
        self.tally = tally
        self.now = 0.0
        """Seconds of the event loop's clock, as of the last look."""
        self.is_draining = False
        self._limit = limit
        self._limit_per_client = limit_per_client
        self._trusted_proxies = trusted_proxies
        self._all: set[Connection] = set()
        self._of_client: Counter[str] = Counter()

    def admit(self, connection: "Connection", address: str) -> bool:
        """Whether there is room for one more connection, also of this client."""
        client = client_network(address)
        if len(self._all) >= self._limit or (
            self._of_client[client] >= self._limit_per_client and not is_in(address, self._trusted_proxies)
        ):
            return False
        self._all.add(connection)
        self._of_client[client] += 1
        return True

    def forget(self, connection: "Connection", address: str) -> None:
        """One is gone."""
        if connection in self._all:
            self._all.remove(connection)
            client = client_network(address)
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]

    def look(self) -> None:
        """End what has waited too long."""
        self.now = asyncio.get_running_loop().time()
        for connection in list(self._all):
            connection.check(self.now)

    def end(self) -> None:
        """End all, whatever they wait for."""
        for connection in list(self._all):
            connection.transport.abort()

    async def watch(self) -> None:
        """Look, for ever."""
        while True:
            self.look()
            await asyncio.sleep(SWEEP_EVERY_S)


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(self, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self.all = connections
        self.is_quiet = False
        """Nothing is owed, nothing has begun: the next byte begins a request."""
        self._since = connections.now
        """Since when it has been quiet, or an answer has been owed."""
        self._began_at = 0.0
        self._is_in_message = self._is_in_head = False
        self._messages = 0
        self._head_bytes = self._open_head_bytes = 0
        """Of the headers that were read, and of what was received of a head that is not complete."""
        self._refusal: Response | None = None
        """What is still to be said about what came behind the requests that are being answered."""
        self._is_refused = False
        self._is_last = False
        """The connection is closed behind the answers that are owed."""
        self._peer_address = ""

    # What uvicorn and the event loop call.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or say that there are too many."""
        super().connection_made(transport)
        self._peer_address = self.client[0] if self.client else ""
        self._since = self.all.now
        if self.all.admit(self, self._peer_address):
            self._settle()
        else:
            self.refuse(pages.too_many_connections())
            self.transport.close()  # there is no room to linger either

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.all.forget(self, self._peer_address)
        self.is_quiet = False
        super().connection_lost(exc)
        # They would keep each other and this connection alive.
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Read with all care, whatever comes."""
        if self._is_refused:
            return  # until it is closed
        self.is_quiet = False
        messages, was_in_head = self._messages, self._is_in_head
        super().data_received(data)
        if self._is_in_head and not self._is_refused:
            is_the_same = was_in_head and messages == self._messages
            self._open_head_bytes = self._open_head_bytes + len(data) if is_the_same else 0
            if self._open_head_bytes > MAX_HEAD:
                self.refuse(pages.head_too_large())
        self._settle()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client has said all it wants: it gets what it is owed."""
        self._is_last = True
        return self._is_answering

    def shutdown(self) -> None:
        """The worker stops. What is owed is answered; a quiet connection may be in use before the news arrives."""
        self.all.is_draining = True
        self.is_quiet = False
        self._since = self.all.now = self.loop.time()
        if self._is_answering:
            self.cycle.keep_alive = False

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_message = self._is_in_head = True
        self._began_at = self.all.now
        self._head_bytes = 0
        self._messages += 1
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(pages.bad_request())

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        super().on_url(url)
        if len(self.url) > MAX_TARGET:
            self._stop(pages.target_too_long())

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD:
            self._stop(pages.head_too_large())

    def on_headers_complete(self) -> None:
        """The head is complete; the answer begins."""
        if not self.url.startswith(b"/"):
            self._take_absolute_target()
        super().on_headers_complete()
        self._is_in_head = False
        self._since = self.all.now
        if self.all.is_draining or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is complete."""
        super().on_message_complete()
        self._is_in_message = False

    def on_response_complete(self) -> None:
        """An answer is complete; the next one begins, or it is quiet."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # `check` does it
        self._since = self.all.now
        if self.pipeline:
            self.flow.pause_reading()  # uvicorn would take in more with each answer than it gives
        if self._is_answering or self.transport.is_closing():
            return
        if self._refusal is not None:
            self._say(self._refusal)
        elif self._is_last:
            self.transport.close()
        self._settle()

    def send_400_response(self, msg: str) -> None:
        """The parser can't go on."""
        self.refuse(self._refusal or pages.bad_request())

    def _unsupported_upgrade_warning(self) -> None:
        """Said by nobody: the request is answered as if it had not asked."""

    # What is ours.

    @property
    def _is_answering(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _settle(self) -> None:
        self.is_quiet = not (
            self._is_in_message or self._is_answering or self._is_refused or self._is_last or self.all.is_draining
        )

    def _stop(self, refusal: Response) -> None:
        """Make the parser give up, from within; it then calls `send_400_response`."""
        self._refusal = refusal
        raise ValueError(refusal.status_code)

    def refuse(self, refusal: Response) -> None:
        """Answer that something is wrong, when all that came before it is answered, and read no more."""
        self.all.tally.refused += 1
        self._is_refused = True
        self.is_quiet = False
        self._refusal = refusal
        if self._is_in_message and not self._is_in_head:
            # What is wrong is the body of a request that is answered by its head: a second answer would be to another.
            self._refusal = None
            self._is_last = True
            if not self._is_answering:
                self._since = self.all.now
                self.transport.write_eof()
        elif not self._is_answering:
            self._say(refusal)

    def _say(self, refusal: Response) -> None:
        self._refusal = None
        self._since = self.all.now
        if self.transport.is_closing():
            return
        headers = [*self.server_state.default_headers, *refusal.raw_headers]
        lines = [b"%s: %s\r\n" % header for header in headers]
        body = bytes(refusal.body)
        self.transport.write(b"".join([STATUS_LINE[refusal.status_code], *lines, b"\r\n", body]))
        # Closing at once would reset the connection while the client still sends, and take the answer away.
        self.transport.write_eof()

    def _take_absolute_target(self) -> None:
        """Make of `GET http://host/path` what it means: the path, and the host instead of the one in the Host header.

        Raises ValueError for other schemes, which are not ours to answer, and other forms.
        """
        target = httptools.parse_url(self.url)
        if target.schema is None or target.schema.lower() not in (b"http", b"https") or not target.host:
            self._stop(pages.bad_request())
        authority = target.host + (b":%d" % target.port if target.port else b"")
        self.url = (target.path or b"/") + (b"?" + target.query if target.query else b"")
        self.headers[:] = [(name, authority if name == b"host" else value) for name, value in self.headers]

    def check(self, now: float) -> None:
        """End it if it has waited too long."""
        waited_s = now - self._since
        longest_s = DRAIN_LONGEST_S if self.all.is_draining else ANSWER_S
        if self._is_refused and not self._is_answering:
            if waited_s > LINGER_S:
                self.transport.abort()
        elif self.transport.get_write_buffer_size():
            if waited_s > longest_s:
                self.transport.abort()
        elif self._is_answering:
            pass  # what an answer waits for has a deadline of its own
        elif self._is_in_message:
            if now - self._began_at > min(MESSAGE_S, longest_s):
                self.refuse(pages.too_slow())
        elif waited_s > (DRAIN_QUIET_S if self.all.is_draining else IDLE_S):
            self.transport.close()
