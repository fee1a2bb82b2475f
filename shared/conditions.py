"""Conditions: what a rule can ask about a visitor, when that holds, and the form in which its values are kept.

    country    where the address is registered, ISO 3166-1: DE
    device     one of `DEVICES`;  os: of `SYSTEMS`;  browser: of `BROWSERS`
    language   pt is every Portuguese, pt-BR that of Brazil only. It must be among the languages that the visitor wants
               most: who reads Portuguese if need be is better served with what everybody gets.
    query      a parameter is there (name), or is there with just this value (name=value); both decoded
    referrer   the visitor comes from this host or one below it; direct: from none
    address    an address or a range: 192.0.2.0/24
    time       a time window (windows.py)

A condition that is unknown, or not in normal form, never holds: an edge that is older than the rule sends no one where
it should not.
"""

import json
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.resources import files
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, NamedTuple

from shared.links import normal_hostname
from shared.visitor import BROWSERS, DEVICES, SYSTEMS, Visitor, language_tag
from shared.windows import instant, is_open, normal_window

MAX_PARAMETER_LENGTH = 200
"""Characters of a parameter that is asked for, with its value."""

_DIRECT = "direct"


class Condition(NamedTuple):
    """What the name of a condition means."""

    holds: Callable[[Visitor, list[Any]], bool]
    """Whether one of these values does. What is not in normal form may raise."""
    fact: Callable[[Visitor], object]
    """What it looks at, for people, as JSON."""
    normal: Callable[[Any], Any]
    """The normal form of a value. Raises ValueError, whose `args` say everything that is wrong with it."""


def holds(visitor: Visitor, name: str, values: list[Any]) -> bool:
    """Whether this condition holds, with one of these values."""
    condition = CONDITIONS.get(name)
    if condition is None or not isinstance(values, list):
        return False
    try:
        return condition.holds(visitor, values)
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError):
        return False


def _prefers(visitor: Visitor, values: list[str]) -> bool:
    return not _wider(visitor.preferred_languages).isdisjoint(values)


@lru_cache(maxsize=4096)
def _wider(tags: tuple[str, ...]) -> frozenset[str]:
    """The tags, and those of which they are a part: `zh-Hant-TW` is also `zh-Hant` and `zh`."""
    return frozenset("-".join(tag.split("-")[:parts]) for tag in tags for parts in range(1, tag.count("-") + 2))


def _sends(visitor: Visitor, values: list[str]) -> bool:
    for value in values:
        name, has_value, wanted = value.partition("=")
        sent = visitor.parameters.get(name)
        if sent is not None and (not has_value or wanted in sent):
            return True
    return False


def _comes_from(visitor: Visitor, values: list[str]) -> bool:
    host = visitor.referrer_host
    if not host:
        return _DIRECT in values
    return any(host == value or host.endswith("." + value) for value in values if value != _DIRECT)


def _is_within(visitor: Visitor, values: list[str]) -> bool:
    ip = visitor.ip
    if ip is None:
        return False
    width, number = ip.max_prefixlen, int(ip)
    return any(width == of and number >> free in begins for (of, free), begins in _ranges(tuple(values)).items())


@lru_cache(maxsize=2048)
def _ranges(texts: tuple[Any, ...]) -> dict[tuple[int, int], set[int]]:
    """The begins of ranges in normal form, by the bits that an address has and those that are free in the range.

    Worked out once for all visits, and by the C library: 50 rules with 100 ranges each took 40 ms of every visit with
    `ip_network`; this takes 5 ms of the first one, and 0.2 of the others. Raises ValueError, OSError, AttributeError.
    """
    ranges: dict[tuple[int, int], set[int]] = {}
    for text in texts:
        address, is_range, length = text.partition("/")
        packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
        bits = len(packed) * 8
        free = bits - int(length) if is_range else 0
        ranges.setdefault((bits, free), set()).add(int.from_bytes(packed, "big") >> free)
    return ranges


def _network(text: Any) -> IPv4Network | IPv6Network:
    """IPv4-mapped addresses are IPv4, as a visitor's are. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("a number would be an address too")
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def _normal_country(value: Any) -> str:
    code = _text(value).upper()
    if code not in _countries():
        raise ValueError(
            f"{_shown(value)} is no country: write two letters of ISO 3166-1, such as DE (and GB, not UK)."
        )
    return code


@cache
def _countries() -> frozenset[str]:
    """The list that comes with the time zones, whose maintainers keep it."""
    lines = (files("tzdata.zoneinfo") / "iso3166.tab").read_text().splitlines()
    return frozenset(line[:2] for line in lines if not line.startswith("#"))


def _one_of(vocabulary: tuple[str, ...]) -> Callable[[Any], str]:
    def normal(value: Any) -> str:
        word = _text(value).lower()
        if word not in vocabulary:
            raise ValueError(f"{_shown(value)} is none of {', '.join(vocabulary)}.")
        return word

    return normal


def _normal_language(value: Any) -> str:
    return language_tag(_text(value))


def _normal_parameter(value: Any) -> str:
    if not isinstance(value, str) or not value.partition("=")[0]:
        raise ValueError(f"{_shown(value)} is no parameter: write name, or name=value.")
    if len(value) > MAX_PARAMETER_LENGTH:
        raise ValueError(f"A parameter may have {MAX_PARAMETER_LENGTH} characters with its value.")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("A parameter must not contain control characters.")
    return value


def _normal_referrer(value: Any) -> str:
    host = _text(value)
    return _DIRECT if host.lower() in ("", _DIRECT) else normal_hostname(host)


def _normal_range(value: Any) -> str:
    try:
        network = _network(_text(value))
    except ValueError as error:
        raise ValueError(f"{_shown(value)} is no address, and no range such as 192.0.2.0/24.") from error
    return str(network.network_address if network.num_addresses == 1 else network)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is no text.")
    return value.strip()


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:60]


CONDITIONS = {
    "country": Condition(lambda visitor, values: visitor.country in values, lambda v: v.country, _normal_country),
    "device": Condition(lambda visitor, values: visitor.device in values, lambda v: v.device, _one_of(DEVICES)),
    "os": Condition(lambda visitor, values: visitor.os in values, lambda v: v.os, _one_of(SYSTEMS)),
    "browser": Condition(lambda visitor, values: visitor.browser in values, lambda v: v.browser, _one_of(BROWSERS)),
    "language": Condition(_prefers, lambda v: v.preferred_languages, _normal_language),
    "query": Condition(_sends, lambda v: v.query[:MAX_PARAMETER_LENGTH], _normal_parameter),
    "referrer": Condition(_comes_from, lambda v: v.referrer_host or _DIRECT, _normal_referrer),
    "address": Condition(_is_within, lambda v: v.address, _normal_range),
    "time": Condition(
        lambda visitor, values: any(is_open(value, visitor.at_ms) for value in values),
        lambda v: instant(v.at_ms),
        normal_window,
    ),
}
"""All there are, by name."""
