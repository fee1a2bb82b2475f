"""Facts about a visitor, worked out from address and headers: pure, and cached where the same text comes often."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

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


def client_address(peer: str, forwarded_for: str, trusted: Networks) -> str:
    """The visitor's address: the peer, or, behind trusted proxies, what they say in X-Forwarded-For.

    Each proxy appends the address it was called from, so the list is read from its end for as long as the speaker is
    trusted; what an untrusted client wrote at its beginning is never believed. Canonical text, IPv4-mapped addresses
    as IPv4; empty when the peer is unknown (a unix socket).
    """
    return _believed(peer, forwarded_for[-_READ_OF_FORWARDED_FOR:], trusted)


@lru_cache(maxsize=16384)
def _believed(peer: str, forwarded_for: str, trusted: Networks) -> str:
    believed = ""
    for said in (peer, *reversed(forwarded_for.split(","))):
        try:
            candidate = ip_address(said.strip())
        except ValueError:
            break
        if isinstance(candidate, IPv6Address) and candidate.ipv4_mapped:
            candidate = candidate.ipv4_mapped
        believed = str(candidate)
        if not any(candidate in network for network in trusted):
            break
    return believed
