"""Networks: what kind of network an address is of, by the lists that providers of networks publish.

What is on no list may be anything; most of it is where people live and work. The lists are those of the package
iporigin, and as old as it is.
"""

from functools import cache
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

KINDS = ("hosting", "cdn", "vpn", "tor", "bot")
"""As iporigin names them: data centres; what stands before other people's sites; exits of VPNs and of private relays;
those of Tor; and crawlers that say so. Rows have the place in this list, from 1 on: new kinds come to its end."""


def network_kind(address: str) -> str:
    """One of `KINDS`, or empty when nobody knows, also of text that is no address."""
    is_6 = ":" in address
    try:
        number = int.from_bytes(inet_pton(AF_INET6 if is_6 else AF_INET, address), "big")
    except (OSError, ValueError):
        return ""
    _provider, kind = _ranges().find(number, 6 if is_6 else 4) or ("", "")
    return kind if kind in KINDS else ""


@cache
def _ranges() -> Any:
    # What iporigin has for others to call takes 9 us for what takes 1 here, most of it for addresses on no list.
    from iporigin._data import dataset

    return dataset()  # type: ignore[no-untyped-call]
