"""Entries: what of a link's row the edge is told."""

import json
from collections.abc import Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any

import asyncpg

from admin.links.links import Link
from shared.entries import PLAIN, Entry, Preview, Rule, Terms, Variant
from shared.rules import with_utm

COLUMNS = """id, organization_id, hostname, path, destination, redirect_status, cache_seconds, robots, archived,
              disabled, reported_at, starts_at, expires_at, click_limit, fallback_url, password_hash, query_policy,
              click_id_parameter, rules::text, variants::text, preview::text, utm::text,
              case when click_id_parameter is not null then (select key from click_key) end as click_id_key"""
"""What `entry_of` reads of a row of links."""

_PLAIN_ROW = {
    "archived": False,
    "disabled": False,
    "reported_at": None,
    "starts_at": None,
    "expires_at": None,
    "click_limit": None,
    "fallback_url": None,
    "password_hash": None,
    "query_policy": "none",
    "click_id_parameter": None,
    "rules": "[]",
    "variants": "[]",
    "preview": "{}",
}
"""The columns that make terms, as they are in a row without any."""

_terms_of = itemgetter(*_PLAIN_ROW)
_PLAIN_TERMS = tuple(_PLAIN_ROW.values())


def entry_of(row: asyncpg.Record | Mapping[str, Any]) -> Entry:
    """What the edge needs to know of a link."""
    utm = json.loads(row["utm"]) if row["utm"] != "{}" else {}
    terms = PLAIN
    if _terms_of(row) != _PLAIN_TERMS:  # most are plain, and a rebuild brings them all
        terms = Terms(
            state=_state(row),
            starts_at_ms=_milliseconds(row["starts_at"]),
            expires_at_ms=_milliseconds(row["expires_at"]),
            click_limit=row["click_limit"],
            fallback=row["fallback_url"] or "",
            password_hash=row["password_hash"] or "",
            query_policy=row["query_policy"],
            click_id_parameter=row["click_id_parameter"] or "",
            click_id_key=row["click_id_key"] or "",
            rules=tuple(
                Rule(rule["id"], rule["when"], with_utm(rule["destination"], utm)) for rule in json.loads(row["rules"])
            ),
            variants=tuple(
                Variant(part["id"], part["weight"], with_utm(part["destination"], utm))
                for part in json.loads(row["variants"])
            ),
            preview=Preview(**json.loads(row["preview"])),
        )
    return Entry(
        row["id"],
        row["organization_id"],
        with_utm(row["destination"], utm) if utm else row["destination"],
        row["redirect_status"],
        row["cache_seconds"],
        row["robots"] or "",
        terms,
    )


def entry_of_link(link: Link) -> Entry:
    """The same, of a link that was read, but for the key of click ids: it is to be looked at, not published."""
    texts = {name: json.dumps(getattr(link, name)) for name in ("rules", "variants", "preview", "utm")}
    return entry_of(link._asdict() | texts | {"click_id_key": None})


def _state(row: asyncpg.Record | Mapping[str, Any]) -> str:
    if row["reported_at"]:
        return "reported"
    return "disabled" if row["disabled"] else "archived" if row["archived"] else ""


def _milliseconds(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1000)
