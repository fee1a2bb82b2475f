"""Fetching: one GET or HEAD for an address that somebody else has given, guarded against what it may lead to.

Rules of this file:

1. Only machines are asked that are on the public internet, and those that the operator names: never this machine, its
   network, or the services that tell a cloud's machines their secrets (CWE-918).
2. A name is looked up once, and the connection goes to the address that was checked: it is of no use to let a name mean
   another machine a moment later. Every redirect is checked like the first address.
3. Time, size and redirects are bounded. Nothing is unpacked, no proxy is used, and nothing of ours is sent along.
"""

import asyncio
import functools
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple
from urllib.parse import urljoin

import can_ada
import dns.exception
import dns.resolver
import httpx2
from dns.asyncresolver import Resolver

from shared.addresses import Networks, is_in, networks

IpAddress = IPv4Address | IPv6Address

_AGENT = "Linkwire (bot)"  # by which statistics know that nobody was there
_REDIRECTS = (301, 302, 303, 307, 308)
_LOOK_UP_S = 3.0
_TIMEOUT = httpx2.Timeout(None, connect=3.0)  # what is behind that, is bounded as a whole
_TRIED_ADDRESSES = 4

# Beside what is not public: an address of Azure that answers its machines only, one block that holds a service like it
# and that older versions of Python take for public, and ways to write an IPv4 address as IPv6 (6to4).
_REFUSED = networks("168.63.129.16, 192.0.0.0/24, 2002::/16")
_IPV6_UNICAST = networks("2000::/3")


class CannotFetch(Exception):
    """Why there is no answer, in words for whoever gave the address. They tell nothing of our network.

    `why` is the same as one word: dns, private, connection, timeout, http, redirects or url.
    """

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class Fetched(NamedTuple):
    """An answer."""

    hostname: str
    """Of the host that gave it, behind all redirects."""
    status: int
    body: bytes
    """As it was sent, up to as many bytes as were asked for."""


def resolver(server: tuple[str, int] | None) -> Resolver:
    """What looks names up: at this address and port, or where this machine does."""
    try:
        found = Resolver(configure=server is None)
    except dns.resolver.NoResolverConfiguration:  # then nothing is found
        found = Resolver(configure=False)
    if server is not None:
        found.nameservers, found.port = [server[0]], server[1]
    found.lifetime = _LOOK_UP_S
    return found


def is_public(address: IpAddress) -> bool:
    """Whether an address means the same machine everywhere on the internet."""
    if is_in(str(address), _REFUSED):
        return False
    if isinstance(address, IPv6Address) and not is_in(str(address), _IPV6_UNICAST):
        return address.ipv4_mapped is not None and is_public(address.ipv4_mapped)
    return address.is_global and not address.is_multicast


class Fetcher:
    """Asks for what others have named. `reachable` are networks that are asked though they are not public."""

    def __init__(self, names: Resolver, reachable: Networks = ()) -> None:
        self._names = names
        self._reachable = reachable

    async def get(
        self, url: str, *, max_bytes: int, within_s: float, redirects: int = 5, method: str = "GET"
    ) -> Fetched:
        """What is answered, with whatever status; to HEAD without a body. Raises `CannotFetch`."""
        try:
            async with asyncio.timeout(within_s):
                for _ in range(redirects + 1):
                    answer = await self._ask(method, _target(url), max_bytes)
                    if isinstance(answer, Fetched):
                        return answer
                    url = answer
        except TimeoutError as error:
            raise CannotFetch("The answer took too long.", "timeout") from error
        raise CannotFetch("There are too many redirects.", "redirects")

    async def _ask(self, method: str, target: Any, max_bytes: int) -> Fetched | str:
        """The answer, or where it redirects to."""
        addresses = await self._addresses(target.hostname)
        for tried, address in enumerate(addresses, start=1):
            try:
                return await self._ask_at(address, method, target, max_bytes)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if tried == len(addresses):
                    raise CannotFetch(f"{target.hostname} can't be connected to: {error}.", "connection") from error
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise CannotFetch(f"{target.hostname} gives no answer in HTTP.", "http") from error
        raise CannotFetch(f"{target.hostname} has no public address.", "private")

    async def _ask_at(self, address: IpAddress, method: str, target: Any, max_bytes: int) -> Fetched | str:
        """Connects to the address, and speaks to the host: by its name in TLS and in HTTP."""
        at = f"[{address}]" if address.version == 6 else str(address)
        port = f":{target.port}" if target.port else ""
        transport = httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False)
        async with (
            httpx2.AsyncClient(transport=transport, trust_env=False, timeout=_TIMEOUT) as client,
            client.stream(
                method,
                f"{target.protocol}//{at}{port}{target.pathname}{target.search}",
                headers={"Host": target.host, "User-Agent": _AGENT, "Accept-Encoding": "identity"},
                extensions={"sni_hostname": target.hostname.strip("[]").removesuffix(".")},
            ) as answer,
        ):
            if answer.status_code in _REDIRECTS and "location" in answer.headers:
                return _joined(target.href, answer.headers["location"])
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) >= max_bytes:
                    break
            return Fetched(target.hostname, answer.status_code, bytes(body[:max_bytes]))

    async def _addresses(self, hostname: str) -> list[IpAddress]:
        """Those of a host that may be asked; IPv4 first, which more machines have."""
        try:
            found = [ip_address(hostname.strip("[]"))]
        except ValueError:
            found = await self._looked_up(hostname)
        reachable = [one for one in found if is_public(one) or is_in(str(one), self._reachable)]
        return sorted(reachable, key=lambda one: one.version)[:_TRIED_ADDRESSES]

    async def _looked_up(self, hostname: str) -> list[IpAddress]:
        try:
            answers = await self._names.resolve_name(f"{hostname.removesuffix('.')}.")
        except (dns.exception.DNSException, OSError) as error:
            raise CannotFetch(f"There is no host {hostname} in the DNS.", "dns") from error
        return [ip_address(address) for address in answers.addresses()]

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


def _target(url: str) -> Any:
    """The URL as a browser reads it; nothing of ours reads it in another way."""
    try:
        target = can_ada.parse(url)
    except ValueError as error:
        raise CannotFetch("It is no absolute URL.", "url") from error
    if target.protocol not in ("http:", "https:"):
        raise CannotFetch("Only http:// and https:// are asked.", "url")
    return target


def _joined(base: str, location: str) -> str:
    try:
        return urljoin(base, location)
    except ValueError as error:
        raise CannotFetch("It redirects to what is no URL.", "url") from error
