"""Facts: what a click says of whoever clicked, as words. Pure, and cached where the same text comes often.

Rules of this file:

1. A fact that can't be known is empty. Any other word has parts with tabs between them, also where there is one part
   alone: that is how an index tells facts from agents, which have no tab.
2. Every part is bounded: whatever a visitor sends, it fits into an index of Postgres.
"""

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from admin.stats.places import Locate
from shared.clicks import Click
from shared.visitor import Visitor, country_of

UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
_LONGEST_UTM = 100

# Of a host, the names that say what it is; and hosts whose names would say nothing. The first that fits is right.
_NAMED = {
    "mail": {"mail", "webmail", "outlook", "gmail", "protonmail", "gmx", "fastmail", "zohomail", "roundcube"},
    "messenger": {"whatsapp", "telegram", "messenger", "slack", "discord", "skype", "viber", "signal", "teams"},
    "social": {
        *("facebook", "instagram", "twitter", "linkedin", "reddit", "pinterest", "tiktok", "youtube", "vk", "tumblr"),
        *("threads", "mastodon", "bsky", "quora", "snapchat", "xing", "weibo"),
    },
    "search": {
        *("google", "bing", "duckduckgo", "yahoo", "ecosia", "qwant", "startpage", "baidu", "yandex", "naver"),
        *("brave", "kagi", "seznam"),
    },
}
_SHORT = {
    "t.co": "social",
    "x.com": "social",
    "fb.me": "social",
    "lnkd.in": "social",
    "youtu.be": "social",
    "redd.it": "social",
    "pin.it": "social",
    "t.me": "messenger",
    "wa.me": "messenger",
    "m.me": "messenger",
}

GROUPS = ("direct", "search", "social", "mail", "messenger", "other")


class Facts(NamedTuple):
    """The words of a click."""

    location: str
    """Country (ISO 3166-1 alpha-2) and city."""
    referrer: str
    """The host the visitor came from, and what kind of place that is: one of `GROUPS`."""
    platform: str
    """Device, system and browser, as `shared.visitor` names them."""
    language: str
    """The first that the visitor reads, as a tag (RFC 5646); one part."""
    campaign: str
    """The values of `UTM`."""


def facts_of(click: Click, locate: Locate = country_of) -> Facts:
    """What is known of a click."""
    location = locate(click.address)
    return Facts(
        location if "\t" in location or not location else f"{location}\t",
        _referrer(click.referrer),
        _platform(click.user_agent),
        _language(click.accept_language),
        _campaign(click.campaign) if click.campaign else "",
    )


def group_of(host: str) -> str:
    """One of `GROUPS`: what kind of place a referrer's host is."""
    if not host:
        return "direct"
    labels = host.split(".")
    named = (group for group, names in _NAMED.items() if not names.isdisjoint(labels))
    return _SHORT.get(".".join(labels[-2:])) or next(named, "other")


@lru_cache(maxsize=16384)
def _referrer(url: str) -> str:
    host = Visitor("", "", "", url, "", 0).referrer_host
    return f"{host}\t{group_of(host)}" if host else ""


@lru_cache(maxsize=32768)
def _platform(user_agent: str) -> str:
    visitor = Visitor("", user_agent, "", "", "", 0)
    return f"{visitor.device}\t{visitor.os}\t{visitor.browser}"


@lru_cache(maxsize=4096)
def _language(accept_language: str) -> str:
    languages = Visitor("", "", accept_language, "", "", 0).languages
    return f"{languages[0]}\t" if languages else ""


@lru_cache(maxsize=16384)
def _campaign(query: str) -> str:
    values = {name.lower(): value for name, value in reversed(parse_qsl(query, errors="replace"))}
    parts = [" ".join(values.get(name, "").replace("\0", "").split())[:_LONGEST_UTM] for name in UTM]
    return "\t".join(parts) if any(parts) else ""
