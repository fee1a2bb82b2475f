"""Facts about a visitor, worked out from address and headers: pure, and cached where the same text comes often."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from crawlerdetect import CrawlerDetect

Networks = tuple[IPv4Network | IPv6Network, ...]

_crawlers = CrawlerDetect()

# Anybody can send anything; what the nearest proxies said is at the end.
_READ_OF_FORWARDED_FOR = 256


@lru_cache(maxsize=65536)
def is_bot(user_agent: str) -> bool:
    """Whether the agent names itself as something automatic. No agent at all is automatic too: browsers send one."""
    return not user_agent.strip() or bool(_crawlers.isCrawler(user_agent))


def networks(text: str) -> Networks:
    """Comma-separated addresses and CIDR ranges. Raises ValueError."""
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def is_in(address: str, ranges: Networks) -> bool:
    """Whether the address is in one of the ranges; an IPv4-mapped one counts as IPv4, text that is none is in none."""
    try:
        return any(_unmapped(address) in network for network in ranges)
    except ValueError:
        return False


def client_network(address: str) -> str:
    """What limits and visitors are counted by: an IPv4 address, or the /64 of an IPv6 address, which one host has.

    Text that is no address is its own key.
    """
    try:
        parsed = _unmapped(address)
    except ValueError:
        return address
    return str(parsed) if isinstance(parsed, IPv4Address) else str(IPv6Network((int(parsed) >> 64 << 64, 64)))


def _unmapped(address: str) -> IPv4Address | IPv6Address:
    parsed = ip_address(address.strip())
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed


def client_address(peer: str, forwarded_for: str, trusted: Networks) -> str:
    """The visitor's address: the peer, or, behind trusted proxies, what they say in X-Forwarded-For.

    Each proxy appends the address it was called from, so the list is read from its end for as long as the speaker is
    trusted; what an untrusted client wrote at its beginning is never believed. Canonical text, IPv4-mapped addresses
    as IPv4; empty when the peer is unknown (a unix socket).
    """
    if not forwarded_for:
        return _canonical(peer)
    return _believed(peer, forwarded_for[-_READ_OF_FORWARDED_FOR:], trusted)


@lru_cache(maxsize=16384)
def _canonical(address: str) -> str:
    try:
        return str(_unmapped(address))
    except ValueError:
        return ""


@lru_cache(maxsize=16384)
def _believed(peer: str, forwarded_for: str, trusted: Networks) -> str:
    believed = ""
    for said in (peer, *reversed(forwarded_for.split(","))):
        try:
            candidate = _unmapped(said)
        except ValueError:
            break
        believed = str(candidate)
        if not any(candidate in network for network in trusted):
            break
    return believed
