"""Heads: from a record of the spool to the click that leaves this machine.

Cookies and credentials are in the head of a request; what is not in a `Click` goes no further than here. The head was
accepted by the HTTP parser before it was recorded: its lines end with CRLF, none is folded, no name has a space.
"""

import re

import orjson

from edge.segments import Record
from shared.addresses import Proxies
from shared.clicks import MAX_ACCEPT_LANGUAGE, MAX_CAMPAIGN, MAX_REFERRER, MAX_USER_AGENT, Click
from shared.visitor import PURPOSE_HEADERS, asks_ahead

_METHODS = (b"GET", b"HEAD")
_PURPOSES = frozenset(name.encode() for name in PURPOSE_HEADERS)
_ADDED_UP = _PURPOSES | {b"x-forwarded-for"}
"""Headers of which each one counts; of others it is the first."""
_NAMES = (b"user-agent", b"referer", b"accept-language", b"sec-gpc", b"dnt", *_ADDED_UP)
# All of them in one pass of 1 us; to look for each by itself takes 3.
_HEADERS = re.compile(rb"\n(%s):([^\n]*)" % b"|".join(_NAMES))


def click_bytes(record: bytes, proxies: Proxies) -> bytes:
    """The record as `Click.to_bytes` writes it.

    One that can't be read is written as what it is, without its content: ingest sets it aside with this reason.
    """
    try:
        return click_of(Record.from_bytes(record), proxies).to_bytes()
    except Exception as error:  # whatever a visitor has sent, those behind it must not wait
        return orjson.dumps({"unreadable": str(error), "bytes": len(record)})


def click_of(record: Record, proxies: Proxies) -> Click:
    """What of a record matters. Raises ValueError when its head is none."""
    head = record.head
    lowered = head.lower()
    method = head.partition(b" ")[0]
    # No accepted head has a NUL. A hole that a loss of power left is full of them, and may be where a cookie began.
    if method not in _METHODS or b"\0" in head or not head.endswith(b"\r\n\r\n"):
        raise ValueError("the head of the request is torn")
    values = _values(head, lowered)
    line = head[: head.find(b"\r\n")]
    query = line.split(b" ")[1].partition(b"#")[0].partition(b"?")[2] if b"?" in line else b""
    forwarded_for = values.get(b"x-forwarded-for", b"").decode("latin-1")
    return Click(
        record.at_ns // 1_000_000,
        record.link_id,
        record.organization_id,
        method.decode("ascii"),
        proxies.client_of(record.peer, forwarded_for),
        values.get(b"user-agent", b"").decode("utf-8", "replace")[:MAX_USER_AGENT],
        values.get(b"referer", b"").decode("utf-8", "replace")[:MAX_REFERRER],
        record.rule_id,
        record.variant_id,
        record.is_use,
        b"qr=1" in query and b"&qr=1&" in b"&%s&" % query,  # the address in the link's QR codes
        record.has_id,
        values.get(b"accept-language", b"").decode("latin-1")[:MAX_ACCEPT_LANGUAGE],
        _campaign(query) if b"utm_" in query else "",
        not _PURPOSES.isdisjoint(values) and _is_prefetch(values),
        values.get(b"sec-gpc") == b"1" or values.get(b"dnt") == b"1",
    )


def _is_prefetch(values: dict[bytes, bytes]) -> bool:
    return any(asks_ahead(values[name].decode("latin-1")) for name in _PURPOSES & values.keys())


def _campaign(query: bytes) -> str:
    named = (part for part in query.split(b"&") if part.startswith(b"utm_"))
    return b"&".join(named).decode("utf-8", "replace")[:MAX_CAMPAIGN]


def _values(head: bytes, lowered: bytes) -> dict[bytes, bytes]:
    """The values of headers by their names in lower case; of several that add up, with commas between."""
    values: dict[bytes, bytes] = {}
    for found in _HEADERS.finditer(lowered):
        name, value = found[1], head[found.start(2) : found.end(2)].strip()
        if name not in values:
            values[name] = value
        elif name in _ADDED_UP:
            values[name] += b"," + value
    return values
