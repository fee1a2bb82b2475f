"""Visitors: who clicked, as a hash that nobody can turn back, for a day of their organization.

Rules of this file:

1. A visitor is an address (of IPv6 the /64) and an agent, hashed with the salt of the organization's day. Two days have
   two salts, so nobody is followed from one day to the next.
2. A salt is destroyed two days after its day has ended. Who is stored later has no visitor, and is counted so.
3. With its first salt, a day is to be counted when it is over (visitor_days.py).
"""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from admin.database import Connection
from shared.addresses import client_network

_KEPT = timedelta(hours=48)


class Day(NamedTuple):
    """A day of an organization."""

    organization_id: int
    day: date
    begins_at: datetime
    ends_at: datetime


def day_of(organization_id: int, at: datetime, time_zone: str) -> Day:
    """The day in which a moment is, in a time zone of IANA."""
    # A zone's offset changes at a quarter of an hour, if at all.
    return _day(organization_id, int(at.timestamp()) // 900, time_zone)


def visitor_of(salt: bytes, address: str, user_agent: str) -> int:
    """Their number, of 64 bits with a sign. The address is canonical."""
    network = client_network(address) if ":" in address else address
    who = f"{network} {user_agent}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(who, key=salt, digest_size=8).digest(), "big", signed=True)


class Salts:
    """Those that one process remembers."""

    def __init__(self) -> None:
        self._salts: dict[Day, bytes] = {}

    async def of(self, connection: Connection, days: Iterable[Day], now: datetime) -> dict[Day, bytes]:
        """The salts of these days, but for those that are destroyed by now. Not in a transaction."""
        alive = {day for day in days if now < day.ends_at + _KEPT}
        if unknown := sorted(alive - self._salts.keys()):
            self._salts = {day: salt for day, salt in self._salts.items() if now < day.ends_at + _KEPT}
            rows = await connection.fetch(
                """
                /* visitors.of */
                with new as (
                    select * from unnest($1::bigint[], $2::date[], $3::timestamptz[], $4::timestamptz[], $5::bytea[])
                        as new (organization_id, day, begins_at, ends_at, salt)),
                     to_be_counted as (
                         insert into visitor_days (organization_id, link_id, begins_at, ends_at)
                         select organization_id, 0, begins_at, ends_at from new on conflict do nothing)
                insert into visitor_salts as held (organization_id, day, ends_at, salt)
                select organization_id, day, ends_at, salt from new
                on conflict (organization_id, day) do update set ends_at = greatest(held.ends_at, excluded.ends_at)
                returning organization_id, day, salt""",
                *zip(*[(*day, secrets.token_bytes(32)) for day in unknown], strict=True),
            )
            known = {(row["organization_id"], row["day"]): row["salt"] for row in rows}
            self._salts |= {day: known[day[:2]] for day in unknown if day[:2] in known}
        return {day: self._salts[day] for day in alive if day in self._salts}


async def clear(connection: Connection) -> None:
    """Destroy the salts of days that are over for long."""
    await connection.execute(
        "/* visitors.clear */ delete from visitor_salts where ends_at < now() - make_interval(secs => $1)",
        _KEPT.total_seconds(),
    )


@lru_cache(maxsize=65536)
def _day(organization_id: int, quarter: int, time_zone: str) -> Day:
    zone = ZoneInfo(time_zone)
    day = datetime.fromtimestamp(quarter * 900, zone).date()
    begin, end = (datetime.combine(day + timedelta(days=after), time(), zone).astimezone(UTC) for after in (0, 1))
    return Day(organization_id, day, begin, end)
