"""Machines of others, on loopback: a name server and a web server that say what they are told to say."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from fastapi import FastAPI

from admin.fetch import Fetcher, resolver
from admin.links.verification import Verifier
from shared.addresses import networks
from shared.tasks import end

LOOPBACK = networks("127.0.0.0/8")


class Names(asyncio.DatagramProtocol):
    """A name server. It refuses what no resolver should send."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.is_silent = False
        self.closed = asyncio.Event()
        self._answers: dict[tuple[str, str], list[list[str]]] = {}
        self._transport: Any

    def has(self, name: str, kind: str, *records: str, then: list[str] | None = None) -> None:
        """What is at a name; `then` is what is there when it is asked for the second time."""
        self._answers[name, kind] = [list(records), *([then] if then else [])]

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._transport.get_extra_info("sockname")
        return str(host), int(port)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        [question] = query.question
        assert query.opcode() == dns.opcode.QUERY and query.flags & dns.flags.RD
        assert question.rdclass == dns.rdataclass.IN
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if self.is_silent:
            return
        answer = dns.message.make_response(query, recursion_available=True)
        if not any(known == name for known, _ in self._answers):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        records = self._answers.get((name, kind), [[]])
        if texts := records.pop(0) if len(records) > 1 else records[0]:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *texts))
        self._transport.sendto(answer.to_wire(), sender)


@contextlib.asynccontextmanager
async def name_server() -> AsyncIterator[Names]:
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(Names, ("127.0.0.1", 0))
    try:
        yield names
    finally:
        transport.close()
        await names.closed.wait()


class Request(NamedTuple):
    """What a web server was asked."""

    target: str
    headers: dict[str, str]
    method: str = "GET"


Page = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def page(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Pages:
    """A web server: what is at each target, or only there for a method (`HEAD /a`); 404 for everything else."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[Request] = []
        self.port = 0
        self.answering: set[asyncio.Task[None]] = set()

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answering.add(asyncio.create_task(self._answer(reader, writer)))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            method, target, _version = first.split(" ")
            self.asked.append(Request(target, dict(line.lower().split(": ", 1) for line in lines), method))
            said = self.pages.get(f"{method} {target}", self.pages.get(target, page(b"not found", 404)))
            if callable(said):
                await said(writer)
            else:
                writer.write(said)
            await writer.drain()


@contextlib.asynccontextmanager
async def web_server(
    address: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Pages]:
    pages = Pages()
    server = await asyncio.start_server(pages.begin, address, port, ssl=tls)
    pages.port = server.sockets[0].getsockname()[1]
    try:
        yield pages
    finally:
        server.close()
        await end(*pages.answering)


class Hosts(NamedTuple):
    """Hosts of others: what their names mean, and what they answer."""

    names: Names
    pages: Pages

    def verifier(self) -> Verifier:
        """One that looks here."""
        names = resolver(self.names.address)
        return Verifier(names, Fetcher(names, LOOPBACK), file_port=self.pages.port)


@contextlib.asynccontextmanager
async def hosts() -> AsyncIterator[Hosts]:
    async with name_server() as names, web_server() as pages:
        yield Hosts(names, pages)


@contextlib.asynccontextmanager
async def world_of(app: FastAPI, hostname: str) -> AsyncIterator[Hosts]:
    """The hosts that an API sees; this one leads to the web server."""
    async with hosts() as found:
        found.names.has(hostname, "A", "127.0.0.1")
        app.state.verifier = found.verifier()
        yield found
