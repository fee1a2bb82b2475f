"""Heads: from a record of the spool to the click that leaves this machine.

Cookies and credentials are in the head of a request; what is not in a `Click` goes no further than here. The head was
accepted by the HTTP parser before it was recorded: its lines end with CRLF, none is folded, no name has a space.
"""

import orjson

from edge.segments import Record
from shared.clicks import MAX_ACCEPT_LANGUAGE, MAX_CAMPAIGN, MAX_REFERRER, MAX_USER_AGENT, Click
from shared.visitor import PURPOSE_HEADERS, Networks, asks_ahead, client_address

_METHODS = (b"GET", b"HEAD")
_PURPOSES = [f"\r\n{name}:".encode() for name in PURPOSE_HEADERS]


def click_bytes(record: bytes, trusted_proxies: Networks) -> bytes:
    """The record as `Click.to_bytes` writes it.

    One that can't be read is written as what it is, without its content: ingest sets it aside with this reason.
    """
    try:
        return click_of(Record.from_bytes(record), trusted_proxies).to_bytes()
    except ValueError as error:
        return orjson.dumps({"unreadable": str(error), "bytes": len(record)})


def click_of(record: Record, trusted_proxies: Networks) -> Click:
    """What of a record matters. Raises ValueError when its head is none."""
    head = record.head
    lowered = head.lower()
    method = head.partition(b" ")[0]
    # No accepted head has a NUL. A hole that a loss of power left is full of them, and may be where a cookie began.
    if method not in _METHODS or b"\0" in head or not head.endswith(b"\r\n\r\n"):
        raise ValueError("the head of the request is torn")
    forwarded_for = b""
    if b"\r\nx-forwarded-for:" in lowered:
        forwarded_for = b",".join(_values(head, lowered, b"\r\nx-forwarded-for:"))
    query = head[: head.find(b"\r\n")].split(b" ")[1].partition(b"#")[0].partition(b"?")[2]
    return Click(
        record.at_ns // 1_000_000,
        record.link_id,
        record.organization_id,
        method.decode("ascii"),
        client_address(record.peer, forwarded_for.decode("latin-1"), trusted_proxies),
        _value(head, lowered, b"\r\nuser-agent:").decode("utf-8", "replace")[:MAX_USER_AGENT],
        _value(head, lowered, b"\r\nreferer:").decode("utf-8", "replace")[:MAX_REFERRER],
        record.rule_id,
        record.variant_id,
        record.is_use,
        b"&qr=1&" in b"&%s&" % query,  # the address in the link's QR codes
        record.has_id,
        _value(head, lowered, b"\r\naccept-language:").decode("latin-1")[:MAX_ACCEPT_LANGUAGE],
        _campaign(query) if b"utm_" in query else "",
        _is_prefetch(head, lowered),
        b"\r\nsec-gpc: 1\r\n" in lowered or b"\r\ndnt: 1\r\n" in lowered,
    )


def _is_prefetch(head: bytes, lowered: bytes) -> bool:
    if b"purpose:" not in lowered and b"\r\nx-moz:" not in lowered:
        return False
    said = [value for name in _PURPOSES for value in _values(head, lowered, name)]
    return asks_ahead(b",".join(said).decode("latin-1"))


def _campaign(query: bytes) -> str:
    named = (part for part in query.split(b"&") if part.startswith(b"utm_"))
    return b"&".join(named).decode("utf-8", "replace")[:MAX_CAMPAIGN]


def _value(head: bytes, lowered: bytes, name: bytes) -> bytes:
    """The value of the first header with this name; empty when there is none."""
    found = lowered.find(name)
    if found < 0:
        return b""
    begin = found + len(name)
    return head[begin : head.find(b"\r\n", begin)].strip()


def _values(head: bytes, lowered: bytes, name: bytes) -> list[bytes]:
    """The values of all headers with this name."""
    values, found = [], lowered.find(name)
    while found >= 0:
        begin = found + len(name)
        values.append(head[begin : head.find(b"\r\n", begin)].strip())
        found = lowered.find(name, begin)
    return values
