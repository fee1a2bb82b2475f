"""Formats: who writes which columns, by which of them a file is known, and what each becomes.

Names of columns are compared without blanks, `_`, `-` and case, in CSV and in JSON alike. What a format does not list
is passed over, and reported. Where two columns say the same, the one that is listed first is heard.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from admin.links.transfer import columns as to
from admin.links.transfer import values
from admin.links.transfer.columns import Column
from admin.links.transfer.own import COLUMNS


class Format(NamedTuple):
    """A kind of file."""

    source: str
    """Who writes it, in one word."""
    name: str
    marks: tuple[frozenset[str], ...]
    """Columns, normalised; all of one of these sets are there."""
    columns: Mapping[str, Column]
    """By their normalised names, in the order in which they are heard."""
    is_guarded: bool = False
    """Whether its CSV has apostrophes before what looks like a formula."""
    if_empty: str = ""
    """Why a file may have a header and nothing else, where that is an accident."""

    @property
    def is_own(self) -> bool:
        """Whether we wrote it."""
        return self.source == "linkwire"


def normal(name: str) -> str:
    """A name of a column as names are compared."""
    return re.sub(r"[\s\ufeff_-]", "", name).lower()


def recognised(names: Iterable[str], source: str = "") -> Format | None:
    """Whose columns these are; of this source only, if one is given."""
    found = frozenset(map(normal, names))
    for one in FORMATS:
        if source in ("", one.source) and any(mark <= found for mark in one.marks):
            return one
    return None


def no_links(names: Iterable[str]) -> str:
    """What a file holds that is known, but no links; empty for all others."""
    found = frozenset(map(normal, names))
    return next((what for mark, what in _NO_LINKS if mark <= found), "")


def _marks(*sets: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(one.split()) for one in sets)


_SHLINK_IF_EMPTY = (
    "reload the page of Shlink's web client, and export again: when visits were exported before, it writes nothing else"
)

FORMATS = (
    Format(
        "shlink",
        "Shlink, CSV of short URLs",
        _marks("shorturl longurl shortcode visits"),
        {
            "domain": to.HOSTNAME,
            "shortcode": to.PATH,
            "shorturl": to.ADDRESS,
            "longurl": to.DESTINATION,
            "title": to.TITLE,
            "tags": to.one("tags", lambda value: values.tags(value, "|")),
            "visits": to.CLICKS,
            "createdat": to.CREATED,
        },
        if_empty=_SHLINK_IF_EMPTY,
    ),
    Format(
        "shlink",
        "Shlink, CSV of short URLs before 3.10.1",
        _marks("shorturl longurl visits"),
        {
            "shorturl": to.ADDRESS,
            "longurl": to.DESTINATION,
            "title": to.TITLE,
            "tags": to.TAGS,
            "visits": to.CLICKS,
            "createdat": to.CREATED,
        },
        if_empty=_SHLINK_IF_EMPTY,
    ),
    Format(
        "shlink",
        "Shlink, REST API or CSV for its import",
        _marks("longurl shortcode", "longurl shorturl"),
        {
            "shorturl": to.ADDRESS,
            "domain": to.HOSTNAME,
            "shortcode": to.PATH,
            "longurl": to.DESTINATION,
            "title": to.TITLE,
            "tags": to.TAGS_OF_SHLINK,
            "meta": to.TERMS_OF_SHLINK,
            "visitssummary": to.VISITS,
            "visitscount": to.CLICKS,
            "datecreated": to.CREATED,
            "forwardquery": to.flag("queryPolicy", "override"),
            "devicelongurls": to.BY_DEVICE,
        },
    ),
    Format(
        "dub",
        "Dub, CSV of links",
        _marks("shortlink destinationurl"),
        {
            "shortlink": to.ADDRESS,
            "destinationurl": to.DESTINATION,
            "clicks": to.CLICKS,
            "createdat": to.CREATED,
            "tags": to.TAGS,
            "archived": to.ARCHIVED,
        },
        is_guarded=True,
    ),
    Format(
        "dub",
        "Dub, REST API",
        _marks("shortlink url key"),
        {
            "shortlink": to.ADDRESS,
            "url": to.DESTINATION,
            "title": to.TITLE,
            "comments": to.NOTES,
            "tags": to.TAGS,
            "externalid": to.one("externalId", values.text),
            "archived": to.ARCHIVED,
            "disabledat": to.one("disabled", lambda _: True),
            "expiresat": to.EXPIRES,
            "expiredurl": to.FALLBACK,
            "password": to.PASSWORD,
            "ios": to.when("os", "ios"),
            "android": to.when("os", "android"),
            "geo": to.BY_COUNTRY,
            "publicstats": to.flag("isPublicStats", True),
            "clicks": to.CLICKS,
            "createdat": to.CREATED,
        },
    ),
    Format(
        "dub",
        "Dub, CSV of links before 21 October 2025",
        _marks("link url clicks", "link url createdat"),
        {
            "link": to.ADDRESS,
            "url": to.DESTINATION,
            "clicks": to.CLICKS,
            "createdat": to.CREATED,
            "tags": to.TAGS,
            "archived": to.ARCHIVED,
        },
        is_guarded=True,
    ),
    Format(
        "bitly",
        "Bitly, CSV or API",
        _marks(
            "customlink destinationurl",
            "custombitlink longurl",
            "link destinationurl",
            "link longurl",
            "bitlink longurl",
            "shortlink longurl",
            "shortlink destination",
        ),
        {
            "customlink": to.ADDRESS,
            "custombitlink": to.ADDRESS,
            "custombitlinks": to.ADDRESSES,
            "link": to.ADDRESS,
            "shortlink": to.ADDRESS,
            "bitlink": to.ADDRESS,
            "destinationurl": to.DESTINATION,
            "destination": to.DESTINATION,
            "longurl": to.DESTINATION,
            "title": to.TITLE,
            "tags": to.TAGS,
            "archived": to.ARCHIVED,
            "totalclicks": to.CLICKS,
            "clicks": to.CLICKS,
            "createdat": to.CREATED,
            "created": to.CREATED,
        },
    ),
    Format(
        "kutt",
        "Kutt, API",
        _marks("address target"),
        {
            "link": to.ADDRESS_OF_KUTT,
            "domain": to.HOSTNAME,
            "address": to.PATH,
            "target": to.DESTINATION,
            "description": to.TITLE,
            "banned": to.flag("disabled", True),
            "password": to.PASSWORD,
            "expirein": to.EXPIRES,
            "visitcount": to.CLICKS,
            "createdat": to.CREATED,
        },
    ),
    Format(
        "yourls",
        "YOURLS, CSV of a plugin",
        _marks("source target hits"),
        {"source": to.PATH, "target": to.DESTINATION, "hits": to.CLICKS},
    ),
    Format(
        "yourls",
        "YOURLS, table or API",
        _marks("keyword url", "shorturl url timestamp", "shorturl url ip"),
        {
            "shorturl": to.ADDRESS,
            "keyword": to.PATH,
            "url": to.DESTINATION,
            "title": to.TITLE,
            "timestamp": to.CREATED,
            "clicks": to.CLICKS,
        },
    ),
    Format(
        "shortio",
        "Short.io, CSV or API",
        _marks("originalurl path", "originalurl shorturl"),
        {
            "shorturl": to.ADDRESS,
            "secureshorturl": to.ADDRESS,
            "domain": to.HOSTNAME,
            "path": to.PATH,
            "originalurl": to.DESTINATION,
            "title": to.TITLE,
            "tags": to.TAGS,
            "foldername": to.FOLDER,
            "archived": to.ARCHIVED,
            "expiresat": to.EXPIRES,
            "expireat": to.EXPIRES,
            "expiredurl": to.FALLBACK,
            "expireurl": to.FALLBACK,
            "clickslimit": to.LIMIT,
            "password": to.PASSWORD,
            "haspassword": to.PASSWORD,
            "redirecttype": to.STATUS,
            "skipqs": to.flag("queryPolicy", "append", wanted=False),
            "iphoneurl": to.when("os", "ios"),
            "iosurl": to.when("os", "ios"),
            "androidurl": to.when("os", "android"),
            "utmsource": to.utm("source"),
            "utmmedium": to.utm("medium"),
            "utmcampaign": to.utm("campaign"),
            "utmterm": to.utm("term"),
            "utmcontent": to.utm("content"),
            "clicks": to.CLICKS,
            "createdat": to.CREATED,
        },
    ),
    Format(
        "sink",
        "Sink, JSON",
        _marks("slug url"),
        {
            "slug": to.PATH,
            "url": to.DESTINATION,
            "title": to.TITLE,
            "comment": to.NOTES,
            "tags": to.TAGS,
            "expiration": to.EXPIRES,
            "password": to.PASSWORD,
            "redirectwithquery": to.flag("queryPolicy", "override"),
            "apple": to.when("os", "ios"),
            "google": to.when("os", "android"),
            "geo": to.BY_COUNTRY,
            "createdat": to.CREATED,
        },
    ),
    Format(
        "rebrandly",
        "Rebrandly, API or CSV made of it",
        _marks("slashtag destination"),
        {
            "shorturl": to.ADDRESS,
            "domain": to.HOSTNAME,
            "slashtag": to.PATH,
            "destination": to.DESTINATION,
            "title": to.TITLE,
            "tags": to.TAGS,
            "clicks": to.CLICKS,
            "createdat": to.CREATED,
        },
    ),
    Format(
        "linkwire",
        "Linkwire",
        _marks("destination"),
        {normal(field): column for field, column in COLUMNS.items()},
        is_guarded=True,
    ),
)
"""The more marks a format has in common with another, the earlier it is asked."""

SOURCES = tuple(dict.fromkeys(one.source for one in FORMATS))
"""Who writes the files that can be read."""

_NO_LINKS = tuple(
    (frozenset(mark.split()), what)
    for mark, what in (
        ("potentialbot useragent", "These are visits that Shlink has counted, not links."),
        ("date link referrer", "These are events of Dub, not links: export the links."),
        ("date link customer", "These are events of Dub, not links: export the links."),
        ("date shortlink totalengagements", "These are daily counts of Bitly, not links: export the links."),
        ("link title buttonclicks", "These are counts of Bitly, not links: export the links."),
        ("slug url viewer views", "These are visits that Sink has counted, not links: export the links as JSON."),
    )
)
