"""Destinations: the one function that every URL a link may lead to passes through.

What it says of a host, it says of its name. A name on the internet that somebody has made mean a private address is not
found out here: nothing of ours follows a link, and whoever looks at destinations (checker.py) looks at addresses.
"""

import contextlib
import re
import unicodedata
from functools import lru_cache
from ipaddress import ip_address

import can_ada

from admin.fetch import is_public

MAX_LENGTH = 4096
"""Characters of a destination as it is sent."""

_SCHEMES = ("http:", "https:")
_LOCAL = ("localhost", "local", "internal", "home.arpa", "test", "intranet", "private", "corp", "home", "lan")
"""What each network gives a meaning of its own: RFC 6761, 6762 with its appendix G, 8375; ICANN for `internal`."""
_BELOW_LOCAL = tuple(f".{name}" for name in _LOCAL)


class BadDestination(ValueError):
    """Why a link can't lead there, in words for the person who sent it."""


def normal_destination(text: str, *, may_be_private: bool = False) -> str:
    """The URL as a browser reads it (WHATWG), which is what is stored, and sent as `Location` unchanged.

    Raises `BadDestination`. What a parser would quietly repair is refused before parsing, because the URL would lead
    elsewhere than it seems to: control characters vanish; backslashes, and slashes too few or too many, become two.
    Private addresses are refused in all their spellings, for the parser knows them (0x7f.1, 2130706433, １２７.0.0.1).
    """
    # What can be printed has none of them, and that is soon seen.
    if not text.isprintable() and any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise BadDestination("A destination must not contain control characters.")
    if "\\" in text:
        raise BadDestination("A destination must not contain a backslash.")
    if re.match(r"\s*https?:(?!//[^/])", text, re.IGNORECASE):
        raise BadDestination("A destination needs two slashes and a host after its scheme.")
    try:
        url = can_ada.parse(text)
    except ValueError as error:
        raise BadDestination("A destination must be an absolute URL, such as https://example.com/page.") from error
    if url.protocol not in _SCHEMES:
        raise BadDestination("A destination must begin with http:// or https://.")
    if url.username or url.password:
        raise BadDestination("A destination must not contain a user name or password.")
    if len(url.href) > MAX_LENGTH:
        raise BadDestination(f"A destination may have {MAX_LENGTH} characters.")
    if not may_be_private and is_private(hostname_of(url.href)):
        raise BadDestination("A destination must be on the internet, not at a private address or a local name.")
    return str(url.href)


@lru_cache(maxsize=4096)  # of a link that is made, it is asked for several times
def hostname_of(destination: str) -> str:
    """The host of a destination in normal form, as ASCII without port; an IPv6 address is in brackets."""
    return str(can_ada.parse(destination).hostname).rstrip(".")


def is_private(hostname: str) -> bool:
    """Whether what this host of a destination means depends on the network that asks."""
    if hostname[-1:].isdigit() or hostname.endswith("]"):  # as an address is
        with contextlib.suppress(ValueError):
            return not is_public(ip_address(hostname.strip("[]")))
    return "." not in hostname or hostname in _LOCAL or hostname.endswith(_BELOW_LOCAL)
